"""One leader at a time, whom everybody can see."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from comity import Client, LeaseLost
from comity.recipes import Election, Leader
from tests.recipes.processes import Agent
from tests.waiting import until


class Observer:
    """Keeps what an election shows."""

    def __init__(self, state: Client) -> None:
        self.seen: list[Leader | None] = []
        self._task = asyncio.create_task(self._observe(state))

    async def _observe(self, state: Client) -> None:
        async for leader in Election(state, "a").observe():
            self.seen.append(leader)

    async def has(self, count: int) -> list[object]:
        await until(lambda: len(self.seen) >= count)
        assert len(self.seen) == count
        return self.values()

    def values(self) -> list[object]:
        return [leader and leader.value for leader in self.seen]

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_one_leads(state: Client) -> None:
    one, other = Election(state, "a"), Election(state, "a")
    assert await one.leader() is None
    fence = await one.campaign({"host": "one"})
    assert await other.leader() == Leader({"host": "one"}, fence)
    campaigning = asyncio.create_task(other.campaign(b"other"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(campaigning), 0.1)
    assert not campaigning.done()
    await state.put("x", 1, guard=one)
    await one.resign()
    later = await campaigning
    assert later > fence
    assert await one.leader() == Leader(b"other", later)
    await other.resign()
    assert await one.leader() is None


async def test_whoever_observes_sees_every_leader(state: Client) -> None:
    observer = Observer(state)
    assert await observer.has(1) == [None]
    for number in range(10):
        async with Election(state, "a").leading(number) as election:
            await election.proclaim(f"again {number}")
    expected = [None] + [value for number in range(10) for value in (number, f"again {number}", None)]
    assert await observer.has(len(expected)) == expected
    fences = [leader.fence for leader in observer.seen if leader is not None]
    assert fences == sorted(fences)
    await observer.end()


async def test_whoever_observes_sees_one_leader_follow_the_other(state: Client) -> None:
    one, other = Election(state, "a"), Election(state, "a")
    await one.campaign("one")
    following = asyncio.create_task(other.campaign("other"))
    observer = Observer(state)
    assert await observer.has(1) == ["one"]

    async def both() -> bool:
        return len([entry async for entry in state.list("elections/a/")]) == 2

    await until(both)
    await one.resign()
    await following
    assert await observer.has(2) == ["one", "other"]
    await observer.end()
    await other.resign()


async def test_a_proclamation_keeps_the_leadership(state: Client) -> None:
    async with Election(state, "a").leading("one") as election:
        fence = election.fence
        await election.proclaim("two")
        assert await election.leader() == Leader("two", fence)
        assert not await Election(state, "a").try_acquire()
    assert [lease async for lease in state.list_leases()] == []


async def test_a_restore_of_the_leaders_key_ends_its_leadership(state: Client) -> None:
    one, other = Election(state, "a"), Election(state, "a")
    await one.campaign("one")
    (place,) = await state.list("elections/a/").all()
    mark = await state.checkpoint("campaigned")
    following = asyncio.create_task(other.campaign("other", timeout=30))

    async def both() -> bool:
        return len(await state.list("elections/a/").all()) == 2

    await until(both)
    await one.proclaim("two")
    assert not following.done()
    await state.restore(mark, prefix=place.key)
    assert await following > place.lease_id
    assert await other.leader() == Leader("other", other.fence)
    with pytest.raises(LeaseLost):
        await one.proclaim("three")
    await other.resign()


async def test_whoever_observes_sees_a_namespace_made_anew(state: Client) -> None:
    fork = state.with_options(namespace=f"{state.namespace}-fork")
    observer = Observer(fork)
    await Election(fork, "a").campaign("of none")
    async with Election(state, "a").leading("of the parent"):
        await until(lambda: observer.values()[-1:] == ["of none"])
        await fork.delete_namespace()
        await state.fork(fork.namespace)
        await until(lambda: observer.values()[-1] is None)
        async with Election(fork, "a").leading("of the fork"):
            await until(lambda: observer.values()[-1] == "of the fork")
    await fork.delete_namespace()
    assert "of the parent" not in observer.values()
    await observer.end()


async def test_only_a_leader_proclaims(state: Client) -> None:
    election = Election(state, "a")
    with pytest.raises(RuntimeError, match="election 'a' is not held"):
        await election.proclaim("x")
    await election.campaign("one")
    await state.delete(prefix="elections/")
    with pytest.raises(LeaseLost):
        await election.proclaim("two")
    assert await election.leader() is None


async def test_the_block_is_cancelled_when_it_is_lost(state: Client) -> None:
    async def lead() -> None:
        async with Election(state, "a").leading("one") as election:
            await state.revoke_lease(election.lease.id)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await lead()


async def test_the_error_of_a_block_is_its_own(state: Client) -> None:
    async def lead() -> None:
        async with Election(state, "a").leading("one"):
            raise KeyError

    with pytest.raises(KeyError):
        await lead()
    assert await Election(state, "a").leader() is None


async def test_a_killed_leader_is_followed_soon_after_its_ttl(state: Client, agent: Callable[..., Agent]) -> None:
    leader = agent("lead", "a", "2")
    (_, fence) = await leader.says()
    election = Election(state, "a")
    assert await election.leader() == Leader("agent", int(fence))
    leader.kill()
    assert await election.campaign("next", timeout=30) > int(fence)
    await election.resign()


async def test_a_leader_that_was_stopped_cannot_write(state: Client, agent: Callable[..., Agent]) -> None:
    leader = agent("lead", "a", "2")
    await leader.says()
    leader.stop()
    async with Election(state, "a").leading("next"):
        leader.tell("write x")
        leader.go_on()
        assert await leader.says() == ["refused", "lost"]
    assert await state.get("x") is None
