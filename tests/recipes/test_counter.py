"""Numbers that many add to."""

import asyncio

import pytest

from comity import Client, FailedPrecondition
from comity.recipes import Counter


async def test_it_counts(state: Client) -> None:
    counter = Counter(state, "a")
    assert await counter.get() == 0
    assert await counter.increment() == 1
    assert await counter.increment(10) == 11
    assert await counter.decrement(20) == -9
    assert await counter.get() == -9
    assert await counter.reset(5) == -9
    assert await counter.reset() == 5
    assert await Counter(state, "b").reset() == 0


async def test_no_addition_is_lost(state: Client) -> None:
    counter = Counter(state, "a")
    sums = await asyncio.gather(*(counter.increment() for _ in range(200)))
    assert sorted(sums) == list(range(1, 201))


async def test_each_addition_is_seen_by_one_reset(state: Client) -> None:
    counter = Counter(state, "a")

    async def resets() -> int:
        return sum([await counter.reset() for _ in range(20)])

    added, seen = await asyncio.gather(asyncio.gather(*(counter.increment() for _ in range(100))), resets())
    assert len(added) == 100
    assert seen + await counter.get() == 100


async def test_it_is_part_of_transactions(state: Client) -> None:
    counter = Counter(state, "a")
    await state.transact(lambda tx: tx.increment(counter.key, 3))
    assert await counter.get() == 3


async def test_what_it_cannot_hold_is_refused(state: Client) -> None:
    counter = Counter(state, "a")
    await counter.reset(2**53 - 1)
    with pytest.raises(FailedPrecondition):
        await counter.increment()
    for wrong in (1.5, "1", None, True):
        with pytest.raises(TypeError, match="whole number"):
            await counter.decrement(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="whole number"):
            await counter.reset(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await counter.increment("1")  # type: ignore[arg-type]
