"""The answers of a pipeline, from the results of its operations to messages, each made when the client takes it off."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from comity.v1 import state_pb2
from comity_server.record import VALUE, Record
from comity_server.services.admission import Place
from comity_server.services.outbox import Outbox
from comity_server.services.pipeline_failures import Failures
from comity_server.services.pipeline_messages import (
    ENTRY_BYTES,
    LIST,
    PARTS,
    STORED,
    TRANSACT,
    Result,
    fill_error,
    fill_outcome,
    fill_read,
)
from comity_server.telemetry.tally import Tally

MESSAGE_BYTES: Final = 1024 * 1024  # about as much an answer carries, unless one result is larger
MESSAGE_MOST: Final = 4_100_000  # since clients read up to 4 MiB
ANSWERED_BYTES: Final = 8 * 1024 * 1024  # that answers take until the client takes them, beyond which none are begun


class Message:
    """A message whose operations are not all answered."""

    __slots__ = ("begun", "place", "size", "unanswered")

    def __init__(self, place: Place, unanswered: int) -> None:
        self.begun = time.perf_counter()
        self.place = place
        self.unanswered = unanswered
        self.size = 0  # about, of what is begun of it


class Answers:
    """Those of one stream that are not off to the client, or not known yet.

    Args:
        outbox: which they take up.
        page_taken: told the size of each list's page that is off.
        failures: told of the errors among them.
        tally: where it is counted how long messages took.
    """

    def __init__(
        self,
        outbox: Outbox,
        page_taken: Callable[[int], None],
        failures: Failures,
        tally: Tally,
    ) -> None:
        self.ready = asyncio.Event()  # there is something to serialise, or nothing more will come
        self.unanswered = 0  # operations
        self._outbox = outbox
        self._held_bytes = 0  # about how much memory they hold
        self._room = asyncio.Event()  # there may be room for more
        self._page_taken = page_taken
        self._failures = failures
        self._tally = tally
        self._messages: dict[Message, None] = {}  # that are not answered in full
        self._results: deque[tuple[Message, Sequence[Result], int]] = deque()  # and about how much memory they hold
        self._place = 0  # in the first of them

    @property
    def is_due(self) -> bool:
        """Whether there is something to serialise."""
        return bool(self._results)

    def expect(self, place: Place, operations: int) -> Message:
        """A message of so many operations, each of which is to be answered, has its place until all are."""
        message = Message(place, operations)
        self._messages[message] = None
        self.unanswered += operations
        return message

    def done(self, message: Message, count: int) -> None:
        """Some operations of a message are answered and off to the client, or are never answered."""
        message.unanswered -= count
        if not message.unanswered:
            message.place.leave()
            del self._messages[message]
            self._tally.messages.add(time.perf_counter() - message.begun)
        self.unanswered -= count
        self.changed()

    def leave(self) -> None:
        """Nobody is there any more."""
        for message in self._messages:
            message.place.leave()

    def add(self, message: Message, results: Sequence[Result], size: int = 0) -> None:
        """Operations of a message are answered, with what holds about `size` bytes besides."""
        if results:
            self._results.append((message, results, size))
            self._held_bytes += size
            self.ready.set()

    async def room(self, fits: Callable[[], bool] | None = None) -> None:
        """Return when the client has taken so much of what was answered that more may be begun, and it `fits`."""
        while self._held_bytes >= ANSWERED_BYTES or self._outbox.waits or (fits is not None and not fits()):
            self._room.clear()
            await self._room.wait()

    def changed(self) -> None:
        """What waits for room is to look again."""
        self._room.set()

    def fitting(self, entries: Sequence[Record | None]) -> tuple[int, int]:
        """How many of some entries may be answered now, from the first one on, and about how much they hold."""
        room = ANSWERED_BYTES - self._held_bytes
        size = 0
        for count, entry in enumerate(entries):
            if size >= room:
                return count, size
            if entry is not None:
                size += ENTRY_BYTES + len(entry[VALUE])
        return len(entries), size

    async def serialise(self) -> deque[bytes]:
        """As much as is answered, up to about MESSAGE_BYTES: one message, or two if one result is very large."""
        response = state_pb2.PipelineResponse()
        results = response.results
        messages: deque[bytes] = deque()
        total = gone_through = 0
        while self._results and total < MESSAGE_BYTES:
            message, answered, held = self._results[0]
            place = self._place
            for id, kind, about, end in answered[place:] if place else answered:
                result = results.add()
                result.id = id
                if kind == STORED:
                    size = fill_read(result, about, end)
                elif about is None:
                    size = fill_error(result, kind, end, self._failures)
                elif kind == LIST:
                    result.list.MergeFrom(about)
                    result.revision = about.revision
                    size = end
                    self._page_taken(size)
                else:
                    size = fill_outcome(result, kind, about, end, self._failures)
                    if kind == TRANSACT:
                        gone_through += about.parts()
                place += 1
                total += size
                if total >= MESSAGE_BYTES:
                    if total > MESSAGE_MOST and len(results) > 1:
                        last = state_pb2.PipelineResponse(results=results[-1:])
                        del results[-1]
                        messages.append(response.SerializeToString())
                        response = last
                        results = response.results
                    break
                gone_through += 1
                if gone_through >= PARTS:
                    gone_through = 0
                    await asyncio.sleep(0)
            self.done(message, place - self._place)
            if place == len(answered):
                self._results.popleft()
                self._held_bytes -= held
                place = 0
            self._place = place
        messages.append(response.SerializeToString())
        self._failures.log()
        return messages
