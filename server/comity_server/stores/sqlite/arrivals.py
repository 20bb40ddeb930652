"""Takes in namespaces that come from another store.

Their rows are written a little at a time, as those of a deleted namespace that nobody shares: where the copy ends
halfway, the next start clears them away. One transaction has all of them exist.
"""

import itertools
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from comity_server.model import Cause, Commit
from comity_server.record import KEY, MOD_REVISION, VALUE, Record
from comity_server.stores.memory.draft import Following
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.parts import base_records, batches
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.outcomes import encode
from comity_server.stores.sqlite.bulk import insert
from comity_server.stores.sqlite.journal import (
    ADD_CHECKPOINT,
    ADD_COMMITS,
    ADD_LEASES,
    ADD_VERSIONS,
    MOVE_CLOCK,
    RENEW_LEASE,
    Row,
    checkpoint_row,
    lease_row,
    version_row,
)
from comity_server.stores.sqlite.writer import Writer
from comity_server.stores.transfer import Arrival, Counter, Progress, Remaining

ROWS: Final = 2_000  # of one transaction
BYTES: Final = 8 * 1024 * 1024  # of values, likewise

ADD_NAMESPACE: Final = "INSERT INTO namespaces VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_CLIENTS: Final = ("INSERT INTO clients", 4)
ADD_OUTCOMES: Final = ("INSERT INTO outcomes", 6)


class SqliteArrivals:
    """Implements `stores.transfer.Arrivals`. The file is open, and nobody else uses it."""

    def __init__(self, store: MemoryStore, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    async def bring(
        self, arrivals: Sequence[Arrival], replaced: Sequence[str], progress: Progress, remaining: Remaining
    ) -> None:
        ids: dict[int, int] = {}
        for arrival in arrivals:
            ids[id(arrival)] = next(self._store.ids)
            await self._write(arrival, ids, progress)
        for arrival in arrivals:  # before what is replaced lets go of what they share
            if isinstance(arrival.parent, Namespace) and arrival.state.parent is not None:
                _, revision, _ = arrival.state.parent
                arrival.parent.pin(revision, arrival.parent.totals(revision))  # as the next start will
                arrival.parent.forks += 1
        for name in replaced:
            await self._store.delete_namespace(name)
        coming = [(ids[id(arrival)], arrival) for arrival in arrivals if not arrival.state.deleted]
        leases: list[Row] = []
        for own, arrival in coming:
            left = await remaining(arrival.name) if arrival.state.leases else {}
            now = self._store.clock()
            held = (one.lease for one in arrival.state.leases)
            leases += [lease_row(own, lease, now + left.get(lease.id, lease.ttl)) for lease in held]
        await self._writer.write(lambda connection: _exist(connection, coming, leases, self._store.clock()))

    async def take_over(self, name: str, following: Following) -> None:
        await self._store.take_over(name, following)

    async def renew(self, name: str, remaining: Mapping[int, int]) -> None:
        state, now = self._store.state(name), self._store.clock()
        rows = [(now + left, state.id, id) for id, left in remaining.items()]
        await self._writer.write(lambda connection: _renew(connection, rows, now))

    async def set_requests(self, name: str, requests: Requests) -> None:
        await self._writer.write(lambda connection: _set_requests(connection, name, requests))

    async def raise_counters(self, counters: Sequence[Counter]) -> Sequence[str]:
        def count(connection: sqlite3.Connection) -> None:
            for name, revision, time, requests in counters:
                connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (name, revision, time))
                _set_requests(connection, name, requests)

        await self._writer.write(count)
        return ()  # nobody else uses the file

    async def raise_least(self, revision: int) -> None:
        def count(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE store SET least_revision = max(least_revision, ?)", (revision,))

        await self._writer.write(count)

    async def _write(self, arrival: Arrival, ids: Mapping[int, int], progress: Progress) -> None:
        state, own = arrival.state, ids[id(arrival)]
        shared: Row = (None, None, None, None)
        if state.parent is not None:
            of, revision, _ = state.parent
            there = ids[id(arrival.parent)] if isinstance(arrival.parent, Arrival) else _id(arrival.parent)
            shared = (there, revision, *of.totals(revision))
        row = (own, state.name, state.revision, state.floor, state.time, state.create_time, *shared)
        await self._writer.write(lambda connection: _add_namespace(connection, row))
        records = base_records(state)
        done, total = 0, len(records) + len(state.log)
        for some in _few(records):
            versions = [version_row(own, record, Cause.CLIENT) for record in some]  # a reader is told the cause no more
            await self._insert((), versions)
            done += len(some)
            progress(state.name, done, total)
        kept = ((own, revision, 0, *said, 0) for revision, said in state.origins.all())
        while chunk := list(itertools.islice(kept, ROWS)):
            await self._insert(chunk, ())
        for commits in batches(state.log.oldest_first(), events=ROWS):
            for heads, events in _pieces(own, commits):
                await self._insert(heads, events)
            done += len(commits)
            progress(state.name, done, total)

    async def _insert(self, commits: Sequence[Row], versions: Sequence[Row]) -> None:
        def add(connection: sqlite3.Connection) -> None:
            insert(connection, *ADD_COMMITS, commits)
            insert(connection, *ADD_VERSIONS, versions)

        await self._writer.write(add)


def _id(there: Namespace | None) -> int:
    assert there is not None
    return there.id


def _few(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    """As many at a time as one transaction is to have."""
    some: list[Record] = []
    size = 0
    for record in records:
        some.append(record)
        size += len(record[VALUE])
        if len(some) >= ROWS or size >= BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _pieces(namespace: int, commits: Sequence[Commit]) -> Iterator[tuple[Sequence[Row], Sequence[Row]]]:
    """The rows of commits and those of their events, as many at a time as one transaction is to have."""
    heads = [(namespace, *commit[:-1], len(commit.events)) for commit in commits]
    events = [event for commit in commits for event in commit.events]
    causes = {(event.entry[MOD_REVISION], event.entry[KEY]): event.cause for event in events}
    for some in _few(event.entry for event in events):
        yield heads, [version_row(namespace, one, causes[one[MOD_REVISION], one[KEY]]) for one in some]
        heads = []
    if heads:
        yield heads, ()


def _add_namespace(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(ADD_NAMESPACE, row)


def _exist(
    connection: sqlite3.Connection, coming: Sequence[tuple[int, Arrival]], leases: Sequence[Row], clock: int
) -> None:
    for own, arrival in coming:
        connection.execute("UPDATE namespaces SET deleted = 0 WHERE id = ?", (own,))
        connection.execute("DELETE FROM names WHERE name = ?", (arrival.name,))
        for checkpoint in arrival.state.checkpoints.values():
            connection.execute(ADD_CHECKPOINT, checkpoint_row(own, checkpoint))
        _set_requests(connection, arrival.name, arrival.requests)
    insert(connection, *ADD_LEASES, leases)
    connection.execute(MOVE_CLOCK, (clock,))
    # The names may have been used before, and their revisions are given out anew then.
    connection.execute("UPDATE store SET epoch = ?", (uuid.uuid4().hex,))


def _renew(connection: sqlite3.Connection, rows: Sequence[Row], clock: int) -> None:
    connection.executemany(RENEW_LEASE, rows)
    connection.execute(MOVE_CLOCK, (clock,))


def _set_requests(connection: sqlite3.Connection, name: str, requests: Requests) -> None:
    for table in ("clients", "outcomes"):
        connection.execute(f"DELETE FROM {table} WHERE namespace = ?", (name,))
    clients = ((name, client, awaited, int(says)) for client, awaited, says, _ in requests.all())
    insert(connection, *ADD_CLIENTS, clients)
    outcomes = (
        (name, client, sequence, one.fingerprint, one.outcome.revision, encode(one.outcome))
        for client, _, _, known in requests.all()
        for sequence, one in known.items()
    )
    insert(connection, *ADD_OUTCOMES, outcomes)
