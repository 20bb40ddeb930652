"""What several watchers look at alike, and the way of commits to it.

A Topic keeps the newest matching commits in memory, serialised once for all who read it, and is bounded: a reader that
falls behind reads from the store until it has caught up. A commit wakes only the topics that it concerns, found by its
keys and by its keys cut to each length of a watched prefix.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from comity_server.model import Commit, Event, events_within
from comity_server.record import KEY, size

TOPIC_COMMITS: Final = 1024
TOPIC_BYTES: Final = 1024 * 1024
RECENT_BYTES: Final = 16 * 1024 * 1024  # of parts of large commits, kept for others who come to them soon
STEP: Final = 20_000  # events to look at in one go, each once for its key and once for each length of a watched prefix

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


class Reader(Protocol):
    """Who reads a topic."""

    revision: int
    """Everything up to it was read."""


class Piece:
    """A commit as one topic shows it. Of a large one the size is what it comes to at least."""

    __slots__ = ("__weakref__", "_whole", "commit", "events", "size")

    def __init__(self, commit: Commit, events: Sequence[Event]) -> None:
        self.commit = commit
        self.events = events
        self.size = 0
        for event in events:
            self.size += size(event.entry) + (size(event.previous) if event.previous else 0)
            if self.size > TOPIC_BYTES:
                break
        self._whole: bytes | None = None

    def fragment(self, encode: Encode, start: int, previous: bool) -> tuple[bytes, int]:
        """Serialised from one event on, and where that ends. Kept for others if it is the whole, which is not large."""
        if self._whole is not None:
            return self._whole, len(self.events)
        fragment, end = encode(self.commit, self.events, start, previous)
        if not start and end == len(self.events):
            self._whole = fragment
        return fragment, end


class Recent:
    """What readers of one topic share of large commits, which the topic cannot keep, where they read them together."""

    def __init__(self) -> None:
        self._pieces: WeakValueDictionary[tuple[Topic, int], Piece] = WeakValueDictionary()
        self._parts: dict[tuple[Topic, int, int], tuple[bytes, int]] = {}
        self._size = 0

    def piece(self, topic: "Topic", commit: Commit) -> Piece:
        """The commit as the topic shows it: the same as long as somebody has a part of it to read."""
        place = (topic, commit.revision)
        piece = self._pieces.get(place)
        if piece is None:
            interest = topic.interest
            events = events_within(commit, interest.target, interest.is_prefix)
            piece = self._pieces[place] = Piece(commit, interest.select(events))
        return piece

    def fragment(self, encode: Encode, topic: "Topic", piece: Piece, start: int) -> tuple[bytes, int]:
        """A part of a commit: made once for all who come to it soon."""
        place = (topic, piece.commit.revision, start)
        part = self._parts.get(place)
        if part is not None:
            return part
        part = piece.fragment(encode, start, topic.interest.previous)
        if start or part[1] < len(piece.events):
            self._parts[place] = part
            self._size += len(part[0])
            while self._size > RECENT_BYTES:
                oldest = self._parts.pop(next(iter(self._parts)))
                self._size -= len(oldest[0])
        return part


class Topic:
    """The newest commits of one interest: all that there are after revision `since`."""

    def __init__(self, interest: Interest, since: int) -> None:
        self.interest = interest
        self.since = since
        self.pieces: deque[Piece] = deque()
        self.readers: set[Reader] = set()
        self.waiting: set[asyncio.Future[None]] = set()
        self._size = 0
        self._reads = 0

    def publish(self, commit: Commit, events: Sequence[Event]) -> None:
        events = self.interest.select(events)
        if not events or commit.revision <= self.since:  # of what was begun before it came, it may have a part only
            return
        piece = Piece(commit, events)
        self.pieces.append(piece)
        self._size += piece.size
        while len(self.pieces) > TOPIC_COMMITS or self._size > TOPIC_BYTES:
            self._drop()
        self.wake()

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()

    def after(self, revision: int) -> Iterable[Piece]:
        if not self.pieces or self.pieces[-1].commit.revision <= revision:
            return ()
        newest_first = takewhile(lambda piece: piece.commit.revision > revision, reversed(self.pieces))
        return reversed(list(newest_first))

    def note_read(self) -> None:
        """Drop what every reader has read, now and then."""
        self._reads += 1
        if self._reads < len(self.readers):
            return
        self._reads = 0
        read = min((reader.revision for reader in self.readers), default=self.since)
        while self.pieces and self.pieces[0].commit.revision <= read:
            self._drop()

    def _drop(self) -> None:
        piece = self.pieces.popleft()
        self._size -= piece.size
        self.since = piece.commit.revision


class Followed:
    """A namespace that is watched, and its topics. Implements `stores.protocol.Listener`."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.revision = 0  # up to which the topics have everything
        self.generation = 0  # one more when the history ends, as by the deletion of the namespace
        self.users = 0
        self.following = False
        self.lock = asyncio.Lock()
        self.topics: dict[Interest, Topic] = {}
        self._heard = 0  # the revision of the last commit that was published
        self._unsorted: deque[Commit] = deque()
        self._sorting: Iterator[bool] | None = None
        self._by_key: dict[str, list[Topic]] = {}
        self._by_prefix: dict[int, dict[str, list[Topic]]] = {}  # by the prefix's length, then by the prefix

    def begin(self, revision: int) -> None:
        """What follows a revision will be published. Some of it may have been."""
        self._heard = max(self._heard, revision)
        if not self._unsorted and self._sorting is None:
            self.revision = self._heard

    def publish(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            if commit.revision > self._heard:
                self._heard = commit.revision
                self._unsorted.append(commit)
        if self._sorting is None:
            self._sorting = self._sort()
            self._step(self._sorting)

    def _step(self, sorting: Iterator[bool]) -> None:
        if sorting is not self._sorting:  # of a history that ended
            return
        if next(sorting, False):
            asyncio.get_running_loop().call_soon(self._step, sorting)
        else:
            self._sorting = None

    def _sort(self) -> Iterator[bool]:
        """Hand each commit to the topics that it concerns. Yields after each step but the last."""
        looked = 0
        while self._unsorted:
            commit = self._unsorted.popleft()
            concerned: dict[Topic, list[Event]] = {}
            for event in commit.events:
                key = event.entry[KEY]
                for topic in self._by_key.get(key, ()):
                    concerned.setdefault(topic, []).append(event)
                for length, by_prefix in self._by_prefix.items():
                    for topic in by_prefix.get(key[:length], ()):
                        concerned.setdefault(topic, []).append(event)
                looked += 1 + len(self._by_prefix)
                if looked > STEP:
                    looked = 0
                    yield True
            for topic, events in concerned.items():
                topic.publish(commit, events)
                looked += len(events)
                if looked > STEP:
                    looked = 0
                    yield True
            self.revision = commit.revision
        self.revision = self._heard

    def reset(self) -> None:
        self.generation += 1
        self.revision = self._heard = 0
        self._unsorted.clear()
        self._sorting = None
        topics, self.topics = self.topics, {}
        self._by_key = {}
        self._by_prefix = {}
        for topic in topics.values():
            topic.wake()

    def join(self, interest: Interest, revision: int) -> Topic:
        """The topic of an interest. One that is new has all that follows a revision, which is published or will be."""
        topic = self.topics.get(interest)
        if topic is None:
            topic = self.topics[interest] = Topic(interest, max(revision, self._heard))
            self._listed(interest).setdefault(interest.target, []).append(topic)
        return topic

    def leave(self, topic: Topic) -> None:
        """Forget a topic that nobody reads."""
        if self.topics.get(topic.interest) is not topic:  # of a history that ended
            return
        target = topic.interest.target
        del self.topics[topic.interest]
        listed = self._listed(topic.interest)
        listed[target].remove(topic)
        if not listed[target]:
            del listed[target]
        if topic.interest.is_prefix and not listed:
            del self._by_prefix[len(target)]

    def _listed(self, interest: Interest) -> dict[str, list[Topic]]:
        return self._by_prefix.setdefault(len(interest.target), {}) if interest.is_prefix else self._by_key
