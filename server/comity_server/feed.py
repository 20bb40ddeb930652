"""The way of commits to watchers: each has a cursor in the history, none has a queue.

A cursor reads the topic of what it looks at, which others share, and where that has the commits no more, the store. So
a slow watcher costs the server no memory and the others no time. What takes long is done in steps of some milliseconds,
between which the event loop comes to everything else.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from comity_server.errors import Compacted, Draining, EpochChanged, RevisionInFuture
from comity_server.model import Commit
from comity_server.pieces import LARGE, Encode, Interest, Piece, Recent
from comity_server.stores.protocol import Store
from comity_server.tasks import finish
from comity_server.topics import Followed, Topic
from comity_server.turns import Pace, turn

_CHUNK: Final = 256  # commits that a watcher which is behind reads from the store at a time
STEP: Final = 20_000  # events of theirs that are looked at in one go

FREE_BYTES: Final = 4096  # that a cursor reads without asking for room


class Room(Protocol):
    """What a reader has room for."""

    def now(self) -> bool:
        """Take up the room of one read, if it is there."""

    async def wait(self) -> None:
        """The same, and wait until it is there."""


class Batch(NamedTuple):
    """What a cursor read. Everything up to `revision` was read, so it is safe to resume after it.

    No fragments: there was nothing for a while, and `revision` says how far that is known.
    """

    revision: int
    fragments: Sequence[bytes]


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
        self.recent = Recent()
        self._followed: dict[str, Followed] = {}
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
        followed = self._followed.setdefault(namespace, Followed(namespace))
        followed.users += 1
        try:
            if not followed.following:
                await finish(self._follow(followed), self._tasks)
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

    async def close(self) -> None:
        """End every cursor with Draining."""
        self.closed = True
        for followed in self._followed.values():
            for topic in followed.topics.values():
                topic.wake()

    def lags(self) -> Sequence[int]:
        """How many revisions each cursor is behind the newest that its namespace has."""
        return [
            max(0, followed.revision - reader.revision)
            for followed in self._followed.values()
            for topic in followed.topics.values()
            for reader in topic.readers
        ]

    async def release(self, followed: Followed, topic: Topic) -> None:
        """Let go of a namespace that a cursor used, and of the topic if it was the last one there."""
        if not topic.readers:
            followed.leave(topic)
        await self._release(followed)

    async def _release(self, followed: Followed) -> None:
        followed.users -= 1
        if not followed.users:
            await finish(self._unfollow(followed), self._tasks)

    async def _follow(self, followed: Followed) -> None:
        async with followed.lock:
            # Who began this may have been cancelled since, and others may follow the namespace by now.
            if followed.users and not followed.following:
                position = await self.store.follow(followed.namespace, followed)
                followed.begin(position.revision)
                followed.following = True

    async def _unfollow(self, followed: Followed) -> None:
        async with followed.lock:  # somebody may come while another one leaves
            if not followed.users and followed.following:
                followed.following = False
                await self.store.unfollow(followed.namespace)
                followed.reset()  # what happens to the history meanwhile it is not told
            if not followed.users and self._followed.get(followed.namespace) is followed:
                del self._followed[followed.namespace]


class Cursor:
    """One watcher's place in the history. Everything up to `revision` was read."""

    def __init__(
        self, feed: Feed, followed: Followed, topic: Topic, revision: int, epoch: str, generation: int
    ) -> None:
        self.revision = revision
        self.epoch = epoch
        self._feed = feed
        self._followed = followed
        self._topic = topic
        self._generation = generation
        self._rest: tuple[Piece, int] | None = None  # a commit that was read in part, and up to where
        self._closed = False
        self._end: Exception | None = None  # what it ends with
        self._waiting: asyncio.Future[None] | None = None
        topic.readers.add(self)

    async def read(self, max_bytes: int, timeout: float, room: Room | None = None) -> Batch:
        """Wait for the next commits, for `timeout` seconds at most, and read about `max_bytes` of them, or as much as
        there is room for. Where that is nothing it is waited for, with nothing in memory meanwhile.

        Raises:
            Compacted: the cursor fell behind the floor, or the namespace was deleted.
            Draining: the server shuts down.
            StoreUnavailable: the store could not be read.
            what else it was ended with, or `room` raises.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        load = _Load(max_bytes, room)
        in_time = True
        while True:
            self.check()
            if self._generation != self._followed.generation:
                position = await self._feed.store.position(self._followed.namespace)
                raise Compacted(self.revision + 1, position.floor, position.revision)
            is_behind = self.revision < self._topic.since
            if self._rest:
                async with turn():
                    self._take(load, *self._rest)
            elif is_behind:
                await self._read_store(load)
            else:
                self._read_topic(load)
            if load.waits:
                await load.wait()
                continue
            if load.fragments or not in_time:
                return Batch(self.revision, load.fragments)
            if is_behind:  # a long way through what does not match must not hold up the others
                await asyncio.sleep(0)
                in_time = asyncio.get_running_loop().time() < deadline
            else:  # only what comes after the topic was read will wake this up
                in_time = await self._wait(deadline)

    def check(self) -> None:
        """Raise what it was ended with, or Draining."""
        if self._end is not None:
            raise self._end
        if self._feed.closed:
            raise Draining

    def end(self, error: Exception) -> None:
        """Read no more: whoever reads is told the error at once."""
        self._end = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def close(self) -> None:
        """Let go of the place. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._topic.readers.discard(self)
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
        if found.commits and len(found.commits[0].events) > LARGE:
            await self._read_large(load, found.commits[0])
            return
        topic = self._topic
        async with turn():
            looked = 0
            for commit in found.commits:
                looked += len(commit.events)
                if len(commit.events) > LARGE or looked > STEP:
                    return
                piece = self._feed.recent.small(topic.history, commit, topic.interest)
                if piece is None:
                    self.revision = commit.revision
                elif not self._take(load, piece):
                    return

    async def _read_large(self, load: "_Load", commit: Commit) -> None:
        pace = Pace()
        piece = await self._feed.recent.large(self._topic.history, commit, self._topic.interest, pace)
        pace.pause()
        if piece is None:
            self.revision = commit.revision
            return
        async with turn():
            self._take(load, piece)

    def _take(self, load: "_Load", piece: Piece, start: int = 0) -> bool:
        """Load a commit, or as much of it as there is room for; move past it if that was all. Says if there is more
        room. What is large is loaded alone, one fragment at a time, so that no more than that is ever in memory."""
        while start < len(piece.events):
            if not load.has_room(None if start else piece.size):
                has_parts = start or len(piece.events) > LARGE  # which nobody should have to search for again
                self._rest = None if load.waits and not has_parts else (piece, start)
                return False
            fragment, start = self._feed.recent.fragment(
                self._feed.encode, piece, start, previous=self._topic.interest.previous
            )
            load.add(fragment)
        self._rest = None
        self.revision = piece.commit.revision
        return not load.is_full

    async def _wait(self, deadline: float) -> bool:
        """Wait until the topic has something new. False: the time is up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(deadline, _expire, future)
        self._topic.waiting.add(future)
        self._waiting = future
        try:
            await future
        except TimeoutError:
            return False
        finally:
            self._waiting = None
            timer.cancel()
            self._topic.waiting.discard(future)
        return True


class _Load:
    """What one read has gathered, and how many bytes more it may."""

    def __init__(self, max_bytes: int, room: Room | None) -> None:
        self.fragments: list[bytes] = []
        self.waits = False  # for room, without which nothing can be read
        self._left = max_bytes if room is None else min(FREE_BYTES, max_bytes)
        self._more = max_bytes - self._left  # once there is room
        self._room = room

    @property
    def is_full(self) -> bool:
        return self._left <= 0 and self._room is None

    def has_room(self, size: int | None) -> bool:
        """Whether so much may be read, or what is large and alone."""
        if size is not None and size <= self._left:
            return True
        if self._room is not None:
            if not self._room.now():
                self.waits = not self.fragments
                return False
            self._grow()
        return not self.fragments or (size is not None and size <= self._left)

    async def wait(self) -> None:
        assert self._room is not None
        await self._room.wait()
        self._grow()

    def add(self, fragment: bytes) -> None:
        self.fragments.append(fragment)
        self._left -= len(fragment)

    def _grow(self) -> None:
        self._left += self._more
        self._room = None
        self.waits = False


def _expire(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())
