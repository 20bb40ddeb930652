"""The commits of a namespace, from the one after the floor to the newest."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, overload

from comity_server.model import Cause, Commit, Event
from comity_server.record import Record

_COMMIT_BYTES = 64  # what a commit counts for, beside its texts
_DROPPED = 100  # commits that are freed in one go
_EVENT_BYTES = 64  # what an event counts for: its entries count as versions

_Packed = tuple[Any, ...]  # a commit, with its events packed
PackedEvent = tuple[Record, Record | None, int]
_time = itemgetter(1)


class Log:
    """A list with a base offset: revision R is at R - base - 1.

    What is in it are plain tuples, which the garbage collector stops tracking; of named ones it would look through all,
    over and over.
    """

    def __init__(self, base: int) -> None:
        self._base = base
        self._commits: list[_Packed] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._commits)

    @property
    def base(self) -> int:
        """The revision before the first commit that is kept."""
        return self._base

    def append(self, commit: Commit, events: Sequence[PackedEvent]) -> None:
        """Add a commit, whose events are packed already: of a large one that takes long."""
        self._commits.append((*commit[:-1], tuple(events)))
        self.size_bytes += size(commit)

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
        self.size_bytes -= sum(size(_unpack(packed)) for packed in self._commits[:dropped])
        del self._commits[:dropped]
        self._base += dropped


def size(commit: Commit) -> int:
    """What a commit counts for in the history's size, in bytes."""
    return (
        _COMMIT_BYTES
        + len(commit.author)
        + len(commit.message)
        + len(commit.trace_parent)
        + _EVENT_BYTES * len(commit.events)
    )


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
    revision, time, author, message, trace_parent, events = packed
    return Commit(revision, time, author, message, trace_parent, _Events(events))


_CAUSES = {int(cause): cause for cause in Cause}
