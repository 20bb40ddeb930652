"""What a store in a file holds, it holds after the next start: every kind of thing, field by field."""

import gc
import re
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comity_server.errors import Compacted, NamespaceNotFound, NotAFork, RequestIdForgotten, RequestIdReused, StateError
from comity_server.limits import Limits, Retention
from comity_server.model import (
    DeletePrefix,
    Increment,
    NamespaceInfo,
    Outcome,
    Put,
    Transaction,
)
from comity_server.stores.memory import collector
from comity_server.stores.sqlite.store import SqliteStore
from tests.contract.crowd import all_of, clear, crowd
from tests.contract.space import Space, plain
from tests.stores.everything import NAMES, WRITES, everything, live, request


class File:
    """A store, and the means to close it and open the file anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.store = SqliteStore(path, Limits())

    async def reopen(self) -> None:
        await self.store.close()
        self.store = SqliteStore(self._path, Limits())
        await self.store.open()

    def space(self, name: str) -> Space:
        return Space(self.store, name)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[File]:
    opened = File(tmp_path / "state.db")
    await opened.store.open()
    yield opened
    await opened.store.close()


async def test_everything_is_there_field_by_field(file: File) -> None:
    await live(file)
    before, epoch = await everything(file), file.store.epoch
    for _ in range(2):
        await file.reopen()
        after = await everything(file)
        assert after.keys() == before.keys()
        for what, held in before.items():
            assert after[what] == held, what
        assert file.store.epoch == epoch


async def test_what_is_done_after_a_start_is_as_if_there_had_been_none(file: File, tmp_path: Path) -> None:
    """The same again in a store that is never closed, and the two hold the same."""
    other = File(tmp_path / "other.db")
    await other.store.open()
    try:
        for one in (file, other):
            await live(one)
        await file.reopen()
        for one in (file, other):
            space, inner = one.space("plain"), one.space("inner")
            await space.drop("early")
            await space.apply(Put("large", b""), Increment("n", 1), DeletePrefix("k"))
            await space.restore(8)
            await space.compact(9)
            await inner.apply(Put("a", b"1"), DeletePrefix("d"))
            await inner.fork(".more", 4)
            await one.space("gone").put("a")
            await one.space("empty").put("a")
            for name in NAMES[:3]:
                if (await one.space(name).position()).revision and name != "fork":
                    await one.space(name).compact()
        await file.reopen()
        here, there = await everything(file), await everything(other)
        for what, held in there.items():
            if isinstance(held, NamespaceInfo):
                assert here[what]._replace(create_time=0, update_time=0, epoch="") == held._replace(
                    create_time=0, update_time=0, epoch=""
                )
            elif what.endswith(": leases"):
                assert [(one[1:3], keys) for one, keys in here[what]] == [(one[1:3], keys) for one, keys in held]
            elif not what.endswith((": position", ": checkpoints", "namespaces")):  # which have times and epochs
                assert untimed(here[what]) == untimed(held), what
    finally:
        await other.store.close()


def untimed(held: object) -> object:
    """Without the times of entries and of commits, of which ids of leases are some."""
    if isinstance(held, dict):
        return {key: untimed(part) for key, part in held.items()}
    if isinstance(held, list):
        return [untimed(part) for part in held]
    if isinstance(held, tuple):
        if held and held[0] == "Commit":
            held = (*held[:2], 0, *held[3:])
        elif len(held) == 8 and isinstance(held[1], bytes):
            held = (*held[:-2], bool(held[-2]), 0)
        return tuple(untimed(part) for part in held)
    if isinstance(held, str):
        return re.sub(r"^grant lease \d+$", "grant lease", held)
    return held


async def test_forks_share_what_they_did_and_keep_it_from_being_forgotten(file: File) -> None:
    await live(file)
    await file.reopen()
    inner = file.space("inner")
    assert await inner.contents() == {"c": b"inner", "d": b"d", "e": b"e", "f": b"f"}
    info = await inner.info()
    assert (info.parent, info.fork_revision, info.key_count) == ("fork", 4, 4)
    await inner.put("b", b"back")
    assert (await inner.entry("b"))[3:5] == (1, 7)
    assert (await inner.entry("f"))[3:6] == (1, 1, 1)
    assert (await inner.entry("f"))[6] not in (0, *await inner.leases()), "of what it was forked from"
    for space in (file.space("parent"), file.space("plain")):
        with pytest.raises((NamespaceNotFound, NotAFork)):
            await space.merge(inner)
    await file.reopen()
    assert (await file.space("inner").contents())["b"] == b"back"
    await file.store.delete_namespace("inner")
    await file.reopen()
    assert [info.name for info in await file.store.namespaces("", limit=10)] == ["again", "empty", "parent", "plain"]


async def test_request_ids_replay_every_kind_of_outcome(file: File) -> None:
    sent = [write(request(sequence)) for sequence, write in enumerate(WRITES, 1)]
    first = [await file.space(where).commit(write) for where, write in sent]
    before = [await file.space(name).position() for name in ("r", "r.fork")]
    for _ in range(2):
        await file.reopen()
        for (where, write), outcome in zip(sent, first, strict=True):
            assert plain(await file.space(where).commit(write)) == plain(outcome), write
    assert [await file.space(name).position() for name in ("r", "r.fork")] == before
    with pytest.raises(RequestIdReused):
        await file.space("r").commit(Transaction(then=[Put("a", b"other")], request_id=request(1)))


async def test_what_a_client_awaits_is_remembered(file: File) -> None:
    space = file.space("r")
    for sequence in range(1, 6):
        await space.commit(Transaction(then=[Increment("n", 1)], request_id=request(sequence, awaited=sequence - 2)))
    await space.commit(Transaction(then=[Increment("n", 1)], request_id=request(9, client="other")))
    await file.reopen()
    space = file.space("r")
    for sequence in (1, 2):
        with pytest.raises(RequestIdForgotten) as refused:
            await space.commit(Transaction(then=[Increment("n", 1)], request_id=request(sequence)))
        assert refused.value.metadata == {"sequence": str(sequence), "awaited": "3"}
    for sequence in (3, 4, 5):
        outcome = await space.commit(Transaction(then=[Increment("n", 1)], request_id=request(sequence)))
        assert outcome.revision == sequence
    assert (
        await space.commit(Transaction(then=[Increment("n", 1)], request_id=request(8, client="other")))
    ).revision == 7


async def test_request_ids_of_a_deleted_namespace_are_remembered(file: File) -> None:
    space = file.space("r")
    write = Transaction(then=[Increment("n", 1)], request_id=request(1))
    await space.commit(write)
    await space.store.delete_namespace("r")
    await file.reopen()
    repeated = (await file.space("r").group(write))[0]
    assert isinstance(repeated, StateError) or repeated.revision == 1
    assert await file.space("r").keys() == []
    assert await file.space("r").revision() == 2
    assert await file.space("r").put("a") == 3
    await file.reopen()
    repeated = (await file.space("r").group(write))[0]
    assert isinstance(repeated, StateError) or repeated.revision == 1
    assert await file.space("r").keys() == ["a"]


async def test_what_was_compacted_stays_so_and_what_checkpoints_held_is_let_go_of(file: File) -> None:
    space = file.space("r")
    for turn in range(5):
        await space.apply(Put("a", bytes(1000)), Put(f"k{turn}", bytes(100)))
    await space.checkpoint("two", 2)
    await space.delete_prefix("k")
    size = await space.settled()
    await file.reopen()
    space = file.space("r")
    assert await space.history_bytes() == size
    assert await space.settled() == size
    await space.drop("two")
    await file.reopen()
    space = file.space("r")
    assert await space.settled() == 0
    with pytest.raises(Compacted):
        await space.entries(revision=2)
    await file.reopen()
    assert await file.space("r").history_bytes() == 0


async def test_retention_does_not_pay_for_what_checkpoints_hold_after_a_start(file: File) -> None:
    space = file.space("r")
    await space.put("a", bytes(50_000))
    await space.checkpoint("one")
    await space.put("a", b"")
    await space.compact()
    for _ in range(10):
        await space.put("b", bytes(100))
    keep = Retention(commits=10**9, age=1e9, history_bytes=20_000)
    assert await file.store.retain("r", keep) == 2
    await file.reopen()
    assert await file.store.retain("r", keep) == 2
    assert len(await file.space("r").log()) == 10


async def test_revisions_go_on_after_every_start(file: File) -> None:
    for turn in range(1, 6):
        outcome = (await file.space("r").group(Transaction(then=[Put("a", b"%d" % turn)])))[0]
        assert isinstance(outcome, Outcome)
        assert outcome.revision == turn
        await file.reopen()
    log = await file.space("r").log()
    assert [commit.revision for commit in log] == [1, 2, 3, 4, 5]
    times = [commit.time for commit in log]
    assert times == sorted(times)
    previous = [commit.events[0].previous for commit in log]
    assert previous == [None, *(commit.events[0].entry for commit in log[:-1])]


async def test_what_was_done_at_once_is_there_as_it_was(file: File) -> None:
    for turn in range(3):
        await crowd([file.space(name) for name in "abcdef"], tasks=8, steps=30, seed=10 + turn)
        names = [info.name for info in await file.store.namespaces("", limit=10)]
        before = {name: await all_of(file.space(name)) for name in names}
        await file.reopen()
        assert [info.name for info in await file.store.namespaces("", limit=10)] == names
        for name in names:
            after = await all_of(file.space(name))
            for what, was in before[name].items():
                assert after[what] == was, (name, what)
    for info in await clear([file.space(name) for name in "abcdef"]):
        assert info.history_size_bytes == 0


async def test_what_was_loaded_goes_with_the_store(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_MUCH", 0)
    await live(file)
    await file.reopen()
    loaded = [weakref.ref(state.checkpoints) for state in file.store.namespaces_by_name.values()]
    await file.reopen()
    gc.collect()
    assert gc.get_freeze_count()
    assert loaded
    assert not any(one() for one in loaded)
