"""Nobody goes on before all have come."""

import asyncio
from collections.abc import Callable

import pytest

from comity import Client, FailedPrecondition
from comity.recipes import Barrier
from tests.recipes.cancelling import cancelled_at
from tests.recipes.processes import Agent
from tests.waiting import until


async def waiting(barrier: Barrier, count: int) -> None:
    async def are_there() -> bool:
        return await barrier.waiting() == count

    await until(are_there)


async def test_all_pass_together(state: Client) -> None:
    barrier = Barrier(state, "a", 3)
    first = [asyncio.create_task(barrier.wait()) for _ in range(2)]
    await waiting(barrier, 2)
    assert not any(task.done() for task in first)
    assert await barrier.wait() == 1
    assert await asyncio.gather(*first) == [1, 1]
    assert await barrier.waiting() == 0
    assert [lease async for lease in state.list_leases()] == []


async def test_it_can_be_used_again(state: Client) -> None:
    rounds: list[int] = []

    async def party() -> None:
        barrier = Barrier(state, "a", 4)
        for number in range(1, 6):
            assert await barrier.wait() == number
            rounds.append(number)

    await asyncio.gather(*(party() for _ in range(4)))
    assert rounds == sorted(rounds)


async def test_one_party_needs_nobody(state: Client) -> None:
    barrier = Barrier(state, "a", 1)
    assert [await barrier.wait(), await barrier.wait()] == [1, 2]


async def test_a_wait_has_an_end(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    with pytest.raises(TimeoutError):
        await barrier.wait(timeout=0.2)
    assert await barrier.waiting() == 0
    assert list(await asyncio.gather(barrier.wait(), barrier.wait())) == [1, 1]


async def test_all_go_by_one_number(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    first = asyncio.create_task(barrier.wait())
    await waiting(barrier, 1)
    with pytest.raises(FailedPrecondition, match="for 2 parties, not 3") as caught:
        await Barrier(state, "a", 3).wait()
    assert caught.value.reason == "PARTIES_DIFFER"
    await barrier.wait()
    await first


async def test_a_party_that_died_is_not_counted(state: Client, agent: Callable[..., Agent]) -> None:
    barrier = Barrier(state, "a", 3)
    party = agent("barrier", "a", "2")
    first = asyncio.create_task(barrier.wait())
    await waiting(barrier, 2)
    party.kill()
    await waiting(barrier, 1)
    second = asyncio.create_task(barrier.wait())
    await waiting(barrier, 2)
    assert not first.done()
    assert not second.done()
    assert await barrier.wait() == 1
    assert list(await asyncio.gather(first, second)) == [1, 1]


async def test_a_party_that_was_away_comes_again(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    first = asyncio.create_task(barrier.wait())
    await waiting(barrier, 1)
    (place,) = await state.list("barriers/a/waiting/").all()
    await state.delete(prefix="barriers/a/waiting/")

    async def another() -> bool:
        found = await state.list("barriers/a/waiting/").all()
        return [entry.key for entry in found] not in ([], [place.key])

    await until(another)
    assert await barrier.wait() == 1
    assert await first == 1


async def test_what_a_restore_brings_back_waits_for_nothing(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    first = asyncio.create_task(barrier.wait())
    await waiting(barrier, 1)
    mark = await state.checkpoint("waiting")
    first.cancel()
    await asyncio.wait([first])
    await state.restore(mark)
    assert await barrier.waiting() == 0
    with pytest.raises(TimeoutError):
        await barrier.wait(timeout=0.2)


async def places(state: Client) -> set[str]:
    """The places of those that wait."""
    return {entry.key async for entry in state.list("barriers/a/waiting/") if entry.lease_id}


async def comes_again(state: Client, place: str) -> None:
    """Wait until the party that had the place has another one."""

    async def has() -> bool:
        return len(found := await places(state)) == 1 and place not in found

    await until(has)


async def test_a_restore_lets_nobody_pass(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    await asyncio.gather(barrier.wait(), barrier.wait())
    one = await state.checkpoint("one-round")
    await asyncio.gather(barrier.wait(), barrier.wait())
    two = await state.checkpoint("two-rounds")
    await state.restore(one)
    alone = asyncio.create_task(barrier.wait())
    await waiting(barrier, 1)
    (place,) = await places(state)
    await state.restore(two)
    await comes_again(state, place)
    assert not alone.done()
    assert await barrier.wait() == 3
    assert await alone == 3


async def test_a_party_whose_place_others_have_written_comes_again(state: Client) -> None:
    barrier = Barrier(state, "a", 3)
    party = asyncio.create_task(barrier.wait())
    await waiting(barrier, 1)
    (place,) = await places(state)
    await state.put(place, "foreign")
    await comes_again(state, place)
    others = [asyncio.create_task(barrier.wait()), asyncio.create_task(barrier.wait())]
    assert list(await asyncio.gather(party, *others)) == [1, 1, 1]
    assert await state.list("barriers/a/waiting/").all() == []


async def test_a_party_that_was_stopped_past_a_round_of_others_comes_again(
    state: Client, agent: Callable[..., Agent]
) -> None:
    barrier = Barrier(state, "a", 3)
    party = agent("barrier", "a", "2")
    await waiting(barrier, 1)
    (place,) = await places(state)
    party.stop()
    await waiting(barrier, 0)
    assert set(await asyncio.gather(*(barrier.wait() for _ in range(3)))) == {1}
    await state.compact()
    party.go_on()
    await comes_again(state, place)
    assert set(await asyncio.gather(barrier.wait(), barrier.wait())) == {2}


async def test_cancellation_leaves_nothing_wherever_it_comes(state: Client) -> None:
    barrier = Barrier(state, "a", 2)
    wait = 0
    while True:
        other = asyncio.create_task(_join_when_one_waits(barrier))
        cancelled = await cancelled_at(barrier.wait(), wait)
        if not cancelled:
            await other
            break
        if not other.done():
            assert await barrier.waiting() <= 1
        other.cancel()
        await asyncio.wait([other])
        assert await barrier.waiting() == 0
        wait += 1
    assert wait > 2


async def _join_when_one_waits(barrier: Barrier) -> None:
    await waiting(barrier, 1)
    await barrier.wait()
