"""One namespace in memory: its versions, its log, the outcomes it remembers, and where it stands."""

import asyncio
from collections.abc import Sequence

from comity_server.errors import Compacted, RevisionInFuture
from comity_server.limits import Limits, Retention
from comity_server.model import Commit, NamespaceInfo, Page, Position, Read
from comity_server.record import KEY, VERSION, Record, shown_size, size, without_value
from comity_server.stores.memory.log import Log
from comity_server.stores.memory.log import size as commit_size
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.versions import Versions

_LOOKED_AT = 5_000  # keys that one page may look at, so that no read holds up others for long
_COLLECTED = 2_000  # events that one step of a compaction looks at


class Namespace:
    """State from the floor on, commits after it. Everything but compaction happens in one go."""

    def __init__(self, name: str, limits: Limits, epoch: str, revision: int = 0, time: int = 0) -> None:
        self.name = name
        self.epoch = epoch
        self.revision = revision
        self.floor = revision
        self.create_time = 0
        self.time = time
        self.versions = Versions()
        self.log = Log(revision)
        self.requests = Requests(limits)
        self._collecting = asyncio.Lock()

    def apply(self, commits: Sequence[Commit]) -> None:
        """Add what comes next in the log."""
        if not self.create_time:
            self.create_time = commits[0].time
        for commit in commits:
            for event in commit.events:
                self.versions.apply(event)
            self.log.append(commit)
        self.revision = commits[-1].revision
        self.time = commits[-1].time

    def position(self) -> Position:
        return Position(self.revision, self.floor, self.epoch)

    def info(self) -> NamespaceInfo:
        return NamespaceInfo(
            name=self.name,
            revision=self.revision,
            floor=self.floor,
            key_count=len(self.versions),
            size_bytes=self.versions.live_bytes,
            commit_count=self.revision - self.floor,
            history_size_bytes=self.versions.older_bytes + self.log.size_bytes,
            create_time=self.create_time,
            update_time=self.time,
            epoch=self.epoch,
        )

    def get(self, key: str, revision: int) -> Read:
        revision = self._readable(revision)
        entry = self.versions.at(key, revision)
        return Read(entry if entry and entry[VERSION] else None, revision)

    def list(self, prefix: str, after: str, limit: int, max_bytes: int, keys_only: bool, revision: int) -> Page:
        revision = self._readable(revision)
        versions = self.versions
        keys = versions.live_keys if revision == self.revision else versions.known_keys
        entries: list[Record] = []
        total = 0
        last = after
        for looked_at, key in enumerate(keys(prefix, after)):
            if len(entries) >= limit or looked_at >= _LOOKED_AT:
                return Page(entries, revision, last)
            entry = versions.at(key, revision)
            if entry and entry[VERSION]:
                if keys_only:
                    entry = without_value(entry)
                total += shown_size(entry)
                if total > max_bytes and entries:
                    return Page(entries, revision, last)
                entries.append(entry)
            last = key
        return Page(entries, revision, None)

    def commits(self, first: int, last: int, limit: int, newest_first: bool) -> Sequence[Commit]:
        if first <= self.floor:
            raise Compacted(first, self.floor, self.revision)
        last = min(last, self.revision)
        if newest_first:
            return self.log.between(max(first, last - limit + 1), last)[::-1]
        return self.log.between(first, min(last, first + limit - 1))

    def raise_floor(self, floor: int) -> int:
        """Stop showing what lies below a revision (0: the newest). Returns the floor. Raises RevisionInFuture."""
        if floor > self.revision:
            raise RevisionInFuture(floor, self.floor, self.revision)
        self.floor = max(self.floor, floor or self.revision)
        return self.floor

    async def collect(self) -> None:
        """Drop what lies below the floor, a little at a time. What is cut off is taken up by the next one."""
        async with self._collecting:
            while self.log.base < self.floor:
                last = self._step(self.floor)
                for commit in self.log.between(self.log.base + 1, last):
                    for event in commit.events:
                        self.versions.forget(event.entry[KEY], last)
                self.log.trim(last)
                await asyncio.sleep(0)

    def due(self, retention: Retention, time: int) -> int:
        """The floor that a retention asks for at a time (µs)."""
        floor = max(
            self.floor, self.revision - retention.commits, self.log.newest_before(time - int(retention.age * 1e6))
        )
        excess = self.versions.older_bytes + self.log.size_bytes - retention.history_bytes
        for commit in self.log.between(self.log.base + 1, self.revision) if excess > 0 else ():
            if excess <= 0:
                break
            excess -= commit_size(commit)
            for event in commit.events:
                excess -= size(event.previous) if event.previous else 0
                excess -= size(event.entry) if event.is_delete else 0
            floor = max(floor, commit.revision)
        return floor

    def _readable(self, revision: int) -> int:
        if revision > self.revision:
            raise RevisionInFuture(revision, self.floor, self.revision)
        if revision and revision < self.floor:
            raise Compacted(revision, self.floor, self.revision)
        return revision or self.revision

    def _step(self, floor: int) -> int:
        """How far a compaction goes in one step: at least one commit, and not far past so many events."""
        events = 0
        for commit in self.log.between(self.log.base + 1, floor):
            events += len(commit.events)
            if events >= _COLLECTED:
                return commit.revision
        return floor
