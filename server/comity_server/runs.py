"""Finds the events of a commit under a prefix without a look at each, and keeps them without a copy.

A commit has its events in the order of its operations, and those of one operation in the order of their keys. So it is
some runs of ascending keys, mostly one; and what a prefix has of a run is found by bisection, and kept as two numbers.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import lt
from typing import Final, overload

from comity_server.model import Event
from comity_server.record import KEY, size
from comity_server.turns import Pace

STEP: Final = 1_000  # events that are looked at in one go
_BISECTION: Final = 10  # steps that it counts for


def event_bytes(event: Event) -> int:
    """What an event keeps in memory, in bytes."""
    return size(event.entry) + (size(event.previous) if event.previous else 0)


class Selection(Sequence[Event]):
    """Some of a sequence of events: those at some places, one part of them after another."""

    __slots__ = ("_ends", "_events", "_parts")

    def __init__(self, events: Sequence[Event], parts: Sequence[Sequence[int]]) -> None:
        self._events = events
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(place)
        part = bisect_right(self._ends, place)
        return self._events[self._parts[part][place - self._ends[part]]]

    def __iter__(self) -> Iterator[Event]:
        for part in self._parts:
            for place in part:
                yield self._events[place]


class Runs:
    """A sequence of events, with where each run of ascending keys begins, and how many bytes there are before each."""

    def __init__(self, events: Sequence[Event], runs: Sequence[range], before: Sequence[int]) -> None:
        self.events = events
        self._runs = runs
        self._before = before

    def __len__(self) -> int:
        """The number of runs."""
        return len(self._runs)

    async def within(self, target: str, is_prefix: bool, pace: Pace) -> Sequence[range]:
        """The places of those that touch a key or a prefix, in their order."""
        events, found = self.events, []
        length = len(target)

        def cut(event: Event) -> str:
            key = event.entry[KEY]
            return key[:length] if is_prefix else key

        for run in self._runs:
            start = bisect_left(events, target, run.start, run.stop, key=_key)
            end = bisect_right(events, target, start, run.stop, key=cut)
            if start < end:
                found.append(range(start, end))
            await pace.step(_BISECTION)
        return found

    def size(self, parts: Sequence[range]) -> int:
        """How many bytes some of them are."""
        return sum(self._before[part.stop] - self._before[part.start] for part in parts)


async def find_runs(events: Sequence[Event], pace: Pace) -> Runs:
    runs: list[range] = []
    before = array("Q", [0])
    begin, last, total = 0, "", 0
    for start in range(0, len(events), STEP):
        some = events[start : start + STEP]
        keys = [last]
        for event in some:
            keys.append(event.entry[KEY])
            total += event_bytes(event)
            before.append(total)
        last = keys[-1]
        if not all(map(lt, keys, keys[1:])):
            for place in range(1, len(keys)):
                if keys[place] <= keys[place - 1]:
                    runs.append(range(begin, start + place - 1))
                    begin = start + place - 1
        await pace.step(len(some))
    runs.append(range(begin, len(events)))
    return Runs(events, runs, before)


async def of_kind(events: Sequence[Event], deletes: bool, pace: Pace) -> Sequence[Event]:
    """Those that are deletes, or that are puts."""
    places = array("Q")
    for start in range(0, len(events), STEP):
        some = events[start : start + STEP]
        places.extend(place for place, event in enumerate(some, start) if event.is_delete == deletes)
        await pace.step(len(some))
    return events if len(places) == len(events) else Selection(events, [places])


def _key(event: Event) -> str:
    return event.entry[KEY]
