"""Leases in a file: what time they have left after whatever end the store had, and which there are."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import lease_pb2 as le
from comity.v1 import state_pb2 as s
from comity_server.errors import LeaseLost, LeaseNotFound, StoreFull
from comity_server.limits import Limits
from comity_server.model import Cause, Grant, Guard, Increment, Put, RequestId, Revoke, Transaction
from comity_server.record import KEY, LEASE_ID, Record
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.backup import backup
from comity_server.stores.sqlite.check import check
from comity_server.stores.sqlite.checksum import checksum
from comity_server.stores.sqlite.journal import SqliteJournal
from comity_server.stores.sqlite.store import CLOCK_EVERY, SqliteStore
from tests import servers
from tests.contract.space import HOUR, SECOND, Space, plain
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire


class Clock:
    """Stands still until it is moved. In ns, as the system's monotonic one."""

    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now

    def pass_by(self, microseconds: int) -> None:
        self.now += microseconds * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that the store goes by."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Space]:
    """A namespace of the store in a file."""
    store = SqliteStore(path, Limits())
    await store.open()
    try:
        yield Space(store, "n")
    finally:
        await store.close()


@asynccontextmanager
async def as_after_a_kill(path: Path) -> AsyncIterator[Space]:
    """The same of the file as it is now, which another store has open."""
    copy = path.with_name("copy.db")
    await asyncio.to_thread(backup, path, copy, overwrite=True)
    async with opened(copy) as space:
        yield space


async def serve(space: Space, clock: Clock, microseconds: int, step: int = SECOND // 10) -> None:
    """Let time pass as it does for a server, which asks what is due again and again."""
    store = space.store
    assert isinstance(store, SqliteStore)
    for _ in range(microseconds // step):
        clock.pass_by(step)
        await store.due()
        await until(lambda: store._keeping is None)


async def test_a_lease_has_its_remaining_time_after_a_start(path: Path, clock: Clock) -> None:
    async with opened(path) as space:
        lease = await space.grant(10 * SECOND, author="ann")
        own = await space.put_for(60 * SECOND, "a", "b")
        clock.pass_by(4 * SECOND)
        before = await space.store.leases("n", limit=9)
    for _ in range(2):
        clock.pass_by(HOUR)
        async with opened(path) as space:
            assert await space.store.leases("n", limit=9) == before
            assert (await space.remaining(lease), await space.remaining(own)) == (6 * SECOND, 56 * SECOND)
    async with opened(path) as space:
        clock.pass_by(6 * SECOND - 1)
        assert await space.expire() == []
        clock.pass_by(1)
        assert await space.expire() == [lease.id]
        assert await space.leases() == {own: 2}


async def test_a_lease_has_its_remaining_time_after_a_kill_and_at_most_a_second_more(path: Path, clock: Clock) -> None:
    async with opened(path) as space:
        lease = await space.grant(10 * SECOND)
        for _ in range(7):
            await serve(space, clock, 1_300_000)
            left = await space.remaining(lease)
            async with as_after_a_kill(path) as after:
                assert left <= await after.remaining(lease) <= left + CLOCK_EVERY + SECOND // 10


async def test_the_clock_counts_only_while_there_are_leases(path: Path, clock: Clock) -> None:
    """Nothing is written for it in a store that has none, and what it missed does not make a lease longer."""
    async with opened(path) as space:
        await space.put("a")
        await serve(space, clock, HOUR, step=HOUR // 10)
        assert kept(path) == 0
        lease = await space.grant(10 * SECOND)
        assert await space.remaining(lease) == 10 * SECOND
        async with as_after_a_kill(path) as after:
            assert await after.remaining(lease) == 10 * SECOND
        await space.revoke(lease)
        before = kept(path)
        await serve(space, clock, HOUR, step=HOUR // 10)
        assert kept(path) == before


def kept(path: Path) -> int:
    """How far the clock is, by the file."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT clock FROM store").fetchone()[0])


async def test_a_renewal_that_was_answered_is_kept(path: Path, clock: Clock) -> None:
    async with opened(path) as space:
        renewed, other = await space.grant(10 * SECOND), await space.grant(10 * SECOND)
        clock.pass_by(9 * SECOND)
        assert await space.store.keep_alive("n", [renewed.id, 99]) == [10 * SECOND, 0]
        async with as_after_a_kill(path) as after:
            assert await after.remaining(renewed) == 10 * SECOND
            assert await after.remaining(other) == SECOND
            clock.pass_by(SECOND)
            assert await after.expire() == [other.id]
            clock.pass_by(9 * SECOND)
            assert await after.expire() == [renewed.id]


async def test_a_renewal_that_could_not_be_written_is_not_answered(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull("the disk is full")

    async with opened(path) as space:
        lease = await space.grant(10 * SECOND)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteJournal, "keep_alive", full)
            with pytest.raises(StoreFull):
                await space.store.keep_alive("n", [lease.id])
        assert await space.store.keep_alive("n", [lease.id]) == [10 * SECOND]


async def test_a_clock_that_cannot_be_written_does_not_keep_leases_from_their_ends(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull("the disk is full")

    async with opened(path) as space:
        monkeypatch.setattr(SqliteJournal, "keep_clock", full)
        lease = await space.grant(SECOND)
        await serve(space, clock, SECOND // 2)
        clock.pass_by(SECOND // 2)
        assert await space.expire() == [lease.id]
        assert await space.leases() == {}
        await space.grant()


async def test_the_keys_of_leases_are_there_after_a_start(path: Path, clock: Clock) -> None:
    async with opened(path) as space:
        lease = await space.grant()
        await space.put_with(lease, "a", "b", "c", "d")
        await space.checkpoint("all")
        own = await space.put_for(SECOND, "c", "e", "f")
        await space.put("a")
        await space.delete("b")
        await space.delete("e")
        await space.apply(Increment("n", 1), Put("m", b"1", lease_id=lease.id))
        await space.apply(Increment("m", 1))
        await space.compact()
        ended = await space.put_for(HOUR, "g")
        await space.put("g")
        before = await space.leases()
        assert before == {lease.id: 2, own: 2}
    async with opened(path) as space:
        assert await space.leases() == before
        with pytest.raises(LeaseNotFound):
            await space.store.lease("n", ended)
        await space.delete("c")
        clock.pass_by(SECOND)
        assert await space.expire() == [own]
        (event,) = (await space.log())[-1].events
        assert (event.entry[KEY], event.cause) == ("f", Cause.LEASE_EXPIRY)
        assert await space.revoke(lease) == 2
        assert await space.keys() == ["a", "g", "n"]
    async with opened(path) as space:
        assert await space.leases() == {}
        own = await space.put_for(HOUR, "x")
    async with opened(path) as space:
        await space.delete("x")
        assert await space.leases() == {}, "it was for this key alone"
    assert check(path).problems == []


async def test_guards_and_repeats_are_judged_as_before_after_a_start(path: Path) -> None:
    grant = Grant(ttl=HOUR, author="ann", request_id=RequestId("c", 1))
    put = Transaction(then=[Put("a", b"", ttl=HOUR)], request_id=RequestId("c", 2))
    async with opened(path) as space:
        granted = await space.commit(grant)
        own = await space.commit(put)
        held, of_key = await space.leases()
        guard = Guard(held, held)
        revoke = Revoke(lease_id=of_key, request_id=RequestId("c", 3))
        guarded = Transaction(then=[Increment("n", 1)], request_id=RequestId("c", 4), guard=guard)
        first = [granted, own, *[await space.commit(write) for write in (revoke, guarded)]]
    async with opened(path) as space:
        await space.commit(Transaction(then=[Put("b", b"")], guard=guard))
        await space.revoke(guard.lease_id)
        with pytest.raises(LeaseLost):
            await space.commit(Transaction(then=[Put("b", b"")], guard=guard))
    async with opened(path) as space:
        assert [plain(await space.commit(write)) for write in (grant, put, revoke, guarded)] == list(map(plain, first))
        with pytest.raises(LeaseLost):
            await space.commit(Transaction(then=[Put("b", b"")], guard=guard))
        assert (await space.grant()).id > of_key


async def test_the_leases_of_a_deleted_namespace_are_gone(path: Path) -> None:
    async with opened(path) as space:
        await space.grant()
        own = await space.put_for(HOUR, "a")
        fork = await space.fork("fork")
        of_fork = await fork.grant()
        await fork.put_with(of_fork, "b")
        await space.store.delete_namespace("n")
        await space.put("a")
    for _ in range(2):
        async with opened(path) as space:
            assert await space.leases() == {}
            assert await space.sibling("fork").leases() == {of_fork.id: 1}
            assert [entry[LEASE_ID] for entry in await space.sibling("fork").entries()] == [own, of_fork.id]
            assert check(path).problems == []
    async with opened(path) as space:
        assert await space.sibling("fork").revoke(of_fork) == 1
        await space.store.delete_namespace(space.sibling("fork").name)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)


async def test_a_backup_has_the_leases_and_their_time(path: Path, tmp_path: Path, clock: Clock) -> None:
    async with opened(path) as space:
        lease = await space.grant(10 * SECOND)
        await space.put_with(lease, "a")
        clock.pass_by(SECOND)
        await serve(space, clock, SECOND)
        await asyncio.to_thread(backup, path, tmp_path / "backup.db")
        clock.pass_by(HOUR)
    async with opened(tmp_path / "backup.db") as space:
        assert 8 * SECOND <= await space.remaining(lease) <= 9 * SECOND
        assert await space.leases() == {lease.id: 1}


# Files of the first version


def first_version(path: Path) -> None:
    """A file as it was before there were leases: two keys, a checkpoint, and an outcome."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, schema.MIGRATIONS[:1])
        connection.execute("INSERT INTO namespaces VALUES (1, 'n', 0, 2, 0, 7, 5, NULL, NULL, NULL, NULL)")
        for revision, key in enumerate("ab", 1):
            record: Record = (key, b"1", "", 1, revision, revision, 0, 5)
            said = (*record[1:5], 0, 5, 1, checksum(record))
            connection.execute("INSERT INTO commits VALUES (1, ?, 5, 'ann', '', '', 1)", (revision,))
            row = "INSERT INTO versions VALUES (NULL, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            connection.execute(row, (revision, key, *said))
        connection.execute("INSERT INTO checkpoints VALUES (1, 'one', 1, 6, 'ann', '', '{}', 1, 2)")
        connection.execute("INSERT INTO clients VALUES ('n', 'c', 1, 0)")
        connection.execute("INSERT INTO outcomes VALUES ('n', 'c', 1, ?, 2, 1)", (PUT.fingerprint(),))


PUT = Transaction(then=[Put("b", b"1")], request_id=RequestId("c", 1))


async def test_a_file_of_the_first_version_is_brought_up_to_date(path: Path, clock: Clock) -> None:
    first_version(path)
    async with opened(path) as space:
        assert await space.contents() == {"a": b"1", "b": b"1"}
        assert (await space.commit(PUT)).revision == 2
        assert [checkpoint.name for checkpoint in await space.store.checkpoints("n", {}, limit=9)] == ["one"]
        assert [commit.author for commit in await space.log()] == ["ann", "ann"]
        assert await space.leases() == {}
        lease = await space.grant(10 * SECOND)
        await space.put_with(lease, "c")
        clock.pass_by(SECOND)
    async with opened(path) as space:
        assert await space.remaining(lease) == 9 * SECOND
        assert await space.revoke(lease) == 1
    report = check(path)
    assert (report.version, report.problems) == (len(schema.MIGRATIONS), [])


# What `comity check` finds


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE leases SET namespace = 9", "2 rows of leases belong to nothing"),
        ("UPDATE namespaces SET deleted = 1", "2 rows of leases belong to nothing"),
        ("UPDATE leases SET id = 9 WHERE NOT ends_with_keys", "namespace n: lease 9 was granted by no commit"),
        ("UPDATE leases SET id = -1 WHERE NOT ends_with_keys", "namespace n: lease -1 was granted by no commit"),
        ("UPDATE leases SET id = id + 1", "namespace n: lease {next} was granted by no commit"),
        ("UPDATE leases SET id = id + 1000000000, create_time = id + 1000000000", "namespace n: lease"),
        ("UPDATE leases SET ttl = 0 WHERE NOT ends_with_keys", "namespace n: lease {first} has a ttl of 0 µs"),
        ("UPDATE store SET clock = -1", "namespace n: lease {first} has more left than its ttl"),
        ("DELETE FROM leases WHERE NOT ends_with_keys", "namespace n: a lives by lease {first}, which is not there"),
        ("DELETE FROM leases", "namespace n: b lives by lease {own}, which is not there"),
        ("UPDATE leases SET ttl = 'soon'", "it cannot be read"),
    ],
)
async def test_leases_that_do_not_fit_are_found(path: Path, clock: Clock, damage: str, problem: str) -> None:
    async with opened(path) as space:
        lease = await space.grant()
        await space.put_with(lease, "a")
        own = await space.put_for(HOUR, "b")
        await space.put("c")
    report = check(path)
    assert (report.leases, report.problems) == (2, [])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    problem = problem.format(first=lease.id, next=lease.id + 1, own=own)
    assert any(found.startswith(problem) for found in check(path).problems), check(path).problems


async def test_leases_whose_ids_are_revisions_are_no_fault(path: Path) -> None:
    """As they were before they were times."""
    async with opened(path) as space:
        await space.put_with(await space.grant(HOUR), "a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE leases SET id = 1")
        connection.create_function("checksum", -1, lambda *record: checksum(record))
        connection.execute("UPDATE versions SET lease_id = 1")
        connection.execute(
            "UPDATE versions SET checksum ="
            " checksum(key, value, content_type, version, create_revision, revision, lease_id, time)"
        )
    report = check(path)
    assert (report.leases, report.problems) == (1, [])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE leases SET create_time = 1")
    assert check(path).problems == ["namespace n: lease 1 was granted by no commit"]


async def test_leases_of_what_a_fork_shares_are_no_fault(path: Path) -> None:
    async with opened(path) as space:
        await space.put_for(HOUR, "a", "b")
        fork = await space.fork("fork")
        await space.delete_prefix("")
        await fork.put_for(HOUR, "a")
    assert check(path).problems == []


# A server that is killed


def test_a_killed_server_gives_leases_the_time_they_had(path: Path) -> None:
    with servers.start("--store", f"sqlite:{path}") as server:
        with grpc.insecure_channel(server.address) as channel:
            wire = Wire(channel)
            grant = le.GrantLeaseRequest(namespace="n", ttl=Duration(seconds=30))
            left_alone, renewed = (wire.call(grant).lease.id for _ in range(2))
            wire.call(s.PutRequest(namespace="n", key="a", lease_id=left_alone))
            until_less(wire, left_alone, 28)
            sent = time.monotonic()
            wire.call(le.KeepAliveRequest(namespace="n", lease_id=renewed))
            before = remaining(wire, left_alone)
        server.kill()
        server.restart()
        with grpc.insecure_channel(server.address) as channel:
            wire = Wire(channel)
            after, of_renewed = remaining(wire, left_alone), remaining(wire, renewed)
            elapsed = time.monotonic() - sent
            assert before - elapsed <= after <= before + 1
            assert 30 - elapsed <= of_renewed <= 30
            assert wire.get("n", "a") == b""


def remaining(wire: Wire, lease_id: int) -> float:
    """In seconds."""
    asked = le.GetLeaseRequest(namespace="n", lease_id=lease_id)
    return float(wire.leases.GetLease(asked, timeout=TIMEOUT).lease.remaining.ToMicroseconds() / 1e6)


def until_less(wire: Wire, lease_id: int, seconds: float) -> None:
    while remaining(wire, lease_id) >= seconds:
        time.sleep(0.05)
