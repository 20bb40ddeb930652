"""Commits as topics show them: pieces, each serialised once for all who read it.

Topics that show the same of a commit share one piece of it. One of a few events has a list of them; one of many has
their places in the commit. So what watchers keep in memory does not grow with their number times that of the events.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from comity_server.model import Commit, Event, events_within
from comity_server.runs import Runs, Selection, event_bytes, find_runs, of_kind
from comity_server.turns import Pace

LARGE: Final = 1_000  # events, above which they are not listed
RECENT_BYTES: Final = 16 * 1024 * 1024  # of parts of large commits, kept for others who come to them soon
SIZE_BYTES: Final = 1024 * 1024  # of a list of events, beyond which it is not looked how large it is

Encode = Callable[[Commit, Sequence[Event], int, bool], tuple[bytes, int]]
"""encode(commit, events, start, previous): some of a commit's events, from one of them on, as a part of a message that
may be joined to others; and the place where the part ends."""


class Interest(NamedTuple):
    """What a watcher looks at."""

    target: str
    is_prefix: bool
    puts: bool = True
    deletes: bool = True
    previous: bool = False

    def select(self, events: Iterable[Event]) -> Sequence[Event]:
        """The events of the types asked for."""
        if self.puts and self.deletes:
            return tuple(events)
        return tuple(event for event in events if event.is_delete == self.deletes)


class Piece:
    """What is shown of a commit.

    Args:
        commit: without its events where these are not all that is shown, since they would be kept in memory.
        events: what is shown.
        size: of them, in bytes; of large ones what it comes to at least.
        kept: how many bytes are kept in memory for it.
        of: a large commit whose places it has: as long as it is there, others need not look at the whole again.
        place: what tells it from others that are read from the store.
    """

    __slots__ = ("__weakref__", "_of", "commit", "events", "kept", "place", "size", "whole")

    def __init__(
        self,
        commit: Commit,
        events: Sequence[Event],
        size: int,
        kept: int,
        of: "Large | None" = None,
        place: Hashable = None,
    ) -> None:
        self.commit = commit
        self.events = events
        self.size = size
        self.kept = kept
        self.place = place
        self._of = of
        self.whole: bytes | None = None
        """Serialised, once it was, and if that is one part."""


class Small:
    """A commit whose events are looked at one by one."""

    __slots__ = ("_commit", "_wholes")

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._wholes: dict[bool, Piece] = {}  # by whether previous entries are shown

    def piece(self, interest: Interest, events: Iterable[Event]) -> Piece | None:
        """What an interest shows of some events, if anything."""
        selected = interest.select(events)
        if not selected:
            return None
        commit = self._commit
        if len(selected) < len(commit.events):
            size = _size(selected)
            return Piece(without_events(commit), selected, size, size)
        piece = self._wholes.get(interest.previous)
        if piece is None:
            size = _size(selected)
            piece = self._wholes[interest.previous] = Piece(commit, selected, size, size)
        return piece


class Large:
    """A commit of many events, which are looked at once for all interests. Pieces of it may be read again later.

    Args:
        history: which it is of.
        commit: the commit.
    """

    def __init__(self, history: object, commit: Commit) -> None:
        self._commit = commit
        self._place = (history, commit.revision)
        self._runs: dict[tuple[bool, bool], Runs] = {}  # by whether puts, and deletes, are among them
        self._finding = asyncio.Lock()
        self._pieces: WeakValueDictionary[Hashable, Piece] = WeakValueDictionary()

    async def piece(self, interest: Interest, pace: Pace) -> Piece | None:
        """What an interest shows of it, if anything."""
        target, is_prefix, puts, deletes, previous = interest
        runs = await self.runs(pace, puts=puts, deletes=deletes)
        parts = tuple(await runs.within(target, is_prefix, pace))
        if not parts:
            return None
        place = (self._place, puts, deletes, previous, parts)
        piece = self._pieces.get(place)
        if piece is None:
            piece = self._pieces[place] = self._piece(runs, parts, place)
        return piece

    async def runs(self, pace: Pace, *, puts: bool = True, deletes: bool = True) -> Runs:
        """All events, or those of one kind."""
        kind = (puts, deletes)
        if kind not in self._runs:
            async with self._finding:
                if kind not in self._runs:
                    events = self._commit.events
                    if not (puts and deletes):
                        events = await of_kind(events, deletes, pace)
                    self._runs[kind] = await find_runs(events, pace)
        return self._runs[kind]

    def _piece(self, runs: Runs, parts: Sequence[range], place: Hashable) -> Piece:
        size = runs.size(parts)
        events: Sequence[Event] = Selection(runs.events, parts)
        if len(events) <= LARGE:
            return Piece(without_events(self._commit), list(events), size, size, place=place)
        if len(events) == len(runs.events):
            events = runs.events
        kept = runs.size([range(len(runs.events))])
        return Piece(self._commit, events, size, kept, self, place)


class Recent:
    """What readers share of commits that their topics do not have, where they read them together."""

    def __init__(self) -> None:
        self._pieces: WeakValueDictionary[Hashable, Piece] = WeakValueDictionary()
        self._large: WeakValueDictionary[Hashable, Large] = WeakValueDictionary()
        self._parts: dict[Hashable, tuple[bytes, int]] = {}
        self._size = 0

    def small(self, history: object, commit: Commit, interest: Interest) -> Piece | None:
        """What an interest shows of a commit of a few events."""
        place = (history, commit.revision, interest)
        piece = self._pieces.get(place)
        if piece is None:
            events = events_within(commit, interest.target, interest.is_prefix)
            piece = Small(commit).piece(interest, events)
            if piece is not None:
                piece.place = place
                self._pieces[place] = piece
        return piece

    async def large(self, history: object, commit: Commit, interest: Interest, pace: Pace) -> Piece | None:
        """What an interest shows of one of many events."""
        place = (history, commit.revision)
        large = self._large.get(place)
        if large is None:
            large = self._large[place] = Large(history, commit)
        return await large.piece(interest, pace)

    def fragment(self, encode: Encode, piece: Piece, start: int, *, previous: bool) -> tuple[bytes, int]:
        """Serialise a piece, from one event on, and say where that ends. What is made is kept for others: with the
        piece if it is all of that, else for a while."""
        if piece.whole is not None:
            return piece.whole, len(piece.events)
        place = (piece.place, start)
        part = self._parts.get(place) if start or piece.place is not None else None
        if part is not None:
            return part
        part = encode(piece.commit, piece.events, start, previous)
        fragment, end = part
        if not start and end == len(piece.events):
            piece.whole = fragment
        else:
            if piece.place is None:
                piece.place = object()
            self._parts[piece.place, start] = part
            self._size += len(fragment)
            while self._size > RECENT_BYTES:
                oldest, _ = self._parts.pop(next(iter(self._parts)))
                self._size -= len(oldest)
        return part


def without_events(commit: Commit) -> Commit:
    revision, time, author, message, trace_parent, _ = commit
    return Commit(revision, time, author, message, trace_parent, ())


def _size(events: Sequence[Event]) -> int:
    total = 0
    for event in events:
        total += event_bytes(event)
        if total > SIZE_BYTES:
            break
    return total
