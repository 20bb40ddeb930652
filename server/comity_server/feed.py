"""The way of commits to watchers: each has a cursor in the history, none has a queue.

What several watchers look at alike is a Topic. It keeps the newest matching commits in memory, serialised once for all
of them, and is bounded: a watcher that falls behind reads from the store until it has caught up. So a slow one costs
the server no memory and the others no time. A commit wakes only the topics that it concerns, found by its keys and by
its keys cut to each length of a watched prefix. What takes long is done in steps of some milliseconds, between which
the event loop comes to everything else.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from comity_server.errors import Compacted, Draining, EpochChanged, RevisionInFuture
from comity_server.model import Commit, Event, events_within
from comity_server.record import KEY, size
from comity_server.stores.protocol import Store

TOPIC_COMMITS: Final = 1024
TOPIC_BYTES: Final = 1024 * 1024
RECENT_BYTES: Final = 16 * 1024 * 1024  # of parts of large commits, kept for others who come to them soon
_CHUNK: Final = 256  # commits that a watcher which is behind reads from the store at a time
_STEP: Final = 20_000  # events to look at, each once for its key and once for each length of a watched prefix

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


class Batch(NamedTuple):
    """What a cursor read. Everything up to `revision` was read, so it is safe to resume after it.

    No fragments: there was nothing for a while, and `revision` says how far that is known.
    """

    revision: int
    fragments: Sequence[bytes]


class _Piece:
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


class _Recent:
    """What cursors of one topic share of large commits, which the topic cannot keep, where they read them together."""

    def __init__(self) -> None:
        self._pieces: WeakValueDictionary[tuple[_Topic, int], _Piece] = WeakValueDictionary()
        self._parts: dict[tuple[_Topic, int, int], tuple[bytes, int]] = {}
        self._size = 0

    def piece(self, topic: "_Topic", commit: Commit) -> _Piece:
        """The commit as the topic shows it: the same as long as somebody has a part of it to read."""
        place = (topic, commit.revision)
        piece = self._pieces.get(place)
        if piece is None:
            interest = topic.interest
            events = events_within(commit, interest.target, interest.is_prefix)
            piece = self._pieces[place] = _Piece(commit, interest.select(events))
        return piece

    def fragment(self, encode: Encode, topic: "_Topic", piece: _Piece, start: int) -> tuple[bytes, int]:
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


class _Topic:
    """The newest commits of one interest: all that there are after revision `since`."""

    def __init__(self, interest: Interest, since: int) -> None:
        self.interest = interest
        self.since = since
        self.pieces: deque[_Piece] = deque()
        self.cursors: set[Cursor] = set()
        self.waiting: set[asyncio.Future[None]] = set()
        self._size = 0
        self._reads = 0

    def publish(self, commit: Commit, events: Sequence[Event]) -> None:
        events = self.interest.select(events)
        if not events or commit.revision <= self.since:  # of what was begun before it came, it may have a part only
            return
        piece = _Piece(commit, events)
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

    def after(self, revision: int) -> Iterable[_Piece]:
        if not self.pieces or self.pieces[-1].commit.revision <= revision:
            return ()
        newest_first = takewhile(lambda piece: piece.commit.revision > revision, reversed(self.pieces))
        return reversed(list(newest_first))

    def note_read(self) -> None:
        """Drop what every cursor has read, now and then."""
        self._reads += 1
        if self._reads < len(self.cursors):
            return
        self._reads = 0
        read = min((cursor.revision for cursor in self.cursors), default=self.since)
        while self.pieces and self.pieces[0].commit.revision <= read:
            self._drop()

    def _drop(self) -> None:
        piece = self.pieces.popleft()
        self._size -= piece.size
        self.since = piece.commit.revision


class _Followed:
    """A namespace that is watched, and its topics. Implements `stores.protocol.Listener`."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.revision = 0  # up to which the topics have everything
        self.generation = 0  # one more when the history ends, as by the deletion of the namespace
        self.users = 0
        self.following = False
        self.lock = asyncio.Lock()
        self.topics: dict[Interest, _Topic] = {}
        self._heard = 0  # the revision of the last commit that was published
        self._unsorted: deque[Commit] = deque()
        self._sorting: Iterator[bool] | None = None
        self._by_key: dict[str, list[_Topic]] = {}
        self._by_prefix: dict[int, dict[str, list[_Topic]]] = {}  # by the prefix's length, then by the prefix

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
            concerned: dict[_Topic, list[Event]] = {}
            for event in commit.events:
                key = event.entry[KEY]
                for topic in self._by_key.get(key, ()):
                    concerned.setdefault(topic, []).append(event)
                for length, by_prefix in self._by_prefix.items():
                    for topic in by_prefix.get(key[:length], ()):
                        concerned.setdefault(topic, []).append(event)
                looked += 1 + len(self._by_prefix)
                if looked > _STEP:
                    looked = 0
                    yield True
            for topic, events in concerned.items():
                topic.publish(commit, events)
                looked += len(events)
                if looked > _STEP:
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

    def join(self, interest: Interest, revision: int) -> _Topic:
        """The topic of an interest. One that is new has all that follows a revision, which is published or will be."""
        topic = self.topics.get(interest)
        if topic is None:
            topic = self.topics[interest] = _Topic(interest, max(revision, self._heard))
            self._listed(interest).setdefault(interest.target, []).append(topic)
        return topic

    def leave(self, topic: _Topic) -> None:
        """Forget a topic that has no cursors."""
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

    def _listed(self, interest: Interest) -> dict[str, list[_Topic]]:
        return self._by_prefix.setdefault(len(interest.target), {}) if interest.is_prefix else self._by_key


class Feed:
    """Opens cursors. Use from one event loop.

    Args:
        store: where commits come from.
        encode: serialises what a cursor reads.
    """

    def __init__(self, store: Store, encode: Encode) -> None:
        self.store = store
        self.encode = encode
        self.closed = False
        self.recent = _Recent()
        self._turn = asyncio.Lock()
        self._followed: dict[str, _Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, namespace: str, interest: Interest, *, from_revision: int = 0, epoch: str = "") -> "Cursor":
        """Open a cursor before a revision; 0: after the newest.

        Raises:
            Compacted: the revision is at or below the floor.
            RevisionInFuture: it is above the next one.
            EpochChanged: the namespace's history is another than the one named.
            Draining: the server shuts down.
        """
        if self.closed:
            raise Draining
        followed = self._followed.setdefault(namespace, _Followed(namespace))
        followed.users += 1
        try:
            if not followed.following:
                await self._finish(self._follow(followed))
            generation = followed.generation
            position = await self.store.position(namespace)
            if epoch and epoch != position.epoch:
                raise EpochChanged(position.epoch, position.floor, position.revision)
            revision = from_revision - 1 if from_revision else position.revision
            if revision > position.revision:
                raise RevisionInFuture(from_revision, position.floor, position.revision)
            if revision < position.floor:
                raise Compacted(from_revision, position.floor, position.revision)
        except BaseException:
            await self._release(followed)
            raise
        topic = followed.join(interest, position.revision)
        return Cursor(self, followed, topic, revision, position.epoch, generation)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a cursor may do what takes some milliseconds: of all cursors one in a round of the event loop."""
        async with self._turn:
            await asyncio.sleep(0)  # not afterwards: who is cancelled then would lose what was read
            yield

    async def close(self) -> None:
        """End every cursor with Draining."""
        self.closed = True
        for followed in self._followed.values():
            for topic in followed.topics.values():
                topic.wake()

    async def release(self, followed: _Followed, topic: _Topic) -> None:
        """Let go of a namespace that a cursor used, and of the topic if it was the last one there."""
        if not topic.cursors:
            followed.leave(topic)
        await self._release(followed)

    async def _release(self, followed: _Followed) -> None:
        followed.users -= 1
        if not followed.users:
            await self._finish(self._unfollow(followed))

    async def _follow(self, followed: _Followed) -> None:
        async with followed.lock:
            if not followed.following:
                position = await self.store.follow(followed.namespace, followed)
                followed.begin(position.revision)
                followed.following = True

    async def _unfollow(self, followed: _Followed) -> None:
        async with followed.lock:  # somebody may come while another one leaves
            if not followed.users and followed.following:
                followed.following = False
                await self.store.unfollow(followed.namespace)
            if not followed.users and self._followed.get(followed.namespace) is followed:
                del self._followed[followed.namespace]

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for what goes on to its end even if whoever waits is cancelled: else a namespace would stay followed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


class Cursor:
    """One watcher's place in the history. Everything up to `revision` was read."""

    def __init__(
        self, feed: Feed, followed: _Followed, topic: _Topic, revision: int, epoch: str, generation: int
    ) -> None:
        self.revision = revision
        self.epoch = epoch
        self._feed = feed
        self._followed = followed
        self._topic = topic
        self._generation = generation
        self._rest: tuple[_Piece, int] | None = None  # a commit that was read in part, and up to where
        self._closed = False
        topic.cursors.add(self)

    async def read(self, max_bytes: int, timeout: float) -> Batch:
        """Wait for the next commits, for `timeout` seconds at most, and read about `max_bytes` of them.

        Raises:
            Compacted: the cursor fell behind the floor, or the namespace was deleted.
            Draining: the server shuts down.
            StoreUnavailable: the store could not be read.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        load = _Load(max_bytes)
        in_time = True
        while True:
            if self._feed.closed:
                raise Draining
            if self._generation != self._followed.generation:
                position = await self._feed.store.position(self._followed.namespace)
                raise Compacted(self.revision + 1, position.floor, position.revision)
            is_behind = self.revision < self._topic.since
            if self._rest:
                async with self._feed.turn():
                    self._take(load, *self._rest)
            elif is_behind:
                await self._read_store(load)
            else:
                self._read_topic(load)
            if load.fragments or not in_time:
                return Batch(self.revision, load.fragments)
            if is_behind:  # a long way through what does not match must not hold up the others
                await asyncio.sleep(0)
                in_time = asyncio.get_running_loop().time() < deadline
            else:  # only what comes after the topic was read will wake this up
                in_time = await self._wait(deadline)

    async def close(self) -> None:
        """Let go of the place. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._topic.cursors.discard(self)
        await self._feed.release(self._followed, self._topic)

    def _read_topic(self, load: "_Load") -> None:
        topic = self._topic
        for piece in topic.after(self.revision):
            if not self._take(load, piece):
                break
        else:
            self.revision = max(self.revision, self._followed.revision)
        topic.note_read()

    async def _read_store(self, load: "_Load") -> None:
        """Read a little from the store, which has what the topic has no more."""
        found = await self._feed.store.commits(
            self._followed.namespace, first=self.revision + 1, last=self._topic.since, limit=_CHUNK
        )
        async with self._feed.turn():
            looked = 0
            for commit in found.commits:
                looked += len(commit.events)
                if not self._take(load, self._feed.recent.piece(self._topic, commit)) or looked > _STEP:
                    return

    def _take(self, load: "_Load", piece: _Piece, start: int = 0) -> bool:
        """Load a commit, or as much of it as there is room for; move past it if that was all. Says if there is more
        room. What is large is loaded alone, one fragment at a time, so that no more than that is ever in memory."""
        while start < len(piece.events):
            if load.fragments and (start or piece.size > load.room):
                self._rest = (piece, start)
                return False
            fragment, start = self._feed.recent.fragment(self._feed.encode, self._topic, piece, start)
            load.add(fragment)
        self._rest = None
        self.revision = piece.commit.revision
        return load.room > 0

    async def _wait(self, deadline: float) -> bool:
        """Wait until the topic has something new. False: the time is up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(deadline, _expire, future)
        self._topic.waiting.add(future)
        try:
            await future
        except TimeoutError:
            return False
        finally:
            timer.cancel()
            self._topic.waiting.discard(future)
        return True


class _Load:
    """What one read has gathered, and how many bytes more it may."""

    def __init__(self, max_bytes: int) -> None:
        self.fragments: list[bytes] = []
        self.room = max_bytes

    def add(self, fragment: bytes) -> None:
        self.fragments.append(fragment)
        self.room -= len(fragment)


def _expire(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())
