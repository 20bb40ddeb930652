"""From the tables to the store in memory. Rows are taken in as they are; nothing is done again."""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Cause, Checkpoint, Commit, Event, Lease, Provenance
from comity_server.record import LEASE_ID, VERSION, Record
from comity_server.stores.memory.namespace import Namespace, Parent
from comity_server.stores.memory.pins import NOTHING, Totals
from comity_server.stores.memory.requests import Requests
from comity_server.stores.outcomes import decode

COMMITS = """
SELECT namespace, revision, time, author, message, trace_parent FROM commits ORDER BY namespace, revision
"""
VERSIONS = """
SELECT key, value, content_type, version, create_revision, revision, lease_id, time, namespace, cause
FROM versions ORDER BY id
"""


class Loaded(NamedTuple):
    """What a file holds."""

    epoch: str
    least_revision: int
    namespaces: Sequence[Namespace]  # that exist
    names: dict[str, tuple[int, int]]  # of deleted ones: revision and time
    requests: dict[str, Requests]  # by the name of the namespace
    doomed: Sequence[int]  # ids of deleted namespaces that no fork shares
    next_id: int
    clock: int  # what the deadlines of leases are by, in µs
    leftovers: Sequence[tuple[int, int]]  # commits below the floor of which nothing is left: namespace and revision


def load(connection: sqlite3.Connection, limits: Limits, now: float) -> Loaded:
    """Read everything, as of one moment. Raises StoreUnavailable if it does not fit together."""
    connection.execute("BEGIN")
    try:
        return _Loading(connection, limits).run(now)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # what rows that make no sense lead to
        raise StoreUnavailable(f"the file is damaged: {type(error).__name__}: {error}") from error
    finally:
        connection.execute("ROLLBACK")


class _Loading:
    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._execute = connection.execute
        self._limits = limits
        self._all: dict[int, Namespace] = {}  # that exist, or are shared by one that does
        self._said: dict[tuple[int, int], Provenance] = {}  # of commits below the floor
        self._entries: dict[tuple[int, int], int] = {}  # how many entries of these are left

    def run(self, now: float) -> Loaded:
        epoch, least_revision, clock = self._execute("SELECT epoch, least_revision, clock FROM store").fetchone()
        doomed = self._load_namespaces(epoch)
        self._load_leases()
        heads = self._load_commits()
        events = self._load_versions()
        for state in self._all.values():  # bases before their forks, since these have the greater ids
            state.versions.load_end()
            commits = [
                head._replace(events=events.pop((state.id, head.revision), ())) for head in heads.pop(state.id, ())
            ]
            state.log.load(commits, Totals(state.versions.key_count, state.versions.live_bytes))
            if state.log.base + len(state.log) != state.revision:
                raise StoreUnavailable(f"the file is damaged: namespace {state.name} lacks commits")
        leftovers = self._load_origins()
        self._load_checkpoints()
        next_id = self._execute("SELECT coalesce(max(id), 0) + 1 FROM namespaces").fetchone()[0]
        names = {name: (revision, time) for name, revision, time in self._execute("SELECT * FROM names")}
        existing = [state for state in self._all.values() if not state.deleted]
        requests = self._load_requests(now)
        return Loaded(epoch, least_revision, existing, names, requests, doomed, next_id, clock, leftovers)

    def _load_namespaces(self, epoch: str) -> Sequence[int]:
        rows = self._execute("SELECT * FROM namespaces ORDER BY id").fetchall()
        bases = {row[0]: row[7] for row in rows}
        wanted: set[int] = set()
        for row in rows:
            one = None if row[2] else row[0]
            while one is not None and one not in wanted:
                wanted.add(one)
                if one not in bases:
                    raise StoreUnavailable(f"the file is damaged: namespace {row[1]} shares one that is not there")
                one = bases[one]
        for id, name, deleted, revision, floor, time, create_time, base, fork_revision, keys, size in rows:
            if id not in wanted:
                continue
            parent, totals = None, NOTHING
            if base is not None:
                parent, totals = Parent(self._all[base], fork_revision), Totals(keys, size)
                parent.namespace.pin(fork_revision, totals)
                parent.namespace.forks += 1
            state = Namespace(name, self._limits, epoch, id=id, revision=floor, time=time, parent=parent, totals=totals)
            state.revision = revision
            state.create_time = create_time
            state.deleted = bool(deleted)
            self._all[id] = state
        return [row[0] for row in rows if row[0] not in wanted]

    def _load_leases(self) -> None:
        """Still without their keys."""
        rows = self._execute("SELECT namespace, deadline, id, ttl, author, create_time, ends_with_keys FROM leases")
        for namespace, deadline, *said, ends_with_keys in rows:
            state = self._all.get(namespace)
            if state is not None and not state.deleted:
                state.leases.grant(Lease._make((*said, bool(ends_with_keys))), deadline)

    def _load_commits(self) -> dict[int, list[Commit]]:
        """The commits above the floors, still without their events; what is known of others is noted."""
        found: dict[int, list[Commit]] = {}
        for namespace, *said in self._execute(COMMITS):
            commit = Commit._make((*said, ()))
            state = self._all.get(namespace)
            if state is None:
                continue
            if commit.revision > state.floor:
                found.setdefault(namespace, []).append(commit)
            else:
                where = (namespace, commit.revision)
                self._said[where] = Provenance(commit.author, commit.message, commit.trace_parent)
                self._entries[where] = 0
        return found

    def _load_versions(self) -> dict[tuple[int, int], list[Event]]:
        """The events of the commits above the floors."""
        events: dict[tuple[int, int], list[Event]] = {}
        kinds: dict[str, str] = {}  # so that equal content types are one
        causes = {int(cause): cause for cause in Cause}
        for key, value, kind, version, created, revision, lease, time, namespace, cause in self._execute(VERSIONS):
            state = self._all.get(namespace)
            if state is None:
                continue
            record: Record = (key, value, kinds.setdefault(kind, kind), version, created, revision, lease, time)
            previous = state.versions.load(record)
            if lease or (previous is not None and previous[LEASE_ID]):
                state.leases.index(Event(record, previous))
            if revision > state.floor:
                if previous is not None and not previous[VERSION]:
                    previous = None
                events.setdefault((namespace, revision), []).append(Event(record, previous, causes[cause]))
            elif version and (namespace, revision) in self._entries:
                self._entries[namespace, revision] += 1
        return events

    def _load_origins(self) -> Sequence[tuple[int, int]]:
        leftovers = []
        for (namespace, revision), said in self._said.items():
            entries = self._entries[namespace, revision]
            if not self._all[namespace].origins.load(revision, said, entries):
                leftovers.append((namespace, revision))
        return leftovers

    def _load_checkpoints(self) -> None:
        for namespace, *said, labels, keys, size in self._execute("SELECT * FROM checkpoints"):
            state = self._all.get(namespace)
            if state is None or state.deleted:
                continue
            checkpoint = Checkpoint._make((*said, tuple(sorted(json.loads(labels).items())), keys, size))
            state.pin(checkpoint.revision, Totals(keys, size))
            state.checkpoints[checkpoint.name] = checkpoint

    def _load_requests(self, now: float) -> dict[str, Requests]:
        """Every client has the whole window before it: how long it was silent cannot be told from another clock."""
        found: dict[str, Requests] = {}
        clients = {}
        for namespace, client, awaited, says in self._execute("SELECT * FROM clients"):
            requests = found.setdefault(namespace, Requests(self._limits))
            clients[namespace, client] = requests.load(client, awaited, bool(says), now)
        rows = self._execute("SELECT * FROM outcomes ORDER BY namespace, client, sequence")
        for namespace, client, sequence, fingerprint, revision, outcome in rows:
            known = clients.get((namespace, client))
            if known is not None and sequence >= known.awaited:
                found[namespace].load_outcome(known, sequence, fingerprint, decode(revision, outcome))
        return found
