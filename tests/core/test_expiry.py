"""Ends leases that have run out, whatever else there is and whatever fails."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from comity_server import expiry
from comity_server.committer import Committer
from comity_server.errors import StateError, StoreUnavailable
from comity_server.expiry import Expiry
from comity_server.limits import Limits
from comity_server.model import Outcome, Write
from comity_server.stores.memory import store as store_module
from comity_server.stores.memory.store import MemoryStore
from comity_server.telemetry.tally import Tally
from tests.contract.space import HOUR, SECOND, Space
from tests.stores.sharing import before
from tests.waiting import until

BRIEF = SECOND // 20


class Failing(MemoryStore):
    """Fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.failures: list[Exception] = []
        self.groups: list[int] = []
        self.refuses = 0

    async def due(self) -> Mapping[str, Sequence[int]]:
        if self.failures:
            raise self.failures.pop()
        return await super().due()

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        self.groups.append(len(group))
        if self.refuses:
            self.refuses -= 1
            return [StoreUnavailable("try later")] * len(group)
        return await super().commit(namespace, group)


@asynccontextmanager
async def expiring(store: Failing) -> AsyncIterator[None]:
    committer = Committer(store, Tally())
    task = asyncio.create_task(Expiry(store, committer, Tally()).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await committer.drain()


async def gone(space: Space) -> bool:
    return not await space.leases()


async def test_what_has_run_out_ends_and_nothing_else_does() -> None:
    store = Failing()
    space, other = Space(store, "n"), Space(store, "other")
    kept = await space.grant()
    await space.put_for(BRIEF, "a")
    await other.put_for(BRIEF, "a")
    async with expiring(store):
        await until(lambda: gone(other))
        await until(lambda: is_only(space, kept.id))


async def is_only(space: Space, id: int) -> bool:
    return await space.leases() == {id: 0}


async def test_leases_with_many_keys_do_not_have_others_wait_for_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "_DUE_AGAIN", HOUR)
    store = Failing()
    space = Space(store, "n")
    for number in range(20):
        await space.put_for(BRIEF, f"{number}/a", f"{number}/b")
    await until(lambda: all_out(space))
    async with expiring(store):
        await until(lambda: gone(space))
    assert [len(commit.events) for commit in (await space.log())[20:]] == [2] * 20


async def all_out(space: Space) -> bool:
    return not any(info.remaining for info in await space.store.leases(space.name, limit=100))


class Slow(Failing):
    """Tells a few leases at a time. From its first answer on, who waits a while to ask again waits for ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch = patch
        self._kept: dict[str, list[int]] = {}
        self.told: list[int] = []

    async def due(self) -> Mapping[str, Sequence[int]]:
        self._patch.setattr(expiry, "INTERVAL", HOUR)
        for name, ids in (await super().due()).items():
            self._kept.setdefault(name, []).extend(ids)
        some = {name: ids[:5] for name, ids in self._kept.items() if ids}
        for ids in self._kept.values():
            del ids[:5]
        self.told.append(sum(map(len, some.values())))
        return some


async def test_where_there_is_a_lot_the_next_look_waits_only_for_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expiry, "LOT", 5)
    store = Slow(monkeypatch)
    spaces = [Space(store, f"n{number}") for number in range(4)]
    for space in spaces:
        for number in range(20):
            await space.put_for(BRIEF, f"{number}")
    for space in spaces:
        await until(lambda space=space: all_out(space))  # type: ignore[misc]
    async with expiring(store):
        for space in spaces:
            await until(lambda space=space: gone(space))  # type: ignore[misc]
    assert store.told[:4] == [20] * 4


async def test_where_a_lot_is_told_that_could_not_be_ended_there_is_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LOT", 5)
    monkeypatch.setattr(store_module, "_DUE_AGAIN", 1)
    store = Failing()
    space = Space(store, "n")
    for number in range(5):
        await space.put_for(BRIEF, f"{number}")
    await until(lambda: all_out(space))
    store.refuses = 3
    hurries: list[bool] = []

    async def note(_: Expiry, goes_on: bool) -> None:
        hurries.append(goes_on)

    before(monkeypatch, Expiry, "_pause", note)
    async with expiring(store):
        await until(lambda: gone(space))
    assert hurries[:4] == [False, True, False, False]


@pytest.mark.parametrize("failure", [StoreUnavailable("try later"), RuntimeError("unforeseen")])
async def test_a_look_that_fails_is_repeated(failure: Exception) -> None:
    store = Failing()
    space = Space(store, "n")
    await space.put_for(BRIEF, "a")
    store.failures = [failure] * 2
    async with expiring(store):
        await until(lambda: gone(space))


async def test_an_end_that_fails_is_repeated() -> None:
    store = Failing()
    space = Space(store, "n")
    await space.put_for(BRIEF, "a")
    store.refuses = 2
    async with expiring(store):
        await until(lambda: gone(space))
    assert store.refuses == 0


async def test_many_leases_end_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that others of their namespace have their turn in between."""
    monkeypatch.setattr(expiry, "TOGETHER", 2)
    monkeypatch.setattr(store_module, "_DUE_AGAIN", HOUR)
    store = Failing()
    space = Space(store, "n")
    for number in range(5):
        await space.put_for(BRIEF, f"{number}")
    await until(lambda: all_out(space))
    store.groups.clear()
    async with expiring(store):
        await until(lambda: gone(space))
    assert store.groups == [2, 2, 1]
