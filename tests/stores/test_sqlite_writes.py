"""How writes reach the file: many groups in one transaction, and nothing shown or answered before it is there."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from comity_server.committer import Committer
from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import (
    Commit,
    DropCheckpoint,
    Fork,
    Increment,
    MakeCheckpoint,
    Outcome,
    Put,
    RequestId,
    Transaction,
    Write,
)
from comity_server.stores.sqlite.store import SqliteStore
from comity_server.stores.sqlite.writer import Writer
from comity_server.telemetry.tally import Tally
from tests.contract.space import Space
from tests.waiting import until

NAMESPACES = 50
WRITES = 4  # of each namespace, at the same time


class Told:
    """A listener, and what it heard."""

    def __init__(self) -> None:
        self.revisions: list[int] = []
        self.resets = 0

    def publish(self, commits: Sequence[Commit]) -> None:
        self.revisions += [commit.revision for commit in commits]

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "comity.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, Limits())
    await store.open()
    yield store
    await store.close()


def put(key: str = "k", value: bytes = b"v") -> Transaction:
    return Transaction(then=[Put(key, value)])


def transactions(path: Path) -> int:
    """How many are in the log: each ends with a frame that says how large the file is after it."""
    log = path.with_name(path.name + "-wal").read_bytes()
    frame = int.from_bytes(log[8:12]) + 24
    return sum(log[place + 4 : place + 8] != bytes(4) for place in range(32, len(log), frame))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nothing can be written to the file meanwhile: another program is about to."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def on_disk(path: Path) -> dict[str, int]:
    """What another program finds in the file: the namespaces and their revisions."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, revision FROM namespaces WHERE NOT deleted"))


async def test_one_transaction_carries_the_groups_of_many_namespaces(store: SqliteStore, path: Path) -> None:
    committer = Committer(store, Tally())
    before = transactions(path)
    with held(path):
        writing = [
            asyncio.ensure_future(committer.submit(f"n{number:02}", put(f"k{write}")))
            for number in range(NAMESPACES)
            for write in range(WRITES)
        ]
        for _ in range(100):  # all of them come to the store
            await asyncio.sleep(0)
        assert not any(one.done() for one in writing)
    outcomes = await asyncio.gather(*writing)
    assert [outcome.revision for outcome in outcomes] == [*range(1, WRITES + 1)] * NAMESPACES
    assert transactions(path) - before <= 2  # what the first one found, and what came while it waited
    assert on_disk(path) == {f"n{number:02}": WRITES for number in range(NAMESPACES)}


async def test_an_answer_comes_when_it_is_on_disk(store: SqliteStore, path: Path) -> None:
    for number in range(1, 51):
        await store.commit("n", [put(), put()])
        assert on_disk(path) == {"n": 2 * number}


async def state(store: SqliteStore) -> list[object]:
    """All that readers see."""
    infos = await store.namespaces("", limit=100)
    return [
        await store.get("n", "k"),
        await store.list("n", "", limit=100, max_bytes=1000),
        await store.position("n"),
        await store.commits("n", first=1, last=100, limit=100),
        await store.checkpoints("n", {}, limit=100),
        await store.get("fork", "k"),
        infos,
    ]


WRITES_OF_ALL_KINDS: Sequence[Write] = [
    put(value=b"new"),
    Transaction(then=[Increment("i", 1)]),
    MakeCheckpoint(name="new"),
    DropCheckpoint(name="old"),
]


async def begin(store: SqliteStore) -> Told:
    """A namespace with something in it, and somebody who listens."""
    told = Told()
    await store.commit("n", [put(value=b"old"), MakeCheckpoint(name="old")])
    await store.follow("n", told)
    return told


async def test_nothing_is_shown_or_answered_before_it_is_on_disk(store: SqliteStore, path: Path) -> None:
    told = await begin(store)
    before = await state(store)
    with held(path):
        writing = asyncio.ensure_future(store.commit("n", WRITES_OF_ALL_KINDS))
        forking = asyncio.ensure_future(store.commit("fork", [Fork(parent="n")]))
        for _ in range(200):
            assert await state(store) == before
            await asyncio.sleep(0.001)
        assert not writing.done()
        assert not forking.done()
        assert told.revisions == []
    assert all(isinstance(outcome, Outcome) for outcome in (*await writing, *await forking))
    assert told.revisions == [2, 3]
    assert (await store.get("n", "k")).entry is not None
    assert [checkpoint.name for checkpoint in await store.checkpoints("n", {}, limit=100)] == ["new"]
    assert on_disk(path) == {"n": 3, "fork": 2}


def move(path: Path, to: Path) -> None:
    path.rename(to)


async def test_what_cannot_be_written_leaves_nothing_behind(store: SqliteStore, path: Path) -> None:
    told = await begin(store)
    before = await state(store)
    named = [put(value=b"new")._replace(request_id=RequestId("c", 1))]
    away = path.with_name("away")
    move(path, away)
    refused: Sequence[tuple[str, Sequence[Write]]] = (
        ("n", WRITES_OF_ALL_KINDS),
        ("n", named),
        ("fork", [Fork(parent="n")]),
        ("other", [put()]),
    )
    for namespace, writes in refused:
        outcomes = await store.commit(namespace, writes)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(writes)
        assert await state(store) == before
    with pytest.raises(StoreUnavailable):
        await store.delete_namespace("n")
    assert await state(store) == before
    assert not store.writable()
    assert told.revisions == []
    move(away, path)
    await until(store.writable)
    assert await state(store) == before
    for _ in range(2):
        (outcome,) = await store.commit("n", named)
        assert isinstance(outcome, Outcome)
        assert outcome.revision == 2
    (forked,) = await store.commit("fork", [Fork(parent="n", ref="old")])
    assert isinstance(forked, Outcome)
    assert (told.revisions, told.resets) == ([2], 0)
    await store.delete_namespace("n")
    assert told.resets == 1
    assert on_disk(path) == {"fork": 2}


async def test_nothing_tries_again_to_write_what_is_closed(path: Path) -> None:
    writer = Writer(path, (), take=lambda: None, let_go=lambda: None)
    await writer.open()
    begun, go_on = threading.Event(), threading.Event()

    def fail(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait()
        raise sqlite3.OperationalError("it failed")

    writing = asyncio.create_task(writer.write(fail))
    await until(begun.is_set)
    ending = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(StoreUnavailable):
        await writing
    await ending
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_loop_that_never_rests_does_not_keep_a_write_from_its_end(store: SqliteStore) -> None:
    """It lets go of Python's lock at every step, which keeps others who ask for it from ever having waited for it."""
    space = Space(store, "n")
    writing = asyncio.create_task(space.put("k"))
    began = asyncio.get_running_loop().time()
    while not writing.done():
        await space.get("k")
        await asyncio.sleep(0)
        assert asyncio.get_running_loop().time() < began + 5
    await writing
