"""The answers of a pipeline, from the results of its operations to messages, each made when the client takes it off."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from comity.v1 import state_pb2
from comity_server.services.admission import Place
from comity_server.services.pipeline_messages import (
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


class Message:
    """A message whose operations are not all answered."""

    __slots__ = ("begun", "place", "size", "unanswered")

    def __init__(self, place: Place, unanswered: int) -> None:
        self.begun = time.perf_counter()
        self.place = place
        self.unanswered = unanswered
        self.size = 0  # about, of what is begun of it


class Answers:
    """Those of one stream that are not off to the client.

    Args:
        page_taken: told the size of each list's page that is off.
        done: told of which message operations are off, and how many.
        tally: where errors are counted.
    """

    def __init__(self, page_taken: Callable[[int], None], done: Callable[[Message, int], None], tally: Tally) -> None:
        self.held_bytes = 0  # about how much memory they hold
        self._page_taken = page_taken
        self._done = done
        self._tally = tally
        self._results: deque[tuple[Message, Sequence[Result], int]] = deque()  # and about how much memory they hold
        self._place = 0  # in the first of them

    @property
    def is_due(self) -> bool:
        """Whether there is something to serialise."""
        return bool(self._results)

    def add(self, message: Message, results: Sequence[Result], size: int) -> None:
        """Operations of a message are answered, with what holds about `size` bytes besides."""
        self._results.append((message, results, size))
        self.held_bytes += size

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
                    size = fill_error(result, end, self._tally.errors)
                elif kind == LIST:
                    result.list.MergeFrom(about)
                    result.revision = about.revision
                    size = end
                    self._page_taken(size)
                else:
                    size = fill_outcome(result, kind, about, end, self._tally.errors)
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
            self._done(message, place - self._place)
            if place == len(answered):
                self._results.popleft()
                self.held_bytes -= held
                place = 0
            self._place = place
        messages.append(response.SerializeToString())
        return messages
