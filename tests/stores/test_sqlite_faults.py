"""What a failed write, a damaged file or an old copy must not lead to."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comity_server.errors import Compacted, StoreFull, StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Put, RequestId, Transaction
from comity_server.stores.memory.namespace import Collected, Namespace
from comity_server.stores.sqlite.backup import backup
from comity_server.stores.sqlite.check import check
from comity_server.stores.sqlite.journal import SqliteJournal
from comity_server.stores.sqlite.store import SqliteStore
from tests.contract.space import Space
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(path) as store:
        yield store


@asynccontextmanager
async def opened(path: Path, limits: Limits = Limits()) -> AsyncIterator[SqliteStore]:  # noqa: B008 - it cannot be changed
    store = SqliteStore(path, limits)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


async def test_what_a_compaction_could_not_write_is_written_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a deleted key would come back with the next start."""
    collected = SqliteJournal.collected
    failures = 0

    async def fail_once(self: SqliteJournal, namespace: Namespace, step: Collected) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise StoreFull("the disk is full")
        await collected(self, namespace, step)

    monkeypatch.setattr(SqliteJournal, "collected", fail_once)
    async with opened(path) as store:
        space = Space(store, "n")
        await space.put("k", b"1")
        await space.put("k", b"2")
        await space.delete("k")
        await space.put("other")
        with pytest.raises(StoreFull):
            await space.compact(2)
        await space.compact(4)
    async with opened(path) as again:
        assert await Space(again, "n").keys() == ["other"]
        with pytest.raises(Compacted):
            await again.get("n", "k", 2)
    assert rows(path, "SELECT key FROM versions") == [("other",)]


async def test_a_backup_over_an_old_file_is_the_backup_and_nothing_of_what_was_there(
    store: SqliteStore, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    old = SqliteStore(target, Limits())
    await old.open()
    for number in range(300):
        await Space(old, "old").put(f"k{number}")
    for beside in ("-wal", "-shm"):  # as a server that was killed leaves them
        kept = target.with_name(target.name + beside)
        kept.with_name(kept.name + ".kept").write_bytes(kept.read_bytes())
    with pytest.raises(FileExistsError, match="in use"):
        backup(tmp_path / "state.db", target, overwrite=True)
    await old.close()
    for beside in ("-wal", "-shm"):
        kept = target.with_name(target.name + beside)
        kept.with_name(kept.name + ".kept").rename(kept)
    await Space(store, "new").put("k")
    backup(tmp_path / "state.db", target, overwrite=True)
    report = check(target)
    assert (report.problems, report.namespaces, report.keys) == ([], 1, 1)


async def test_a_client_that_was_forgotten_begins_anew_also_in_the_file(path: Path) -> None:
    def put(sequence: int, value: bytes) -> Transaction:
        return Transaction(then=[Put("k", value)], request_id=RequestId("c", sequence))

    async with opened(path, Limits(request_window=0.0)) as store:
        space = Space(store, "n")
        for sequence in (1, 2, 3):  # each forgets the client before, whose window is over at once
            await space.commit(put(sequence, b"first"))
        await space.commit(put(1, b"second"))
    async with opened(path) as store:
        await Space(store, "n").commit(put(2, b"third"))
        assert (await Space(store, "n").entry("k"))[1] == b"third"


async def test_a_deleted_parent_keeps_in_the_file_what_its_forks_show_and_no_more(
    store: SqliteStore, path: Path
) -> None:
    space = Space(store, "parent")
    for number in range(50):
        await space.put("k", b"%d" % number)
    await space.checkpoint("held", 10)
    fork = await space.fork("fork", 25)
    await store.delete_namespace("parent")
    assert rows(path, "SELECT revision FROM versions WHERE key = 'k'") == [(25,), (50,)]
    assert (await fork.entry("k"))[1] == b"24"
    await store.delete_namespace(fork.name)
    await until(lambda: rows(path, "SELECT count(*) FROM versions") == [(0,)])
    assert check(path).problems == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoints SET labels = '[1]'",
        "UPDATE checkpoints SET labels = 'x'",
        "UPDATE outcomes SET outcome = '[]'",
        "UPDATE outcomes SET outcome = '[true,[[\"none\"]],[]]'",
        "UPDATE versions SET cause = 7",
        "UPDATE namespaces SET base = 99",
        "DELETE FROM commits",
        "DELETE FROM store",
    ],
)
async def test_a_damaged_file_is_refused_in_so_many_words_and_left_alone(path: Path, damage: str) -> None:
    store = SqliteStore(path, Limits())
    await store.open()
    space = Space(store, "n")
    await space.commit(Transaction(then=[Put("k", b"")], request_id=RequestId("c", 1)))
    await space.commit(Transaction(then=[Put("k", b"")], message="m", request_id=RequestId("c", 2)))
    await space.checkpoint("c")
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    for _ in range(2):  # the first attempt lets go of the file
        store = SqliteStore(path, Limits())
        with pytest.raises(StoreUnavailable, match="damaged"):
            await store.open()
    assert check(path).problems


async def test_a_fork_that_is_given_up_lets_go_of_a_parent_that_was_deleted_meanwhile(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space(store, "parent")
    await space.put("k")
    commit = SqliteJournal.commit

    async def delete_and_fail(self: SqliteJournal, draft: object, *, begins: bool) -> None:
        monkeypatch.setattr(SqliteJournal, "commit", commit)
        await store.delete_namespace("parent")
        raise StoreFull("the disk is full")

    monkeypatch.setattr(SqliteJournal, "commit", delete_and_fail)
    with pytest.raises(StoreFull):
        await space.fork("fork")
    await until(lambda: rows(path, "SELECT count(*) FROM versions") == [(0,)])
