"""What a watch has received, and how much of it was handed out. No I/O."""

from collections import deque
from dataclasses import replace

from . import convert
from .model import Commit, Entry, Event, Resync
from .v1 import state_pb2

__all__ = ["Cursor", "Item"]

Item = Event | Commit | Resync


class Cursor:
    """Turns the messages of one stream after another into items, each of them once.

    `revision` is a bookmark: everything up to it was taken, of the history that has the `epoch`. A new stream goes on
    after it, so it sends a commit again from its start if the stream before broke inside of it; what was taken of that
    commit is then left out.
    """

    def __init__(self, revision: int, epoch: str = "") -> None:
        self.revision = revision
        self.epoch = epoch
        self._pending: deque[tuple[Item, int]] = deque()  # each with the bookmark once it is taken
        self._sent = revision  # the bookmark once all is taken
        self._inside = 0  # the revision of the commit that a message ended inside of
        self._queued = 0  # how many of that commit's events were queued
        self._seen = 0  # how many of them the present stream has sent
        self._parts: tuple[Event, ...] = ()  # of that commit, where whole commits are wanted

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._pending)

    def take(self) -> Item | None:
        """The next item; None if there is none."""
        if not self._pending:
            return None
        item, self.revision = self._pending.popleft()
        if isinstance(item, Resync):
            self.epoch = item.epoch
        if not self._pending:
            self.revision = self._sent
        return item

    def begin(self) -> None:
        """A new stream begins."""
        self._seen = 0
        self._parts = ()

    def resync(self, revision: int, entries: tuple[Entry, ...], epoch: str) -> None:
        """The stream that began goes on from this state, whatever was received before."""
        self._inside = 0
        self._sent = revision
        self._pending.append((Resync(revision, entries, epoch), revision))

    def receive(self, response: state_pb2.WatchResponse, *, whole: bool) -> None:
        """Queue what a message has, as whole commits or as events."""
        for message in response.commits:
            part = convert.commit(message)
            if part.revision != self._inside:
                self._inside, self._queued, self._seen, self._parts = part.revision, 0, 0, ()
            if whole:
                self._queue_commit(part, partial=message.partial)
            else:
                self._queue_events(part, partial=message.partial)
        self._sent = max(self._sent, response.revision)
        if not self._pending:
            self.revision = self._sent

    def _queue_commit(self, part: Commit, *, partial: bool) -> None:
        self._parts += part.events
        if not partial:
            self._pending.append((replace(part, events=self._parts), part.revision))

    def _queue_events(self, part: Commit, *, partial: bool) -> None:
        fresh = part.events[max(0, self._queued - self._seen) :]
        self._seen += len(part.events)
        self._queued += len(fresh)
        for event in fresh:
            self._pending.append((event, part.revision - 1))
        if fresh and not partial:
            self._pending[-1] = (fresh[-1], part.revision)
