"""Namespaces that are copied to another store: all of them is there, and a copy that was cut off anywhere goes on."""

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comity_server.errors import Conflict, NotAFork, RequestIdForgotten, StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import (
    Commit,
    Delete,
    Fork,
    Increment,
    MakeCheckpoint,
    NamespaceInfo,
    Position,
    Put,
    RequestId,
    Strategy,
    Transaction,
)
from comity_server.record import MOD_REVISION
from comity_server.stores.copy import ends
from comity_server.stores.copy.comparing import compare
from comity_server.stores.copy.copying import Choice, Copy, NoNamespace, Result
from comity_server.stores.copy.planning import Plan
from comity_server.stores.copy.run import SameStore, copy, ignore
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.redis import holds
from comity_server.stores.redis.arrivals import FILL
from comity_server.stores.redis.client import Client
from comity_server.stores.sqlite.check import check
from comity_server.stores.sqlite.writer import Writer
from comity_server.stores.transfer import NoStore, Reader
from comity_server.stores.url import open_store, sqlite_path
from tests.contract.crowd import all_of, clear, crowd
from tests.contract.space import Space, plain
from tests.redis_servers import RedisCluster, RedisServer, Replicated
from tests.servers import environment
from tests.stores.everything import WRITES, everything, live, request
from tests.waiting import until

KINDS = ("sqlite", "redis")
PAIRS = list(itertools.product(KINDS, KINDS))
AGAIN = Choice()


class Opened:
    """A store that is open."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = open_store(url, Limits())

    def space(self, name: str) -> Space:
        return Space(self.store, name)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    one = Opened(url)
    await one.store.open()
    try:
        yield one
    finally:
        await one.store.close()


class Urls:
    """Stores that nobody has used yet."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._folder = folder
        self._redis = redis

    def new(self, kind: str) -> str:
        name = uuid.uuid4().hex
        return f"sqlite:{self._folder / name}.db" if kind == "sqlite" else f"{self._redis.url}?prefix=t-{name}"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One that waits for no disk: what that is for others test."""
    with RedisServer("--appendonly", "no") as running:
        yield running


@pytest.fixture
def urls(tmp_path: Path, redis_server: RedisServer) -> Urls:
    return Urls(tmp_path, redis_server)


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, urls: Urls) -> tuple[str, str]:
    """The URLs of a source and of a target, of each kind."""
    one, other = request.param
    return urls.new(one), urls.new(other)


async def copied(source: str, target: str, choice: Choice = AGAIN, **options: Any) -> dict[str, Result]:
    return {result.namespace: result for result in await copy(ends.reader(source), target, choice, **options)}


async def made_equal(source: str, target: str, **options: Any) -> dict[str, str]:
    """Copy all. Returns how it ended for each."""
    results = await copied(source, target, **options)
    assert all(result.is_equal for result in results.values()), results
    return {name: result.ending for name, result in results.items()}


def placeless(held: dict[str, Any]) -> dict[str, Any]:
    """What was read of a store, but for what is its own: the epoch, and how far compaction has got."""
    return {what: _placeless(part) for what, part in held.items()}


def _placeless(part: Any) -> Any:
    match part:
        case NamespaceInfo():
            return part._replace(epoch="", history_size_bytes=0)
        case Position():
            return part._replace(epoch="")
        case list():
            return [_placeless(one) for one in part]
    return part


async def family(space: Space) -> None:
    """Forks at revisions below the floor of what they were forked from, of which some are deleted."""
    for turn in range(4):
        await space.apply(Put("a", b"%d" % turn), Put(f"k{turn}", b"x" * 300), Put("big", bytes(400_000)))
    await space.checkpoint("two", 2)
    one, two, gone, inner = (space.sibling(name) for name in ("one", "two", "gone", "inner"))
    await one.commit(Fork(parent=space.name, ref=1, author="fay"))
    await two.commit(Fork(parent=space.name, ref=2))
    await gone.commit(Fork(parent=space.name, ref=3))
    await gone.apply(Put("g", b"1"), Delete("k1"))
    await inner.commit(Fork(parent=gone.name))
    await inner.sibling("more").commit(Fork(parent=gone.name, ref=(await gone.revision()) - 1))
    await gone.compact()
    await inner.apply(Put("i", b"1"))
    await space.store.delete_namespace(gone.name)
    await one.apply(Put("a", b"one"), request_id=RequestId("ann", 1))
    await space.compact()
    await space.apply(Put("a", b"newest"), request_id=RequestId("ann", 2))


@pytest.mark.parametrize("seed", range(2))
async def test_everything_is_there_field_by_field(pair: tuple[str, str], seed: int) -> None:
    source, target = pair
    async with opened(source) as one:
        await live(one)
        for number, write in enumerate(WRITES, 1):
            where, sent = write(request(number))
            await one.space(where).commit(sent)
        await family(one.space("family"))
        await crowd([one.space(name) for name in "uvwxyz"], tasks=6, steps=20, seed=seed)
    assert "copied" in (await made_equal(source, target)).values()
    async with opened(source) as one, opened(target) as other:
        before, after = placeless(await everything(one)), placeless(await everything(other))
        assert after.keys() == before.keys()
        for what, held in before.items():
            assert after[what] == held, what
        for info in await one.store.namespaces("", limit=100):
            there, here = await all_of(one.space(info.name)), await all_of(other.space(info.name))
            for what, was in there.items():
                assert _placeless(here[what]) == _placeless(was), (info.name, what)
    assert set((await made_equal(source, target)).values()) <= {"there", "counted"}


async def test_what_is_done_after_a_copy_is_as_if_there_had_been_none(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await live(one)
        await family(one.space("family"))
    await made_equal(source, target)
    held = []
    for url in pair:
        async with opened(url) as one:
            space, plainly, inner = one.space("family"), one.space("plain"), one.space("inner")
            await space.merge(space.sibling("one"), Strategy.THEIRS)
            await space.merge(space.sibling("two"), Strategy.OURS)
            with pytest.raises(NotAFork):
                await space.merge(space.sibling("inner"))
            await space.sibling("inner").restore(5)
            await plainly.drop("early")
            await plainly.apply(Put("large", b""), Increment("n", 1))
            await plainly.restore(8)
            await inner.fork(".more", 4)
            await one.space("gone").put("a")
            await one.store.delete_namespace("family")
            await space.put("a", b"again")
            spaces = [one.space(info.name) for info in await one.store.namespaces("", limit=100)]
            entries = {each.name: timeless(await each.entries()) for each in spaces}
            figures = {each.name: (await each.info())[1:5] for each in spaces}
            logs = {each.name: timeless(await each.log()) for each in spaces}
            assert all(info.history_size_bytes == 0 for info in await clear(spaces))
        held.append((entries, figures, logs))
    assert held[1] == held[0]


def timeless(thing: object) -> object:
    return plain(thing, times=False)


async def test_forks_stay_forks_of_what_may_be_deleted(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        infos = {info.name: (info.parent, info.fork_revision) for info in await other.store.namespaces("", limit=100)}
        assert infos == {
            "f": ("", 0),
            "f.one": ("f", 1),
            "f.two": ("f", 2),
            "f.inner": ("f.gone", 5),
            "f.inner.more": ("f.gone", 4),
        }
        await other.store.delete_namespace("f")
        assert (await other.space("f.one").contents())["a"] == b"one"
        assert (await other.space("f.inner").contents())["a"] == b"2"


async def test_a_namespace_begins_anew_above_its_old_revisions(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        for turn in range(5):
            await one.space("once").apply(Put("a", b""), request_id=RequestId("ann", turn))
            await one.space("more").put("a")
        await one.store.delete_namespace("once")
        await one.store.delete_namespace("more")
        for _ in range(9):
            await other.space("more").put("a")
        await other.store.delete_namespace("more")
    assert await made_equal(source, target) == {"once": "counted", "more": "counted"}
    async with opened(target) as other:
        assert [(await other.space(name).position())[:2] for name in ("once", "more")] == [(6, 6), (10, 10)]
        repeated = await other.space("once").apply(Put("a", b""), request_id=RequestId("ann", 4))
        assert (repeated.revision, await other.space("once").keys()) == (5, [])
        assert await other.space("once").put("a") == 7


async def test_a_repeat_after_the_move_is_not_applied_again(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        sent = [write(request(number)) for number, write in enumerate(WRITES, 1)]
        first = [await one.space(where).commit(write) for where, write in sent]
        await one.space("r").apply(Put("w", b""), request_id=RequestId("ann", 7, 6))
        before = [(await one.space(name).position()).revision for name in ("r", "r.fork")]
        await one.space("r").compact()
    await made_equal(source, target)
    async with opened(target) as other:
        for (where, write), outcome in zip(sent, first, strict=True):
            assert plain(await other.space(where).commit(write)) == plain(outcome), write
        with pytest.raises(RequestIdForgotten):
            await other.space("r").apply(Put("w", b""), request_id=RequestId("ann", 5))
        assert [(await other.space(name).position()).revision for name in ("r", "r.fork")] == before


async def test_what_clients_do_not_await_is_refused_at_the_target_too(pair: tuple[str, str]) -> None:
    """Of a client that never says what it awaits the lowest go, where there are too many."""
    source, target = pair
    few = open_store(source, Limits(request_outcomes=5))
    await few.open()
    for sequence in range(1, 31):
        await Space(few, "r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
    await few.close()
    await made_equal(source, target)
    few = open_store(source, Limits(request_outcomes=5))
    await few.open()
    for sequence in range(31, 61):
        await Space(few, "r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
    await few.close()
    assert await made_equal(source, target) == {"r": "continued"}
    async with opened(target) as other:
        for sequence in range(1, 61):
            try:
                again = await other.space("r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
            except RequestIdForgotten:
                assert sequence < 56
            else:
                assert again.revision == sequence
        assert await other.space("r").revision() == 60


async def test_a_watch_that_goes_on_at_the_target_is_told(pair: tuple[str, str]) -> None:
    """The source may go on, and give out the same revisions for something else."""
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        await one.space("r").put("a")
        await other.space("other").put("a")
        epochs = {(await each.space("r").position()).epoch for each in (one, other)}
    await made_equal(source, target)
    async with opened(target) as other:
        epoch = (await other.space("r").position()).epoch
        assert epoch not in epochs
    async with opened(source) as one:
        await one.space("r").put("a")
    assert await made_equal(source, target) == {"r": "continued"}
    async with opened(target) as other:  # a history that goes on as it did is the same
        assert (await other.space("r").position()).epoch == epoch


# A second copy


async def test_a_second_copy_brings_what_has_come_since(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        await one.space("same").put("a")
    await made_equal(source, target)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(3):
            await space.apply(
                Put("a", b"%d" % turn),
                Put("since", b""),
                Put("big", bytes(1_200_000)),
                request_id=RequestId("ann", 3 + turn),
            )
            await space.delete("since")
        await space.checkpoint("since")
        await space.commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 1)))
        await space.drop("named")
        await space.commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 2)))
        await space.sibling("new").commit(Fork(parent="f", ref="since"))
        await space.sibling("old").commit(Fork(parent="f", ref=2))
        await space.sibling("held").commit(Fork(parent="f", ref=4))
        await space.sibling("inner").put("i", b"2")
        await space.sibling("late").put("a")
        await space.compact(5)
    assert await made_equal(source, target) == {
        "f": "continued",
        "f.gone": "counted",
        "f.held": "copied",
        "f.inner": "continued",
        "f.inner.more": "there",
        "f.late": "copied",
        "f.new": "copied",
        "f.old": "copied",
        "f.one": "there",
        "f.two": "there",
        "same": "there",
    }
    assert set((await made_equal(source, target)).values()) == {"there", "counted"}
    async with opened(source) as one, opened(target) as other:
        for info in await one.store.namespaces("", limit=100):
            there, here = await all_of(one.space(info.name)), await all_of(other.space(info.name))
            for what, was in there.items():
                assert _placeless(here[what]) == _placeless(was), (info.name, what)
        again = await other.space("f").commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 2)))
        assert again.results
        await other.space("f").merge(other.space("f.new"))
        await other.space("f").merge(other.space("f.old"), Strategy.OURS)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_source_that_changes_meanwhile_is_told_and_copied_again(urls: Urls, kind: str) -> None:
    source, target = urls.new("redis"), urls.new(kind)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened(source))
        for name in ("a", "b", "c", "d"):
            await one.space(name).put("k")
        reader = await stack.enter_async_context(reading(source))
        copying = Copy(reader, Choice(), overwrite=False)
        await copying.choose()
        await one.store.delete_namespace("d")
        async with ends_open(target) as there:
            await copying.write(there, there.arrivals(), ignore)
        await one.space("b").put("k", b"changed")
        await one.space("new").put("k")
        await one.store.delete_namespace("c")
        async with ends_open(target) as there:
            await copying.verify(there)
        endings = {result.namespace: result.ending for result in copying.results}
        assert endings == {"a": "copied", "b": "changed", "c": "changed", "d": "counted", "new": "changed"}
        results = await copied(source, target)
        endings = {name: result.ending for name, result in results.items()}
        # What was copied before it was deleted is not taken away unasked.
        assert endings == {"a": "there", "b": "continued", "c": "conflict", "d": "counted", "new": "copied"}
        assert (await made_equal(source, target, overwrite=True))["c"] == "replaced"


@asynccontextmanager
async def ends_open(url: str) -> AsyncIterator[ends.Target]:
    store = ends.store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_others_at_the_target_are_left_alone(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        for name in ("other", "ahead", "compacted", "marked", "gone", "changed", "fine"):
            await one.space(name).apply(Put("a", b"1"))
            await one.space(name).apply(Put("a", b"2"))
        await other.space("own").put("a")
        await other.space("other").put("a")
        await one.store.delete_namespace("gone")
        await other.space("gone").put("a")
    names = Choice(["ahead", "compacted", "marked", "changed"])
    assert {result.ending for result in (await copied(source, target, names)).values()} == {"copied"}
    async with opened(source) as one, opened(target) as other:
        await other.space("ahead").put("a")
        await other.space("compacted").compact()
        await other.space("marked").checkpoint("own")
        await one.space("changed").put("a", b"at the source")
        await other.space("changed").put("a", b"at the target")
        before = {info.name: await all_of(other.space(info.name)) for info in await other.store.namespaces("", limit=9)}
    results = await copied(source, target)
    assert results["fine"].ending == "copied"
    others = {name: result.reason for name, result in results.items() if not result.is_equal}
    assert {results[name].ending for name in others} == {"conflict"}
    assert others == {
        "ahead": "it is at revision 3, and the source at 2",
        "changed": "'a' differs at revision 3",
        "compacted": "it was compacted up to revision 2, and at the source up to 0",
        "gone": "it is deleted at the source, and is there",
        "marked": "it has the checkpoint own, and the source has none of that name",
        "other": "another namespace has this name",
    }
    async with opened(target) as other:
        for name, held in before.items():
            after = await all_of(other.space(name))
            assert {what: _placeless(part) for what, part in after.items()} == {
                what: _placeless(part) for what, part in held.items()
            }
        epoch = (await other.space("ahead").position()).epoch
    endings = await made_equal(source, target, overwrite=True)
    assert endings == dict.fromkeys(others, "replaced") | {"fine": "there"}
    async with opened(target) as other:
        assert (await other.space("ahead").position()).epoch != epoch
        assert await other.space("own").keys() == ["a"]
        assert (await other.space("gone").position()).revision == 3
    assert set((await made_equal(source, target)).values()) == {"there", "counted"}


async def test_forks_of_what_is_replaced(pair: tuple[str, str]) -> None:
    """Those that come with it are forks of it; others share what was there."""
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        await other.space("f").put("a", b"own")
        await other.space("own").commit(Fork(parent="f"))
    results = await copied(source, target)
    assert {name for name, result in results.items() if not result.is_equal} == {"f"}
    endings = await made_equal(source, target, overwrite=True)
    assert {name for name, ending in endings.items() if ending == "replaced"} == {*results} - {"f.gone"}
    async with opened(target) as other:
        assert (await other.space("own").contents())["a"] == b"own"
        with pytest.raises(NotAFork):
            await other.space("f").merge(other.space("own"))
        await other.space("f").merge(other.space("f.one"), Strategy.THEIRS)
        assert (await other.space("f").contents())["a"] == b"one"


async def test_names_that_go_round_are_copied(pair: tuple[str, str]) -> None:
    """A fork has the name of what that was forked from which it is a fork of."""
    source, target = pair
    async with opened(source) as one:
        await one.space("a").put("k", b"old")
        await one.space("d").commit(Fork(parent="a"))
        await one.store.delete_namespace("a")
        await one.space("a").commit(Fork(parent="d"))
        await one.space("a").put("own")
    assert set((await made_equal(source, target)).values()) == {"copied"}
    async with opened(target) as other:
        assert await other.space("d").contents() == {"k": b"old"}
        assert await other.space("a").contents() == {"k": b"old", "own": b"v"}
        await other.space("d").merge(other.space("a"))


async def test_a_fork_of_a_deleted_fork_of_what_is_replaced_comes_anew(pair: tuple[str, str]) -> None:
    """So that what comes keeps what that shares, as the source does."""
    source, target = pair
    async with opened(source) as one:
        space = one.space("a")
        for number in range(3):
            await space.put("k", b"%d" % number)
        await space.checkpoint("mark")
        await one.space("d").commit(Fork(parent="a", ref=1))
        await one.space("b").commit(Fork(parent="d"))
        await one.store.delete_namespace("d")
        await space.compact()
    await made_equal(source, target)
    async with opened(source) as one:
        await one.space("a").drop("mark")
        expected = await one.space("a").contents(1)
    endings = await made_equal(source, target, overwrite=True)
    assert endings == {"a": "replaced", "b": "replaced", "d": "counted"}
    async with opened(target) as other:
        assert await other.space("a").contents(1) == expected == {"k": b"0"}
        assert await other.space("b").contents() == expected


async def test_a_fork_that_is_replaced_finds_what_it_shares(pair: tuple[str, str]) -> None:
    """Although nothing but the one in its place kept it."""
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        for name in ("f.one", "f.inner"):
            await other.space(name).put("own")
    endings = await made_equal(source, target, overwrite=True)
    assert {name for name, ending in endings.items() if ending == "replaced"} == {"f.one", "f.inner"}
    async with opened(target) as other:
        assert (await other.space("f.one").contents())["a"] == b"one"
        assert (await other.space("f.inner").contents())["g"] == b"1"
        assert await other.store.retain("f", Retention()) == 4
        assert (await other.space("f.one").get("k0")) is not None
        await other.space("f").merge(other.space("f.one"), Strategy.THEIRS)


async def test_a_fork_of_what_the_target_has_forgotten_waits_for_leave(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    results = await copied(source, target, Choice(["f.two"]))
    assert {name: result.ending for name, result in results.items()} == {"f": "copied", "f.two": "copied"}
    async with opened(target) as other:
        await other.space("f").compact()  # so that nothing keeps what only the other fork shares
    results = await copied(source, target)
    assert results["f.one"].reason == "what it shares with f, as of revision 1, is not there (any more)"
    assert (results["f.one"].ending, results["f.two"].ending) == ("conflict", "there")
    endings = await made_equal(source, target, overwrite=True)
    assert (endings["f"], endings["f.one"], endings["f.two"]) == ("replaced", "copied", "replaced")


# Interruptions


class Scissors:
    """Cuts off whatever is done to a store after so many steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.steps = 0
        for kind, name in ((Client, "once"), (Writer, "write")):
            monkeypatch.setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(of: Any, *arguments: Any) -> Any:
            self.steps += 1
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise StoreUnavailable("cut off")
            return await method(of, *arguments)

        return counted


async def is_harmless(source: str, target: str) -> None:
    """Nothing at the target is there in part, and a server that uses it then takes nothing away that a copy needs."""
    async with reading(source) as reader, opened(target) as other:
        has = await reader.load(await reader.names())
        assert isinstance(other.store, MemoryStore)
        for info in await other.store.namespaces("", limit=100):
            found = await compare(has.store, other.store, info.name)
            assert found.is_equal, (info.name, found)
        for info in await other.store.namespaces("", limit=100):
            for _ in range(2):
                await other.store.retain(info.name, Retention())


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Reader]:
    reader = ends.reader(url)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()


def leaves_nothing(url: str, redis_server: RedisServer, *, shared: int | None = None) -> None:
    """All that a store holds belongs to what is there; and if given, so many deleted namespaces are shared."""
    if url.startswith("sqlite:"):
        assert check(sqlite_path(url)).problems == []
        return
    prefix = url.partition("=")[2]
    with redis_server.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{prefix}:*")]
        keys = [key for key in keys if not key.endswith(":compactor")]
        keys = [key for key in keys if not key.endswith("}:coming")]  # which goes by itself, and matters to nobody
        assert not [key for key in keys if "}:incoming" in key]
        assert not [key for key in keys if client.ttl(key) != -1]
        assert shared is None or len([key for key in keys if ":meta:" in key]) == shared


@pytest.mark.timeout(600)
async def test_a_copy_that_was_cut_off_anywhere_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    source, kind = pair[0], "sqlite" if pair[1].startswith("sqlite:") else "redis"
    async with opened(source) as one:
        await family(one.space("f"))
        for turn in range(3):
            await one.space("other").put("a", b"%d" % turn)
        await one.store.delete_namespace("other")
    scissors = Scissors(monkeypatch)
    await made_equal(source, urls.new(kind))
    steps = scissors.steps
    cuts = sorted({step * steps // 20 for step in range(20)} | set(range(steps // 3, steps // 3 + 6)))
    for cut in cuts:
        target = urls.new(kind)
        scissors.left = cut
        with pytest.raises(StoreUnavailable, match="cut off"):
            await copied(source, target)
        scissors.left = None
        await is_harmless(source, target)
        assert await made_equal(source, target)
        leaves_nothing(target, redis_server, shared=1)


@pytest.mark.timeout(600)
async def test_a_second_copy_that_was_cut_off_anywhere_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    source, kind = pair[0], "sqlite" if pair[1].startswith("sqlite:") else "redis"
    targets = [urls.new(kind) for _ in range(15)]
    async with opened(source) as one:
        await family(one.space("f"))
    for target in targets:
        await made_equal(source, target)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(4):
            await space.apply(Put("a", b"%d" % turn), request_id=RequestId("ann", 3 + turn))
        await space.checkpoint("since")
        await space.sibling("new").commit(Fork(parent="f", ref="since"))
        await space.sibling("old").commit(Fork(parent="f", ref=2))
        await space.compact(5)
    scissors = Scissors(monkeypatch)
    await made_equal(source, targets.pop())
    steps = scissors.steps
    for number, target in enumerate(targets):
        scissors.left = number * steps // len(targets)
        with pytest.raises(StoreUnavailable, match="cut off"):
            await copied(source, target)
        scissors.left = None
        async with opened(target) as other:  # what is there of it is a part of the history, with its outcomes
            revision = await other.space("f").revision()
            assert len(await other.space("f").log()) == revision - (await other.space("f").position()).floor
            for sequence in range(3, 7):
                if revision >= sequence + 3:
                    again = await other.space("f").apply(
                        Put("a", b"%d" % (sequence - 3)), request_id=RequestId("ann", sequence)
                    )
                    assert again.revision == sequence + 3
            assert await other.space("f").revision() == revision
        assert await made_equal(source, target)
        leaves_nothing(target, redis_server, shared=1)


KILLED = """
import os, signal, sys
from comity_server.stores.redis.client import Client
from comity_server.stores.sqlite.writer import Writer

left = int(sys.argv.pop(1))


def counted(kind, name):
    method = getattr(kind, name)

    async def count(self, *arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return await method(self, *arguments)

    setattr(kind, name, count)


counted(Client, "once")
counted(Writer, "write")
from comity.cli import main

main()
"""


@pytest.mark.timeout(300)
async def test_a_copy_that_was_killed_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        await crowd([one.space(name) for name in "uvw"], tasks=6, steps=15, seed=1)
    scissors = Scissors(monkeypatch)
    await made_equal(source, urls.new("sqlite" if target.startswith("sqlite:") else "redis"))
    kills = 4
    for number in range(kills):
        left = (number + 1) * scissors.steps // (kills + 2)
        program = [sys.executable, "-c", KILLED, str(left), "copy", "--from", source, "--to", target]
        done = await asyncio.to_thread(
            subprocess.run, program, env=environment(), capture_output=True, check=False, timeout=60
        )
        if done.returncode != -signal.SIGKILL:  # what an earlier one had done was not to be done again
            assert done.returncode == 0, done
            break
        await is_harmless(source, target)
    assert await made_equal(source, target)
    leaves_nothing(target, redis_server)


async def test_redis_that_is_full_is_told_and_the_copy_goes_on(urls: Urls) -> None:
    source = urls.new("sqlite")
    async with opened(source) as one:
        for number in range(30):
            await one.space("large").apply(Put(f"k{number}", bytes(500_000)))
        await one.space("small").put("a")
    with RedisServer() as redis:
        with redis.client() as client:
            used = int(redis.says("memory", "used_memory"))  # type: ignore[call-overload]
            client.config_set("maxmemory", used + 8_000_000)
        with pytest.raises(StoreUnavailable, match="out of memory"):
            await copied(source, redis.url)
        async with opened(redis.url) as other:
            assert list(await other.store.namespaces("", limit=9)) == []
        with redis.client() as client:
            client.config_set("maxmemory", 0)
        assert set((await made_equal(source, redis.url)).values()) == {"copied"}


async def test_two_copies_at_once_do_not_mix(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that came first is told, and its namespace is whole by the other."""
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        await family(one.space("f"))
    async with reading(source) as reader:
        loaded = await reader.load(await reader.names())
        async with ends_open(target) as there, ends_open(target) as also:
            plans = []
            for store in (there, also):
                plan = Plan(loaded.store, store, overwrite=False)
                await plan.add("f")
                plans.append(plan)
            first = True

            def second(name: str, done: int, total: int) -> None:
                nonlocal first
                if first:
                    first = False
                    others.append(
                        asyncio.ensure_future(also.arrivals().bring(plans[1].arrivals, (), ignore, reader.remaining))
                    )

            others: list[asyncio.Future[None]] = []
            coming = there.arrivals().bring(plans[0].arrivals, (), second, reader.remaining)
            ended = [*await asyncio.gather(coming, return_exceptions=True)]
            ended += await asyncio.gather(*others, return_exceptions=True)
            failures = [failure for failure in ended if failure is not None]
            assert len(failures) == 1
            assert isinstance(failures[0], Conflict | StoreUnavailable)
        async with ends_open(target) as there:
            assert (await compare(loaded.store, there, "f")).is_equal


async def test_a_target_that_loses_a_piece_of_a_long_entry_is_told(
    urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replica that takes over without having it yet."""
    source, target = urls.new("redis"), urls.new("redis")
    async with opened(source) as one:
        await one.space("n").apply(*(Put(f"k{number}", bytes(900_000)) for number in range(3)))
    run, lost = Client.run, False

    async def lose_first(self: Client, script: Any, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        nonlocal lost
        answer = await run(self, script, names, arguments)
        if script is FILL and ":staged:" in names[1] and not lost:
            lost = True
            with redis_server.client() as client:
                client.delete(names[1])
        return answer

    monkeypatch.setattr(Client, "run", lose_first)
    with pytest.raises(StoreUnavailable, match="Redis has lost a part of it"):
        await copied(source, target)
    assert lost
    assert await made_equal(source, target) == {"n": "copied"}


# Servers that use the target meanwhile


class Heard:
    """A listener, and what it was told."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.resets = 0

    def publish(self, commits: Sequence[Commit]) -> None:
        self.commits += commits

    def reset(self) -> None:
        self.resets += 1
        self.commits = []


async def test_a_server_that_follows_the_target_hears_of_it(urls: Urls) -> None:
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        await family(one.space("f"))
        for turn in range(3):
            await one.space("plain").put("a", b"%d" % turn)
    async with opened(target) as other:
        heard = {name: Heard() for name in ("f", "f.one", "plain")}
        for name, listener in heard.items():
            await other.store.follow(name, listener)
            assert await other.space(name).keys() == []
        await made_equal(source, target)
        await until(lambda: all(listener.resets for listener in heard.values()))
        assert (await other.space("f").contents())["a"] == b"newest"
        assert (await other.space("f.one").contents())["a"] == b"one"
        async with opened(source) as one:
            for turn in range(3):
                await one.space("plain").apply(Put("a", b"more %d" % turn), request_id=RequestId("ann", turn))
        assert (await made_equal(source, target))["plain"] == "continued"
        await until(lambda: len(heard["plain"].commits) == 3)
        assert [commit.revision for commit in heard["plain"].commits] == [4, 5, 6]
        again = await other.space("plain").apply(Put("a", b"more 2"), request_id=RequestId("ann", 2))
        assert again.revision == await other.space("plain").revision() == 6
        for name in heard:
            await other.store.unfollow(name)


async def test_who_writes_to_the_target_meanwhile_is_not_overwritten(urls: Urls) -> None:
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        for turn in range(3):
            await one.space("a").put("a", b"%d" % turn)
            await one.space("b").put("a", b"%d" % turn)
    async with opened(target) as other:

        def write(name: str, done: int, total: int) -> None:
            writes.append(asyncio.ensure_future(other.space(name).put("own")))

        writes: list[asyncio.Future[int]] = []
        results = await copied(source, target, progress=write)
        await asyncio.gather(*writes, return_exceptions=True)
        for name in ("a", "b"):
            if results[name].ending == "conflict":
                assert "meanwhile" in results[name].reason
                assert await other.space(name).keys() == ["own"]
            else:  # it was there before
                assert results[name].ending == "unequal"
                assert await other.space(name).keys() == ["a", "own"]


# What is copied


@pytest.mark.parametrize("kind", KINDS)
async def test_what_compaction_has_not_seen_to_yet_is_copied_too(
    urls: Urls, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a namespace whose floor was raised, and nothing was dropped."""
    source, target = urls.new("redis"), urls.new(kind)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(9):
            author = Transaction(then=[Put("a", b"%d" % turn), Put(f"k{turn % 4}", b"")], author=f"author {turn}")
            await space.commit(author)
        await space.delete("k1")
        await space.sibling("fork").commit(Fork(parent="f", ref=3))
        with monkeypatch.context() as patch:
            patch.setattr(Namespace, "collect", lambda self: None)
            await space.compact(7)
            await made_equal(source, target)
        before = await all_of(space)
        said = await one.store.provenance("f", range(1, 11))
    async with opened(target) as other:
        after = await all_of(other.space("f"))
        for what, was in before.items():
            assert _placeless(after[what]) == _placeless(was), what
        await other.space("f").compact(7)
        found = await other.store.provenance("f", range(1, 11))
        written = {entry[MOD_REVISION] for entry in await other.space("f").entries(revision=7)}
        assert all(found[revision] == said[revision] for revision in written)
        assert (await other.space("f.fork").contents())["a"] == b"2"
        await clear([other.space("f.fork"), other.space("f")])
        assert await other.space("f").history_bytes() == 0


async def test_what_is_beyond_the_limits_is_copied(pair: tuple[str, str]) -> None:
    source, target = pair
    limits = Limits(fork_depth=80, value_bytes=1 << 24)
    store = open_store(source, limits)
    await store.open()
    await Space(store, "f0").put("a", bytes(3_000_000))
    for depth in range(1, 68):
        await Space(store, f"f{depth}").commit(Fork(parent=f"f{depth - 1}"))
        await Space(store, f"f{depth}").put("b", b"%d" % depth)
    await store.close()
    await made_equal(source, target)
    async with opened(target) as other:
        last = other.space("f67")
        assert await last.contents() == {"a": bytes(3_000_000), "b": b"67"}
        assert (await last.info()).parent == "f66"


async def test_namespaces_are_chosen(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        for name in ("team-a", "team-b", "other"):
            await one.space(name).put("a")
    assert set(await copied(source, target, Choice(["f.inner"]))) == {"f", "f.inner"}  # and what is between them
    assert set(await copied(source, target, Choice(["f.two"]))) == {"f", "f.two"}
    assert set(await copied(source, target, Choice(["other"], "team-"))) == {"other", "team-a", "team-b"}
    assert set(await copied(source, target, Choice(prefix="none"))) == set()
    with pytest.raises(NoNamespace, match="none"):
        await copied(source, target, Choice(["other", "none"]))
    async with opened(target) as other:
        names = [info.name for info in await other.store.namespaces("", limit=100)]
        assert names == ["f", "f.inner", "f.two", "other", "team-a", "team-b"]
    await made_equal(source, target, overwrite=True)


async def test_a_dry_run_does_nothing(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        for name in ("there", "behind", "other", "gone"):
            await one.space(name).put("a")
        await one.store.delete_namespace("gone")
    before = held(source, redis_server), held(target, redis_server)
    would = await copied(source, target, dry_run=True)
    assert {name: result.ending for name, result in would.items()} == {
        "there": "copied",
        "behind": "copied",
        "other": "copied",
        "gone": "counted",
    }
    assert (held(source, redis_server), held(target, redis_server)) == before
    await copied(source, target, Choice(["there", "behind"]))
    async with opened(source) as one, opened(target) as other:
        await one.space("behind").put("a")
        await other.space("other").put("a")
    before = held(source, redis_server), held(target, redis_server)
    for overwrite, ending in ((False, "conflict"), (True, "replaced")):
        would = await copied(source, target, dry_run=True, overwrite=overwrite)
        assert {name: result.ending for name, result in would.items()} == {
            "there": "there",
            "behind": "continued",
            "other": ending,
            "gone": "counted",
        }
    assert (held(source, redis_server), held(target, redis_server)) == before


async def test_the_source_is_left_as_it_is(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    await copied(source, target) if source.startswith("redis") else None  # one that nobody has used
    assert held(source, redis_server) is None
    async with opened(source) as one:
        await family(one.space("f"))
    before = held(source, redis_server)
    await made_equal(source, target)
    assert held(source, redis_server) == before


def held(url: str, redis_server: RedisServer) -> object:
    """All that a store is, byte by byte; None: nothing."""
    if url.startswith("sqlite:"):
        path = sqlite_path(url)
        return path.read_bytes() if path.exists() else None
    with redis_server.client() as client:
        keys = sorted(client.scan_iter(f"{url.partition('=')[2]}:*"))
        return [(key, client.dump(key)) for key in keys] or None


async def test_a_store_is_not_copied_to_itself(urls: Urls, tmp_path: Path) -> None:
    redis, file = urls.new("redis"), urls.new("sqlite")
    async with opened(redis) as one, opened(file) as other:
        await one.space("a").put("a")
        await other.space("a").put("a")
    link = tmp_path / "link.db"
    link.symlink_to(sqlite_path(file))
    for source, target in (
        (redis, redis),
        (redis, redis.replace("127.0.0.1", "localhost")),
        (file, file),
        (file, f"sqlite:{link}"),
    ):
        with pytest.raises(SameStore):
            await copied(source, target)
        with pytest.raises(SameStore):
            await copied(source, target, dry_run=True)


async def test_what_is_no_store_cannot_be_copied_from(urls: Urls, tmp_path: Path) -> None:
    target = urls.new("sqlite")
    with pytest.raises(NoStore, match="does not exist"):
        await copied(f"sqlite:{tmp_path / 'none.db'}", target)
    empty, text, other = (tmp_path / name for name in ("empty.db", "text.db", "other.db"))
    empty.touch()
    text.write_text("this is no database, but a text that is longer than a page of one would be" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path, reason in ((empty, "empty"), (text, "no database"), (other, "another program")):
        with pytest.raises(StoreUnavailable, match=reason):
            await copied(f"sqlite:{path}", target)
    used = urls.new("sqlite")
    async with opened(used) as one:
        await one.space("a").put("a")
        with pytest.raises(StoreUnavailable, match="a server uses it"):
            await copied(used, target)
        with pytest.raises(StoreUnavailable, match="in use"):
            await copied(urls.new("redis"), used)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await copied("redis://127.0.0.1:1", target)
    assert not sqlite_path(target).exists()


async def test_to_a_cluster_and_back(urls: Urls, redis_cluster: RedisCluster) -> None:
    source, back = urls.new("sqlite"), urls.new("sqlite")
    cluster = f"{redis_cluster.url}?prefix=t-{uuid.uuid4().hex}"
    async with opened(source) as one:
        await live(one)
        await family(one.space("f"))
    assert "copied" in (await made_equal(source, cluster)).values()
    assert "copied" in (await made_equal(cluster, back)).values()
    async with opened(source) as one, opened(back) as other:
        before, after = placeless(await everything(one)), placeless(await everything(other))
        for what, was in before.items():
            assert after[what] == was, what


async def test_replicas_are_waited_for(urls: Urls, replicated: Replicated) -> None:
    source, target = urls.new("sqlite"), f"{replicated.url}?prefix=t-{uuid.uuid4().hex}"
    async with opened(source) as one:
        await family(one.space("f"))
    with pytest.raises(StoreUnavailable, match="only 2 of 3 replicas"):
        await copied(source, target, wait_replicas=3)
    await made_equal(source, target, wait_replicas=2)


async def test_a_difference_at_the_target_is_found(pair: tuple[str, str], redis_server: RedisServer) -> None:
    """The comparison would be of no use if nothing failed it."""
    source, target = pair
    async with opened(source) as one:
        await one.space("f").commit(Transaction(then=[Put("a", b"1")], author="ann"))
        await one.space("f").checkpoint("first")
        await one.space("f").put("a", b"2")
        await one.space("f").apply(Put("a", b"3"), request_id=RequestId("ann", 1))
    await made_equal(source, target)
    for lie in ("a", "author", "checkpoint", "outcome"):
        async with reading(source) as reader:
            loaded = await reader.load(["f"])
            state = loaded.store.state("f")
            match lie:
                case "a":
                    state.versions._older["a"][0] = ("a", b"x", *state.versions._older["a"][0][2:])
                case "author":
                    state.log._commits[0] = (*state.log._commits[0][:2], "bob", *state.log._commits[0][3:])
                case "checkpoint":
                    state.checkpoints["first"] = state.checkpoints["first"]._replace(message="x")
                case "outcome":
                    client = state.requests._clients["ann"]
                    client.outcomes[1] = client.outcomes[1]._replace(fingerprint=0)
            async with ends_open(target) as there:
                found = await compare(loaded.store, there, "f")
                assert not found.is_equal, lie
