"""Adding to a number, without reading it."""

import asyncio

import pytest

import comity
from comity import FailedPrecondition, IncrementResult, RequestId
from tests.servers import Server


async def test_no_addition_is_lost(state: comity.Client) -> None:
    done = await asyncio.gather(*(state.increment("n", 1 + number % 2) for number in range(40)))
    assert sorted(each.version for each in done) == list(range(1, 41))
    assert {each.revision for each in done} == set(range(1, 41))
    assert max(each.value for each in done) == 60
    assert await state.increment("n", -70, message="down") == IncrementResult(41, -10, 41)
    assert await state.increment("n", 0) == IncrementResult(42, -10, 42)
    entry = await state.get("n")
    assert entry is not None
    assert (entry.value, entry.content_type) == (-10, "application/json")
    assert [commit.message async for commit in state.history("n")][:2] == ["", "down"]


async def test_a_repeat_adds_nothing(state: comity.Client) -> None:
    once = [await state.increment("n", 5, request_id=RequestId("me", 1)) for _ in range(2)]
    assert once == [IncrementResult(1, 5, 1)] * 2


async def test_a_guard_holds(state: comity.Client) -> None:
    async with state.lease(60.0) as lease:
        await state.increment("n", guard=lease)
    with pytest.raises(comity.LeaseLost):
        await state.increment("n", guard=lease)


async def test_what_is_no_number_is_not_added_to(state: comity.Client) -> None:
    await state.put("text", "one")
    await state.put("most", 2**53 - 1)
    for key in ("text", "most"):
        with pytest.raises(FailedPrecondition) as refused:
            await state.increment(key)
        assert refused.value.reason == "NOT_A_NUMBER"
    for by in ("1", 1.5, None, True):
        with pytest.raises(TypeError, match="by must be a whole number"):
            await state.increment("n", by)  # type: ignore[arg-type]
    with pytest.raises(comity.InvalidArgument):
        await state.increment("")
    assert await state.get("n") is None


def test_the_same_for_threads(server: Server, namespace: str) -> None:
    with comity.sync.connect(server.address, namespace=namespace) as state:
        assert state.increment("n") == IncrementResult(1, 1, 1)
        assert state.increment("n", 2).value == 3
