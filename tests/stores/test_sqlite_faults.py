"""What a failed write, a damaged file or an old copy must not lead to."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from comity_server.errors import Compacted, StoreFull, StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import Increment, Merge, MergeResult, Put, RequestId, Strategy, Transaction
from comity_server.stores.memory.namespace import Collected, Namespace
from comity_server.stores.sqlite.backup import backup
from comity_server.stores.sqlite.check import check
from comity_server.stores.sqlite.journal import SqliteJournal
from comity_server.stores.sqlite.store import SqliteStore
from tests.contract.space import Space, plain
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


def beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


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


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM versions WHERE revision = 2", "revision 2 lacks 1 of its events"),
        ("DELETE FROM versions WHERE revision = 4", "revision 4 lacks 1 of its events"),
        ("UPDATE versions SET value = x'7b7d' WHERE revision = 3", "k at revision 3 is not what was written"),
        ("UPDATE versions SET time = time + 1 WHERE revision = 1", "k at revision 1 is not what was written"),
        ("UPDATE versions SET key = 'other' WHERE revision = 4", "other at revision 4 is not what was written"),
    ],
)
async def test_a_check_finds_what_is_missing_and_what_was_changed(path: Path, damage: str, problem: str) -> None:
    async with opened(path) as store:
        space = Space(store, "n")
        for number in range(3):
            await space.put("k", b"%d" % number)
        await space.put("last", b"v")
    assert check(path).problems == []
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert any(problem in found for found in check(path).problems)


async def test_a_check_leaves_nothing_beside_a_file_at_rest_and_reads_one_that_is_in_use(path: Path) -> None:
    async with opened(path) as store:
        await Space(store, "n").put("k")
        assert check(path).keys == 1
    before = beside(path)
    assert check(path).keys == 1
    assert beside(path) == before


async def test_what_is_no_store_is_refused_by_its_name_and_nothing_is_put_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a store " * 1000)
    with pytest.raises(StoreUnavailable, match=r"notes\.txt"):
        await SqliteStore(path, Limits()).open()
    assert beside(path) == [path.name]


async def test_a_write_on_its_way_is_not_forgotten_with_what_its_client_did_before(path: Path) -> None:
    """A repeat of it after a start would be applied a second time."""
    request = RequestId("c", 2)
    put = Transaction(then=[Increment("k", 1)], request_id=request)
    async with opened(path, Limits(request_window=0.05)) as store:
        space = Space(store, "n")
        await space.commit(Transaction(then=[Increment("k", 1)], request_id=RequestId("c", 1)))
        await asyncio.sleep(0.06)  # the window, which is what this is about
        committing = asyncio.create_task(space.commit(put))
        await asyncio.sleep(0)
        await asyncio.gather(committing, store.retain("n", Retention()), store.sweep())
        assert (await space.entry("k"))[1] == b"2"
    async with opened(path) as store:
        await Space(store, "n").commit(put)
        assert (await Space(store, "n").entry("k"))[1] == b"2"


async def test_a_file_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    """Its lock goes by one of them, so a second server would not be kept from it."""
    async with opened(path):
        other = tmp_path / "other.db"
        other.hardlink_to(path)
        with pytest.raises(StoreUnavailable, match="hard link"):
            await SqliteStore(other, Limits()).open()


async def test_what_a_merge_remembers_of_large_conflicts_is_bounded(path: Path) -> None:
    async with opened(path) as store:
        space = Space(store, "n")
        await space.put("begin")
        fork = await space.fork("fork")
        for number in range(12):
            await space.put(f"k{number:02}", b"o" * 500_000)
            await fork.put(f"k{number:02}", b"t" * 500_000)
        merge = Merge(fork=fork.name, strategy=Strategy.THEIRS, request_id=RequestId("c", 1))
        (result,) = (await space.commit(merge)).results
        assert isinstance(result, MergeResult)
        assert [conflict.values_omitted for conflict in result.conflicts] == [False] + [True] * 11
    async with opened(path) as store:
        assert plain((await Space(store, "n").commit(merge)).results) == plain([result])
    assert rows(path, "SELECT sum(length(outcome)) < 2000000 FROM outcomes") == [(1,)]


async def test_a_large_commit_is_compacted_a_part_at_a_time(path: Path) -> None:
    async with opened(path, Limits(commit_events=50_000)) as store:
        space = Space(store, "n")
        for start in range(0, 12_000, 1000):
            await space.commit(
                Transaction(then=[Put(f"k{n:05}", b"v") for n in range(start, start + 1000)], author="a")
            )
        await space.delete_prefix("k")
        restored, _ = await space.restore(12)
        await space.delete_prefix("k0")
        namespace = store.namespaces_by_name["n"]
        namespace.floor = await space.revision()
        steps = 0
        while (collected := namespace.collect()) is not None:
            assert len(collected.versions) <= 4000
            await SqliteJournal.collected(store._sqlite, namespace, collected)
            steps += 1
        assert steps > 10
        assert (await space.info()).history_size_bytes == 0
        assert (await store.provenance("n", [restored]))[restored].message == "restore to revision 12"
    assert len(rows(path, "SELECT 1 FROM versions")) == 2000


@pytest.mark.parametrize("name", ["state.db", "state.db-wal", "state.db.lock", ".", "pipe", "link"])
async def test_a_backup_overwrites_nothing_but_files_of_its_kind(store: SqliteStore, path: Path, name: str) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.with_name("link").symlink_to("/nowhere")
    await Space(store, "n").put("k")
    before = beside(path)
    with pytest.raises(FileExistsError):
        backup(path, path.parent if name == "." else path.with_name(name), overwrite=True)
    assert beside(path) == before
    await Space(store, "n").put("k")


def test_a_check_does_not_wait_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreUnavailable, match="regular file"):
        check(tmp_path / "pipe")


@pytest.fixture
async def whole(path: Path) -> Path:
    """A file at rest with something of everything."""
    async with opened(path) as store:
        for number in range(20):
            await Space(store, "n").put(f"k{number}", bytes(1000))
        await Space(store, "n").checkpoint("c", label="v")
    return path


def test_a_check_of_a_damaged_file_is_never_a_defect(whole: Path) -> None:
    data = whole.read_bytes()
    random = Random(4)
    found = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(random.choice((1, 1, 4))):
            damaged[random.randrange(100, len(data))] = random.randrange(256)
        whole.write_bytes(damaged)
        try:
            found += bool(check(whole).problems)
        except StoreUnavailable:
            found += 1
    assert found > 100
