"""What the store does, as rows. Everything here is built and written in the writer's thread."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

from comity_server.errors import StateError
from comity_server.model import Cause, Checkpoint, Lease
from comity_server.record import (
    CONTENT_TYPE,
    CREATE_REVISION,
    KEY,
    LEASE_ID,
    MOD_REVISION,
    UPDATE_TIME,
    VALUE,
    VERSION,
    Record,
)
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.namespace import Collected, Namespace
from comity_server.stores.outcomes import encode
from comity_server.stores.sqlite.bulk import insert
from comity_server.stores.sqlite.checksum import checksum
from comity_server.stores.sqlite.writer import Writer

log = structlog.get_logger(__name__)

PURGED: Final = 5_000  # rows of a deleted namespace that one transaction clears away
RETRY_SECONDS: Final = 5.0

Row = tuple[Any, ...]

CREATE_NAMESPACE: Final = "INSERT INTO namespaces VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)"
MOVE_NAMESPACE: Final = "UPDATE namespaces SET revision = ?, time = ? WHERE id = ?"
ADD_COMMITS: Final = ("INSERT INTO commits", 7)
ADD_VERSIONS: Final = ("INSERT INTO versions", 12)
ADD_CHECKPOINT: Final = "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
DROP_CHECKPOINT: Final = "DELETE FROM checkpoints WHERE namespace = ? AND name = ?"
ADD_LEASES: Final = ("INSERT INTO leases", 7)
END_LEASE: Final = "DELETE FROM leases WHERE namespace = ? AND id = ?"
RENEW_LEASE: Final = "UPDATE leases SET deadline = max(deadline, ?) WHERE namespace = ? AND id = ?"
MOVE_CLOCK: Final = "UPDATE store SET clock = max(clock, ?)"
HEAR_CLIENT: Final = "INSERT OR REPLACE INTO clients VALUES (?, ?, ?, ?)"
FORGET_OUTCOMES: Final = "DELETE FROM outcomes WHERE namespace = ? AND client = ? AND (sequence < ? OR ?)"
ADD_OUTCOMES: Final = ("INSERT OR REPLACE INTO outcomes", 6)
DROP_VERSION: Final = "DELETE FROM versions WHERE namespace = ? AND revision = ? AND key = ?"
DROP_COMMIT: Final = "DELETE FROM commits WHERE namespace = ? AND revision = ?"
PURGE: Final = (
    "DELETE FROM versions WHERE id IN (SELECT id FROM versions WHERE namespace = ? LIMIT ?)",
    "DELETE FROM commits WHERE (namespace, revision) IN "
    "(SELECT namespace, revision FROM commits WHERE namespace = ? LIMIT ?)",
    "DELETE FROM checkpoints WHERE (namespace, name) IN "
    "(SELECT namespace, name FROM checkpoints WHERE namespace = ? LIMIT ?)",
)


class SqliteJournal:
    """Implements `stores.memory.journal.Journal`.

    Args:
        writer: of the file.
        clock: what leases go by, in µs. It goes on from what was written down of it last: so that is done with
            whatever gives a lease its time.
    """

    def __init__(self, writer: Writer, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._clock = clock
        self._doomed: list[int] = []
        self._purging: asyncio.Task[None] | None = None
        self._purged_last = False  # whether nothing is left of the first that is doomed

    async def commit(self, draft: Draft, *, begins: bool) -> None:
        clients = list(_clients(draft))
        await self._writer.write(lambda connection: _commit(connection, draft, begins, clients))

    async def keep_alive(self, namespace: Namespace, deadlines: Mapping[int, int]) -> None:
        now = self._clock()
        rows = [(deadline, namespace.id, id) for id, deadline in deadlines.items()]

        def renew(connection: sqlite3.Connection) -> None:
            connection.executemany(RENEW_LEASE, rows)
            connection.execute(MOVE_CLOCK, (now,))

        await self._writer.write(renew)

    async def keep_clock(self) -> None:
        """Write down how far the clock is."""
        now = self._clock()

        def move(connection: sqlite3.Connection) -> None:
            connection.execute(MOVE_CLOCK, (now,))

        await self._writer.write(move)

    async def floor(self, namespace: Namespace, floor: int) -> None:
        id = namespace.id

        def move(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE namespaces SET floor = max(floor, ?) WHERE id = ?", (floor, id))

        await self._writer.write(move)

    async def collected(self, namespace: Namespace, collected: Collected) -> None:
        versions = [(namespace.id, record[MOD_REVISION], record[KEY]) for record in collected.versions]
        commits = [(namespace.id, revision) for revision in collected.commits]

        def collect(connection: sqlite3.Connection) -> None:
            connection.executemany(DROP_VERSION, versions)
            connection.executemany(DROP_COMMIT, commits)

        if versions or commits:
            await self._writer.write(collect)

    async def delete(self, namespace: Namespace, revision: int) -> None:
        name = (namespace.name, revision, namespace.time)

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE namespaces SET deleted = 1 WHERE id = ?", (namespace.id,))
            connection.execute("DELETE FROM leases WHERE namespace = ?", (namespace.id,))
            connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", name)

        await self._writer.write(delete)

    async def drop(self, namespaces: Sequence[Namespace]) -> None:
        self.purge([namespace.id for namespace in namespaces])

    async def forget_clients(self, namespace: str, clients: Sequence[str]) -> None:
        rows = [(namespace, client) for client in clients]

        def forget(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM clients WHERE namespace = ? AND client = ?", rows)
            connection.executemany("DELETE FROM outcomes WHERE namespace = ? AND client = ?", rows)

        await self._writer.write(forget)

    async def forget_names(self, names: Sequence[str], least: int) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE store SET least_revision = ?", (least,))
            connection.executemany("DELETE FROM names WHERE name = ?", [(name,) for name in names])

        await self._writer.write(forget)

    def purge(self, ids: Sequence[int]) -> None:
        """Clear away the rows of deleted namespaces, a little at a time, beside whatever else is written."""
        self._doomed += ids
        if self._doomed and self._purging is None:
            self._purging = asyncio.get_running_loop().create_task(self._purge())

    async def close(self) -> None:
        """What was not cleared away yet is so after the next start."""
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait([self._purging])

    async def _purge(self) -> None:
        while self._doomed:
            try:
                await self._writer.write(lambda connection: self._purge_some(connection, self._doomed[0]))
            except StateError as error:
                log.warning("a deleted namespace could not be cleared away yet", reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._purged_last:
                del self._doomed[0]
        self._purging = None

    def _purge_some(self, connection: sqlite3.Connection, namespace: int) -> None:
        deleted = [connection.execute(statement, (namespace, PURGED)).rowcount for statement in PURGE]
        self._purged_last = not any(deleted)
        if self._purged_last:
            connection.execute("DELETE FROM namespaces WHERE id = ?", (namespace,))


def _clients(draft: Draft) -> Iterator[Row]:
    """What each client of a draft awaits, and whether it is a new one: then rows under its name are of one that was
    forgotten. It is as the loop's thread sees it, so it is asked there."""
    requests = draft.base.requests
    for client, said in draft.awaited.items():
        awaited, says = requests.awaited(client)
        yield (draft.base.name, client, max(awaited, said), int(says or said > 0), not requests.knows(client))


def _commit(connection: sqlite3.Connection, draft: Draft, begins: bool, clients: Sequence[Row]) -> None:
    state = draft.base
    if begins:
        connection.execute(CREATE_NAMESPACE, _namespace(draft))
        connection.execute("DELETE FROM names WHERE name = ?", (state.name,))
    elif draft.commits:
        connection.execute(MOVE_NAMESPACE, (draft.revision, draft.commits[-1].time, state.id))
    insert(connection, *ADD_COMMITS, ((state.id, *commit[:-1], len(commit.events)) for commit in draft.commits))
    insert(connection, *ADD_VERSIONS, _versions(draft))
    for name, checkpoint in draft.checkpoints.items():
        if checkpoint is None:
            connection.execute(DROP_CHECKPOINT, (state.id, name))
        else:
            connection.execute(ADD_CHECKPOINT, checkpoint_row(state.id, checkpoint))
    leases = draft.leases
    if leases:
        granted = (lease for id, lease in leases.granted.items() if id not in leases.ended)
        insert(
            connection,
            *ADD_LEASES,
            (lease_row(state.id, lease, draft.clock + leases.remaining(lease.id)) for lease in granted),
        )
        connection.executemany(END_LEASE, [(state.id, id) for id in leases.ended])
        connection.execute(MOVE_CLOCK, (draft.clock,))
    if clients:
        connection.executemany(HEAR_CLIENT, [row[:4] for row in clients])
        connection.executemany(FORGET_OUTCOMES, [(*row[:3], row[4]) for row in clients])
        insert(connection, *ADD_OUTCOMES, _outcomes(draft))


def _namespace(draft: Draft) -> Row:
    state = draft.base
    shared: Row = (None, None, None, None)
    if state.parent is not None:
        base, revision, _ = state.parent
        shared = (base.id, revision, state.versions.key_count, state.versions.live_bytes)
    times = draft.commits[-1].time, draft.commits[0].time
    return (state.id, state.name, draft.revision, state.floor, *times, *shared)


def _versions(draft: Draft) -> Iterator[Row]:
    for commit in draft.commits:
        for record, _, cause in commit.events:
            yield version_row(draft.base.id, record, cause)


def version_row(namespace: int, record: Record, cause: Cause) -> Row:
    return (
        None,
        namespace,
        record[MOD_REVISION],
        record[KEY],
        record[VALUE],
        record[CONTENT_TYPE],
        record[VERSION],
        record[CREATE_REVISION],
        record[LEASE_ID],
        record[UPDATE_TIME],
        int(cause),
        checksum(record),
    )


def checkpoint_row(namespace: int, checkpoint: Checkpoint) -> Row:
    name, revision, create_time, author, message, labels, keys, size = checkpoint
    return (namespace, name, revision, create_time, author, message, json.dumps(dict(labels)), keys, size)


def lease_row(namespace: int, lease: Lease, deadline: int) -> Row:
    """The deadline is by the clock of the file."""
    id, ttl, author, create_time, ends_with_keys = lease
    return (namespace, id, ttl, deadline, author, create_time, int(ends_with_keys))


def _outcomes(draft: Draft) -> Iterator[Row]:
    for request, fingerprint, outcome in draft.named.values():
        yield (
            draft.base.name,
            request.client,
            request.sequence,
            fingerprint,
            outcome.revision,
            encode(outcome),
        )
