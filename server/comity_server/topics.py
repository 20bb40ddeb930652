"""What several watchers look at alike, and the way of commits to it.

A Topic keeps the newest matching commits in memory, serialised once for all who read it, and is bounded: a reader that
falls behind reads from the store until it has caught up. A commit wakes only the topics that it concerns, found by its
keys and by its keys cut to each length of a watched prefix. In one of many events what is watched is searched for.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile
from operator import itemgetter
from typing import Final, Protocol

import structlog

from comity_server.model import Commit, Event
from comity_server.pieces import SIZE_BYTES, Interest, Large, Piece, Small
from comity_server.record import KEY
from comity_server.turns import Pace

log = structlog.get_logger(__name__)

TOPIC_COMMITS: Final = 1024
TOPIC_BYTES: Final = SIZE_BYTES
WOKEN: Final = 100  # readers in one round, each of which then writes to a stream
STEP: Final = 5_000  # looks at an event, one for its key and one for each prefix of it, that are had in one go
SEARCH: Final = 16  # looks that a search for a prefix among ascending keys counts for


class Reader(Protocol):
    """Who reads a topic."""

    revision: int
    """Everything up to it was read."""


class Topic:
    """The newest commits of one interest: all that there are after revision `since`, of one history."""

    def __init__(self, interest: Interest, since: int, history: object) -> None:
        self.interest = interest
        self.since = since
        self.history = history
        self.pieces: deque[Piece] = deque()
        self.readers: set[Reader] = set()
        self.waiting: set[asyncio.Future[None]] = set()
        self._kept = 0
        self._reads = 0

    def publish(self, piece: Piece) -> None:
        if piece.commit.revision <= self.since:  # of what was begun before it came, it may have a part only
            return
        self.pieces.append(piece)
        self._kept += piece.kept
        while len(self.pieces) > TOPIC_COMMITS or self._kept > TOPIC_BYTES:
            self._drop()
        self.wake()

    def wake(self) -> None:
        """Let all who wait read: some in each round of the event loop, since others are to come to it, too."""
        if self.waiting:
            waiting = list(self.waiting)
            self.waiting.clear()
            _wake(waiting, 0)

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
        self._kept -= piece.kept
        self.since = piece.commit.revision


def _wake(waiting: Sequence[asyncio.Future[None]], start: int) -> None:
    end = start + WOKEN
    for future in waiting[start:end]:
        if not future.done():
            future.set_result(None)
    if end < len(waiting):
        asyncio.get_running_loop().call_soon(_wake, waiting, end)


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
        self._history = object()
        self._heard = 0  # the revision of the last commit that was published
        self._waiting: deque[Commit] = deque()  # to be shown to the topics
        self._showing: asyncio.Task[None] | None = None
        self._by_key: dict[str, list[Topic]] = {}
        self._by_prefix: dict[int, dict[str, list[Topic]]] = {}  # by the prefix's length, ascending; then by the prefix

    def begin(self, revision: int) -> None:
        """What follows a revision will be published. Some of it may have been."""
        self._heard = max(self._heard, revision)
        if self._showing is None:
            self.revision = self._heard

    def publish(self, commits: Sequence[Commit]) -> None:
        """Show commits to the topics that they concern: at once if that is a matter of a moment."""
        looks = 0
        for commit in commits:
            if commit.revision <= self._heard:
                continue
            self._heard = commit.revision
            looks += len(commit.events) * (1 + len(self._by_prefix))
            if self._showing is None and looks <= STEP:
                try:
                    self._show(commit)
                except Exception as error:  # noqa: BLE001 - logged
                    self._give_up(error)
                    return
            else:
                self._waiting.append(commit)
                if self._showing is None:
                    self._showing = asyncio.create_task(self._show_waiting())

    def _show(self, commit: Commit) -> None:
        concerned: dict[Topic, list[Event]] = {}
        for event in commit.events:
            self._look(event, concerned)
        if concerned:
            small = Small(commit)
            for topic, events in concerned.items():
                if (piece := small.piece(topic.interest, events)) is not None:
                    topic.publish(piece)
        self.revision = commit.revision

    async def _show_waiting(self) -> None:
        try:
            await self._show_in_steps()
        except Exception as error:  # noqa: BLE001 - logged
            self._showing = None
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """A commit could not be shown. To leave it out would be a gap that nobody notices: so all begin anew."""
        log.error("a commit could not be shown to watches", namespace=self.namespace, exc_info=error)
        self.reset()

    async def _show_in_steps(self) -> None:
        """Show all that waits, and let others in meanwhile."""
        pace = Pace()
        while self._waiting:
            commit = self._waiting.popleft()
            large = Large(self._history, commit)
            if await self._is_searched(large, len(commit.events), pace):
                await self._search(commit, large, pace)
            else:
                await self._look_at_each(commit, pace)
            self.revision = commit.revision
        self.revision = self._heard
        self._showing = None
        pace.pause()

    async def _look_at_each(self, commit: Commit, pace: Pace) -> None:
        concerned: dict[Topic, list[Event]] = {}
        for event in commit.events:
            self._look(event, concerned)
            await pace.step(1 + len(self._by_prefix))
        small = Small(commit)
        for topic, events in concerned.items():
            if (piece := small.piece(topic.interest, events)) is not None:
                topic.publish(piece)
            await pace.step(len(events))

    def _look(self, event: Event, concerned: dict[Topic, list[Event]]) -> None:
        """Find the topics that an event concerns, by its key and by that cut to each length of a watched prefix."""
        key = event.entry[KEY]
        for topic in self._by_key.get(key, ()):
            concerned.setdefault(topic, []).append(event)
        longest = len(key)
        for length, by_prefix in self._by_prefix.items():
            if length > longest:
                break
            for topic in by_prefix.get(key[:length], ()):
                concerned.setdefault(topic, []).append(event)

    async def _search(self, commit: Commit, large: Large, pace: Pace) -> None:
        """Find the events that concern each prefix, which are more of them or longer than the search for them."""
        if self._by_key:
            small = Small(commit)
            for event in commit.events:
                for topic in self._by_key.get(event.entry[KEY], ()):
                    if (piece := small.piece(topic.interest, (event,))) is not None:
                        topic.publish(piece)
                await pace.step()
        for topic in [topic for topic in self.topics.values() if topic.interest.is_prefix]:
            if (piece := await large.piece(topic.interest, pace)) is not None:
                topic.publish(piece)

    async def _is_searched(self, large: Large, count: int, pace: Pace) -> bool:
        """Whether to search for each prefix costs less than to look at each of so many events."""
        looks = count * len(self._by_prefix)
        search = SEARCH * len(self.topics)
        return looks > max(search, STEP) and looks > search * len(await large.runs(pace))

    def reset(self) -> None:
        self.generation += 1
        self.revision = self._heard = 0
        self._history = object()
        if self._showing is not None:
            self._showing.cancel()
            self._showing = None
        self._waiting = deque()
        topics, self.topics = self.topics, {}
        self._by_key = {}
        self._by_prefix = {}
        for topic in topics.values():
            topic.wake()

    def join(self, interest: Interest, revision: int) -> Topic:
        """The topic of an interest. One that is new has all that follows a revision, which is published or will be."""
        topic = self.topics.get(interest)
        if topic is None:
            topic = self.topics[interest] = Topic(interest, max(revision, self._heard), self._history)
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
        if not interest.is_prefix:
            return self._by_key
        length = len(interest.target)
        if length not in self._by_prefix:
            self._by_prefix = dict(sorted([*self._by_prefix.items(), (length, {})], key=itemgetter(0)))
        return self._by_prefix[length]
