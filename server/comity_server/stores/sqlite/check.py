"""Verifies the file of a store: that SQLite can read all of it, that every version is what was written, that no commit
lacks any, and that what they say fits together."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.record import CREATE_REVISION, KEY, LEASE_ID, MOD_REVISION, VERSION, Record, size
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.checksum import checksum
from comity_server.stores.sqlite.load import load

MOST = 100  # problems that are told

ORPHANS = {
    "versions": "SELECT count(*) FROM versions WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "commits": "SELECT count(*) FROM commits WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "checkpoints": "SELECT count(*) FROM checkpoints WHERE namespace NOT IN (SELECT id FROM namespaces)",
    "leases": "SELECT count(*) FROM leases WHERE namespace NOT IN (SELECT id FROM namespaces WHERE NOT deleted)",
    "outcomes": "SELECT count(*) FROM outcomes"
    " WHERE (namespace, client) NOT IN (SELECT namespace, client FROM clients)",
}


INCOMPLETE = """
SELECT namespaces.name, commits.revision, commits.events - count(versions.id) AS missing
FROM namespaces JOIN commits ON commits.namespace = namespaces.id AND commits.revision > namespaces.floor
LEFT JOIN versions ON versions.namespace = commits.namespace AND versions.revision = commits.revision
WHERE NOT namespaces.deleted
GROUP BY commits.namespace, commits.revision HAVING missing <> 0
"""
VERSIONS = """
SELECT key, value, content_type, version, create_revision, revision, lease_id, time, checksum FROM versions
"""


@dataclass
class Report:
    """What was found. No problems: the file is sound."""

    version: int = 0
    namespaces: int = 0
    keys: int = 0
    commits: int = 0
    checkpoints: int = 0
    leases: int = 0
    problems: list[str] = field(default_factory=list)


def check(path: Path) -> Report:
    """Look at all of a file, as it is at one moment; a server may be using it.

    Raises FileNotFoundError, and StoreUnavailable if it is no file of a store or of a version that is not known.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise StoreUnavailable("it is no regular file")
    report = Report()
    connection = schema.connect(path, read_only=True, at_rest=schema.is_at_rest(path))
    try:
        report.version = schema.version(connection)
        if report.version == len(schema.MIGRATIONS):
            for problem in _problems(connection, report):
                report.problems.append(problem)
        elif report.version:
            raise StoreUnavailable(f"{path} has version {report.version} of the format: the next start migrates it")
    except StateError:
        raise
    except Exception as error:  # noqa: BLE001 - what a damaged file leads to is not to be foreseen
        report.problems.append(f"it cannot be read: {type(error).__name__}: {error}")
    finally:
        connection.close()
    del report.problems[MOST:]
    return report


def _problems(connection: sqlite3.Connection, report: Report) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({MOST})"):
        if line != "ok":
            yield f"SQLite: {line}"
    for table, question in ORPHANS.items():
        (count,) = connection.execute(question).fetchone()
        if count:
            yield f"{count} rows of {table} belong to nothing"
    for name, revision, count in connection.execute(INCOMPLETE):
        yield f"namespace {name}: revision {revision} lacks {count} of its events"
    yield from _wrong_checksums(connection)
    try:
        loaded = load(connection, Limits(), 0.0)
    except (StoreUnavailable, sqlite3.Error) as error:
        yield f"it cannot be loaded: {error}"
        return
    for state in loaded.namespaces:
        report.namespaces += 1
        report.keys += state.versions.key_count
        report.commits += len(state.log)
        report.checkpoints += len(state.checkpoints)
        report.leases += len(state.leases)
        for problem in (*_wrong_versions(state), *_wrong_leases(state, loaded.clock), *_wrong_checkpoints(state)):
            yield f"namespace {state.name}: {problem}"


def _wrong_checksums(connection: sqlite3.Connection) -> Iterator[str]:
    for *record, expected in connection.execute(VERSIONS):
        try:
            found = checksum(tuple(record))  # that it is a record is what is found out
        except TypeError:
            found = None
        if found != expected:
            yield f"{record[0]} at revision {record[5]} is not what was written"


def _wrong_versions(state: Namespace) -> Iterator[str]:
    for chain, shared in _chains(state):
        previous = shared
        for record in chain:
            revision = record[MOD_REVISION]
            if revision > state.revision:
                yield f"{record[KEY]} was written by revision {revision}, and the newest is {state.revision}"
            elif record[VERSION] and record[CREATE_REVISION] > revision:
                yield f"{record[KEY]} at revision {revision} was created later"
            elif record[VERSION] and revision > state.floor:  # below the floor there may be gaps
                live = previous if previous is not None and previous[VERSION] else None
                due = (live[VERSION] + 1, live[CREATE_REVISION]) if live is not None else (1, revision)
                if (record[VERSION], record[CREATE_REVISION]) != due:
                    yield f"{record[KEY]} at revision {revision} has version {record[VERSION]}, not {due[0]}"
            previous = record


def _wrong_leases(state: Namespace, clock: int) -> Iterator[str]:
    for held in state.leases:
        id, ttl, _, create_time, _ = held.lease
        is_of_a_revision = 1 <= id <= state.revision  # as ids were before they were times
        if not (id == create_time or is_of_a_revision) or not state.create_time <= create_time <= state.time:
            yield f"lease {id} was granted by no commit"
        if ttl < 1:
            yield f"lease {id} has a ttl of {ttl} µs"
        elif held.deadline - clock > ttl:
            yield f"lease {id} has more left than its ttl"
    since = state.parent.revision if state.parent is not None else 0  # a fork has none of its parent's leases
    for chain, _ in _chains(state):
        id = chain[-1][LEASE_ID]
        if id and chain[-1][MOD_REVISION] > since and state.leases.get(id) is None:
            yield f"{chain[-1][KEY]} lives by lease {id}, which is not there"


def _wrong_checkpoints(state: Namespace) -> Iterator[str]:
    """What each checkpoint counted when it was made has to be there still."""
    steps: dict[int, tuple[int, int]] = {}

    def step(revision: int, keys: int, size_bytes: int) -> None:
        before = steps.get(revision, (0, 0))
        steps[revision] = (before[0] + keys, before[1] + size_bytes)

    shared_keys, shared_bytes = 0, 0
    for chain, shared in _chains(state):
        previous = shared
        for record in chain:
            if previous is not None and previous[VERSION]:
                step(record[MOD_REVISION], -1, -size(previous))
            if record[VERSION]:
                step(record[MOD_REVISION], 1, size(record))
            previous = record
    if state.parent is not None:
        own_keys = sum(keys for keys, _ in steps.values())
        own_bytes = sum(size_bytes for _, size_bytes in steps.values())
        shared_keys = state.versions.key_count - own_keys
        shared_bytes = state.versions.live_bytes - own_bytes
    keys, size_bytes = shared_keys, shared_bytes
    revisions = iter(sorted(steps))
    revision = next(revisions, None)
    for checkpoint in sorted(state.checkpoints.values(), key=lambda checkpoint: checkpoint.revision):
        while revision is not None and revision <= checkpoint.revision:
            keys, size_bytes = keys + steps[revision][0], size_bytes + steps[revision][1]
            revision = next(revisions, None)
        if checkpoint.revision > state.revision:
            yield f"checkpoint {checkpoint.name} is of revision {checkpoint.revision}, after the newest"
        elif (keys, size_bytes) != (checkpoint.key_count, checkpoint.size_bytes):
            yield (
                f"checkpoint {checkpoint.name} had {checkpoint.key_count} keys of {checkpoint.size_bytes} bytes, "
                f"and {keys} of {size_bytes} are there"
            )


def _chains(state: Namespace) -> Iterator[tuple[list[Record], Record | None]]:
    """The versions of each key that was written here, and what they began over."""
    versions = state.versions
    for key in versions.own_keys():
        shared = versions.base.live_at(key, versions.base_revision) if versions.base is not None else None
        yield versions.chain(key), shared
