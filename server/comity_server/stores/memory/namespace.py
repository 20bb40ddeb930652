"""One namespace in memory: its versions, its log, its checkpoints, its leases, the outcomes it remembers, and where it
stands."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from sortedcontainers import SortedDict

from comity_server.errors import CheckpointNotFound, Compacted, RevisionInFuture
from comity_server.limits import Limits, Retention
from comity_server.model import (
    Checkpoint,
    Commit,
    Event,
    NamespaceInfo,
    Page,
    Position,
    Provenance,
    Read,
    ReadAll,
    Ref,
)
from comity_server.record import KEY, LEASE_ID, MOD_REVISION, VERSION, Record, shown_size, without_value
from comity_server.stores.memory.leases import Leases
from comity_server.stores.memory.log import Log, PackedEvent, history_bytes, pack
from comity_server.stores.memory.origins import Origins
from comity_server.stores.memory.pins import NOTHING, Totals
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.versions import Versions
from comity_server.turns import STEPS, Pace, turn

LOOKED_AT = 5_000  # keys that one page may look at, so that no read holds up others for long
_COLLECTED = 2_000  # events that one step of a compaction looks at
_LOOKED_THROUGH = 20_000  # events that retention looks at in one go
_APPLIED = 250  # events that are applied in one go
_FREED = 2_000  # keys that are freed in one go


class Parent(NamedTuple):
    """What a namespace was forked from, and at which of its revisions."""

    namespace: "Namespace"
    revision: int
    hold: str = ""  # by which the parent knows the fork, where that may be in another process: see `heirs`


class Held(NamedTuple):
    """A revision that a fork holds, and how much there is at it."""

    revision: int
    totals: Totals


class Collected(NamedTuple):
    """What a step of a compaction did. The log began after `since` and begins after `base` now.

    It dropped versions, and commits of which nothing is left. Of the commits that were in the log it kept versions, and
    what those said that wrote any. Or it was `late`: then it dropped what the log has no more.
    """

    versions: Sequence[Record]
    commits: Sequence[int]
    since: int
    base: int
    kept: Sequence[Record] = ()
    origins: Sequence[tuple[int, Provenance]] = ()
    late: bool = False


class Namespace:
    """State from the floor on and at pinned revisions, commits after the floor.

    `id` tells it from all others of the store, also from those that had its name before.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        epoch: str,
        *,
        id: int = 0,
        revision: int = 0,
        time: int = 0,
        parent: Parent | None = None,
        totals: Totals = NOTHING,
    ) -> None:
        self.id = id
        self.name = name
        self.epoch = epoch
        self.revision = revision
        self.floor = revision
        self.create_time = 0
        self.time = time
        self.parent = parent
        self.parent_name = parent.namespace.name if parent else ""
        self.depth: int = parent.namespace.depth + 1 if parent else 0
        self.forks = 0  # how many namespaces share the versions of this one
        self.heirs: dict[str, Held] = {}  # by the holds of forks, which may not be in this process
        self.deleted = False
        self.replaced = False  # by one that was loaded anew, so that nothing but forks asks for it
        self.given_up = False  # it shares nothing with its parent any more
        self.dismantled = False
        base = parent.namespace.versions if parent else None
        self.versions: Versions = Versions(base, parent.revision if parent else 0, totals)
        self.log = Log(revision, totals)
        self.origins = Origins()
        self.checkpoints: SortedDict[str, Checkpoint] = SortedDict()
        self.leases = Leases()
        self.requests = Requests(limits)
        self._applying_after: Totals | None = None  # while commits are applied: how much there was before
        self._through = 0  # how many events of the oldest commit a compaction has seen to
        self._kept = 0  # and how many of their entries are kept
        self.owed: Collected | None = None  # what was dropped, and is not known to be dropped elsewhere yet
        self.quiet = asyncio.Lock()  # whoever holds it keeps compaction from dropping anything

    async def apply(self, commits: Sequence[Commit]) -> None:
        """Add what comes next in the log, whose leases are granted already. Until all is there, reads see what was."""
        if not self.create_time:
            self.create_time = commits[0].time
        self._applying_after = self._count()
        versions = self.versions
        made: list[tuple[list[PackedEvent], Totals]] = []
        pace = Pace()
        for commit in commits:
            packed: list[PackedEvent] = []
            events = commit.events
            for start in range(0, len(events), _APPLIED):
                if start:
                    await pace.step(STEPS)
                part = events[start : start + _APPLIED]
                for event in part:
                    versions.apply(event)
                    entry, previous, _ = event
                    if entry[LEASE_ID] or (previous is not None and previous[LEASE_ID]):
                        self.leases.index(event)
                packed += pack(part)
            made.append((packed, Totals(versions.key_count, versions.live_bytes)))
        for commit, (packed, totals) in zip(commits, made, strict=True):
            self.log.append(commit, packed, totals)
        self.revision = commits[-1].revision
        self.time = commits[-1].time
        self._applying_after = None

    def _count(self) -> Totals:
        """How much there is at the newest revision."""
        return self._applying_after or Totals(self.versions.key_count, self.versions.live_bytes)

    def pin(self, revision: int, totals: Totals | None = None) -> None:
        """Keep a revision readable until it is released as often as it was pinned."""
        self.versions.pins.add(revision, totals)

    def release(self, revision: int) -> None:
        self.versions.stale |= self.versions.pins.release(revision)

    def add_heir(self, hold: str, held: "Held") -> None:
        """A fork, wherever it is, holds a revision."""
        if hold not in self.heirs:
            self.pin(held.revision, held.totals)
            self.heirs[hold] = held

    def drop_heir(self, hold: str) -> None:
        held = self.heirs.pop(hold, None)
        if held is not None:
            self.release(held.revision)

    def set_checkpoint(self, name: str, checkpoint: Checkpoint | None) -> None:
        """Add a checkpoint, whose revision is pinned for it already, or drop one."""
        gone = self.checkpoints.pop(name, None)
        if gone is not None:
            self.release(gone.revision)
        if checkpoint is not None:
            self.checkpoints[name] = checkpoint

    def checkpoint(self, name: str) -> Checkpoint:
        """Raises CheckpointNotFound."""
        found = self.checkpoints.get(name)
        if found is None:
            raise CheckpointNotFound(name, self.name)
        return found

    def resolve(self, ref: Ref) -> int:
        """The revision that is meant. Raises CheckpointNotFound, Compacted, RevisionInFuture."""
        if isinstance(ref, str):
            return self.checkpoint(ref).revision
        if ref == 0 and self.floor:
            raise Compacted(0, self.floor, self.revision)
        return 0 if ref == 0 else self.readable(ref or 0)

    def totals(self, revision: int) -> Totals:
        """How much there is at a readable revision."""
        return self.versions.pins.totals(revision) or self.log.totals(revision)

    def provenance(self, revision: int) -> Provenance | None:
        """What the commit of a revision said of itself, if anything that it wrote can still be read."""
        if self.parent is not None and revision <= self.parent.revision:
            return self.parent.namespace.provenance(revision)
        for commit in self.log.between(revision, revision):
            return Provenance(commit.author, commit.message, commit.trace_parent)
        return self.origins.get(revision)

    @property
    def history_bytes(self) -> int:
        return self.versions.older_bytes + self.log.size_bytes

    def position(self) -> Position:
        return Position(self.revision, self.floor, self.epoch)

    def info(self) -> NamespaceInfo:
        keys, size_bytes = self._count()
        return NamespaceInfo(
            name=self.name,
            revision=self.revision,
            floor=self.floor,
            key_count=keys,
            size_bytes=size_bytes,
            commit_count=self.revision - self.floor,
            history_size_bytes=self.history_bytes,
            create_time=self.create_time,
            update_time=self.time,
            epoch=self.epoch,
            parent=self.parent_name,
            fork_revision=self.parent.revision if self.parent else 0,
            lease_count=len(self.leases),
        )

    def get(self, key: str, revision: int) -> Read:
        revision = self.readable(revision)
        return Read(self.versions.live_at(key, revision), revision, self.epoch)

    def get_all(self, keys: Sequence[str], revision: int) -> ReadAll:
        revision = self.readable(revision)
        live_at = self.versions.live_at
        return ReadAll([live_at(key, revision) for key in keys], revision)

    def list(self, prefix: str, after: str, limit: int, max_bytes: int, keys_only: bool, revision: int) -> Page:
        revision = self.readable(revision)
        versions = self.versions
        newest = revision == self.revision and self._applying_after is None
        keys = versions.candidates if newest else versions.known_keys
        entries: list[Record] = []
        total = 0
        last = after
        most = self.looked_at
        for looked_at, key in enumerate(keys(prefix, after)):
            if len(entries) >= limit or looked_at >= most:
                return Page(entries, revision, last, self.epoch)
            entry = versions.live_at(key, revision)
            if entry is not None:
                if keys_only:
                    entry = without_value(entry)
                total += shown_size(entry)
                if total > max_bytes and entries:
                    return Page(entries, revision, last, self.epoch)
                entries.append(entry)
            last = key
        return Page(entries, revision, None, self.epoch)

    def commits(self, first: int, last: int, limit: int, newest_first: bool) -> Sequence[Commit]:
        if first <= self.floor:
            raise Compacted(first, self.floor, self.revision)
        last = min(last, self.revision)
        if newest_first:
            return self.log.between(max(first, last - limit + 1), last)[::-1]
        return self.log.between(first, min(last, first + limit - 1))

    async def dismantle(self) -> None:
        """Free what a deleted namespace held, a little at a time: all in one go it would hold up others for long."""
        async with self.quiet:
            self.dismantled = True
            more = True
            while more:
                async with turn():
                    more = self.log.drop_newest() or self.versions.drop_some(_FREED)

    def check_floor(self, floor: int) -> int:
        """The floor that a wish for one (0: the newest revision) comes to. Raises RevisionInFuture."""
        if floor > self.revision:
            raise RevisionInFuture(floor, self.floor, self.revision)
        return max(self.floor, floor or self.revision)

    def collect(self) -> Collected | None:
        """Drop a little of what lies below the floor and is not pinned. None: there is nothing left to drop."""
        if self.dismantled:
            return None
        if self.log.base < self.floor:
            return self._collect_log()
        if self.versions.stale:
            return self._collect_stale()
        return None

    def _collect_log(self) -> Collected:
        since = self.log.base
        (oldest,) = self.log.between(since + 1, since + 1)
        if len(oldest.events) > self._step_events:
            return self._collect_part(oldest)
        last = self._step(self.floor)
        commits = self.log.between(since + 1, last)
        dropped: list[Record] = []
        for key in {event.entry[KEY]: None for commit in commits for event in commit.events}:
            dropped += self.versions.forget(key, last)
        gone = self.origins.drop(dropped)
        kept: list[Record] = []
        origins: list[tuple[int, Provenance]] = []
        for commit in commits:
            records = self._kept_of(commit.events)
            kept += records
            if said := self.origins.keep(commit, sum(1 for record in records if record[VERSION])):
                origins.append((commit.revision, said))
            else:
                gone.append(commit.revision)
        self.log.trim(last)
        return Collected(dropped, gone, since, last, kept, origins)

    def _collect_part(self, commit: Commit) -> Collected:
        """Some events of a large commit. It leaves the log when all of them are through."""
        events = commit.events[self._through : self._through + self._step_events]
        dropped: list[Record] = []
        for event in events:
            dropped += self.versions.forget(event.entry[KEY], commit.revision)
        gone = self.origins.drop(dropped)
        kept = self._kept_of(events)
        self._through += len(events)
        self._kept += sum(1 for record in kept if record[VERSION])
        since = self.log.base
        if self._through < len(commit.events):
            return Collected(dropped, gone, since, since, kept)
        origins: list[tuple[int, Provenance]] = []
        if said := self.origins.keep(commit, self._kept):
            origins.append((commit.revision, said))
        else:
            gone.append(commit.revision)
        self._through = self._kept = 0
        self.log.trim(commit.revision)
        return Collected(dropped, gone, since, commit.revision, kept, origins)

    def _collect_stale(self) -> Collected:
        dropped: list[Record] = []
        for _ in range(min(self._step_events, len(self.versions.stale))):
            dropped += self.versions.forget(self.versions.stale.pop(), self.floor)
        return Collected(dropped, self.origins.drop(dropped), self.log.base, self.log.base, late=True)

    def _kept_of(self, events: Sequence[Event]) -> Sequence[Record]:
        """The entries of some events that are kept."""
        at = self.versions.at
        return [entry for entry, _, _ in events if at(entry[KEY], entry[MOD_REVISION]) is entry]

    def due(self, retention: Retention, time: int) -> tuple[int, bool]:
        """The floor that a retention asks for at a time (µs), and whether it may ask for more when that is done: what
        there is to look at is looked at a part at a time."""
        floor = max(
            self.floor, self.revision - retention.commits, self.log.newest_before(time - int(retention.age * 1e6))
        )
        # What is kept for pins would not go with the floor.
        bytes_kept = self.history_bytes - self.versions.held_bytes
        excess = bytes_kept - retention.history_bytes
        looked_at = 0
        for commit in self.log.oldest_first():
            if excess <= 0:
                break
            if looked_at > _LOOKED_THROUGH:
                return floor, True
            looked_at += len(commit.events)
            excess -= history_bytes(commit)
            floor = max(floor, commit.revision)
        return floor, False

    def can_read(self, revision: int) -> bool:
        return self.floor <= revision <= self.revision or revision in self.versions.pins

    def readable(self, revision: int) -> int:
        """The revision (0: the newest), if it can be read. Raises Compacted or RevisionInFuture."""
        if revision > self.revision:
            raise RevisionInFuture(revision, self.floor, self.revision)
        if 0 < revision < self.floor and revision not in self.versions.pins:
            raise Compacted(revision, self.floor, self.revision)
        return revision or self.revision

    @property
    def looked_at(self) -> int:
        """How many keys one page may look at: fewer in a fork of forks, where each is looked for in all of them."""
        return LOOKED_AT // (1 + self.depth)

    @property
    def _step_events(self) -> int:
        """How many events one step of a compaction looks at: fewer in a fork of forks, where each costs more."""
        return _COLLECTED // (1 + self.depth)

    def _step(self, floor: int) -> int:
        """How far a compaction goes in one step: past some commits, the first of which is not a large one."""
        events = 0
        last = self.log.base
        for commit in self.log.oldest_first():
            events += max(1, len(commit.events))
            if last > self.log.base and events > self._step_events:
                break
            last = commit.revision
            if last == floor:
                break
        return last
