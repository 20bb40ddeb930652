"""The commits of a namespace, from the one after the floor to the newest."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, overload

from comity_server.model import Cause, Commit, Event
from comity_server.record import VERSION, Record
from comity_server.record import size as record_size
from comity_server.stores.memory.pins import Totals
from comity_server.turns import Pace

_COMMIT_BYTES = 64  # what a commit counts for, beside its texts
_DROPPED = 100  # commits that are freed in one go
_EVENT_BYTES = 64  # what an event counts for: its entries count as versions

_Packed = tuple[Any, ...]  # a commit with its events packed, and how much there is after it
PackedEvent = tuple[Record, Record | None, int]
_time = itemgetter(1)


class Log:
    """A list with a base offset: revision R is at R - base - 1.

    What is in it are plain tuples, which the garbage collector stops tracking; of named ones it would look through all,
    over and over.
    """

    def __init__(self, base: int, totals: Totals) -> None:
        self._base = base
        self._base_totals = totals
        self._commits: list[_Packed] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._commits)

    @property
    def base(self) -> int:
        """The revision before the first commit that is kept."""
        return self._base

    def append(self, commit: Commit, events: Sequence[PackedEvent], totals: Totals) -> None:
        """Add a commit, whose events are packed already, since of a large one that takes long; with how much there is
        after it."""
        self._commits.append((*commit[:-1], tuple(events), *totals))
        self.size_bytes += size(commit)

    def load(self, commits: Sequence[Commit], totals: Totals) -> None:
        """Begin with some commits, given how much there is after the last of them."""
        for _ in self._load(commits, totals):
            pass

    async def load_paced(self, commits: Sequence[Commit], totals: Totals, pace: Pace) -> None:
        """The same, a little at a time."""
        for events in self._load(commits, totals):
            await pace.step(events)

    def _load(self, commits: Sequence[Commit], totals: Totals) -> Iterator[int]:
        """Yields how many events each step has looked at."""
        after = []
        for commit in reversed(commits):
            after.append(totals)
            totals = totals_before(totals, commit)
            yield 1 + len(commit.events)
        self._base_totals = totals
        for commit, totals in zip(commits, reversed(after), strict=True):
            self.append(commit, pack(commit.events), totals)
            yield 1 + len(commit.events)

    def totals(self, revision: int) -> Totals:
        """How much there is at a revision from the base on."""
        if revision == self._base:
            return self._base_totals
        return Totals(*self._commits[revision - self._base - 1][-2:])

    def between(self, first: int, last: int) -> Sequence[Commit]:
        """The commits from one revision to another, whichever of these are kept."""
        return list(map(_unpack, self._commits[max(0, first - self._base - 1) : max(0, last - self._base)]))

    def oldest_first(self) -> Iterator[Commit]:
        """All commits, for whoever needs but a few of them: each is made as it is asked for."""
        return map(_unpack, self._commits)

    def newest_before(self, time: int) -> int:
        """The newest revision that is older than a time."""
        return self._base + bisect_left(self._commits, time, key=_time)

    def drop_newest(self) -> bool:
        """Free the newest commits, and say whether there were any. To be used by whoever lets go of the log."""
        there_were = bool(self._commits)
        del self._commits[-_DROPPED:]
        return there_were

    def trim(self, base: int) -> None:
        """Drop the commits up to a revision."""
        dropped = max(0, base - self._base)
        self._base_totals = self.totals(max(base, self._base))
        self.size_bytes -= sum(size(_unpack(packed)) for packed in self._commits[:dropped])
        del self._commits[:dropped]
        self._base += dropped


def totals_before(totals: Totals, commit: Commit) -> Totals:
    """How much there was before a commit, given how much there is after it."""
    keys, size_bytes = totals
    for entry, previous, _ in commit.events:
        keys += (previous is not None) - (entry[VERSION] > 0)
        size_bytes += (record_size(previous) if previous else 0) - (record_size(entry) if entry[VERSION] else 0)
    return Totals(keys, size_bytes)


def size(commit: Commit) -> int:
    """What a commit counts for in the history's size, in bytes."""
    return (
        _COMMIT_BYTES
        + len(commit.author)
        + len(commit.message)
        + len(commit.trace_parent)
        + _EVENT_BYTES * len(commit.events)
    )


def history_bytes(commit: Commit) -> int:
    """What a commit adds to the history's size, in bytes: itself, and the versions that it leaves behind."""
    total = size(commit)
    for entry, previous, _ in commit.events:
        total += record_size(previous) if previous else 0
        total += 0 if entry[VERSION] else record_size(entry)
    return total


class _Events(Sequence[Event]):
    """The events of a commit, each made when it is looked at: of a large commit most readers look at a part."""

    __slots__ = ("_packed",)

    def __init__(self, packed: Sequence[PackedEvent]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        found = self._packed[place]
        return _Events(found) if isinstance(place, slice) else _event(found)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Event]:
        return map(_event, self._packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _event(packed: PackedEvent) -> Event:
    entry, previous, cause = packed
    return Event(entry, previous, _CAUSES[cause])


def pack(events: Sequence[Event]) -> list[PackedEvent]:
    return [(entry, previous, int(cause)) for entry, previous, cause in events]


def _unpack(packed: _Packed) -> Commit:
    revision, time, author, message, trace_parent, events, _, _ = packed
    return Commit(revision, time, author, message, trace_parent, _Events(events))


_CAUSES = {int(cause): cause for cause in Cause}
