"""Pipeline: one stream of operations, each answered as soon as its end is known.

Messages are read one after another (`pipeline_reading`), and their operations begun as reads, writes and lists
(`pipeline_taking`): the writes of a message go to the committer together. There is no task an operation, and no future
but one a message.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Final

from comity_server.committer import Committer
from comity_server.errors import Draining, TooManyPipelines
from comity_server.limits import Limits
from comity_server.services.call import Call
from comity_server.services.outbox import COPIES, Outbox, Outboxes
from comity_server.services.pipeline_answers import MESSAGE_BYTES, Answers
from comity_server.services.pipeline_failures import Failures
from comity_server.services.pipeline_lists import Lists
from comity_server.services.pipeline_reading import Reading
from comity_server.services.pipeline_taking import Taking
from comity_server.services.pipeline_writes import Writes
from comity_server.services.receiving import Requests
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import CURRENT

PIPELINES: Final = 16  # of one connection: what is on its way to each takes up memory that nothing counts


class Pipelines:
    """The streams of a server.

    Args:
        store: what is read.
        committer: where writes go.
        limits: for what one request may ask.
        tally: where operations and their errors are counted.
        outboxes: the room that there is for answers.
    """

    def __init__(self, store: Store, committer: Committer, limits: Limits, tally: Tally, outboxes: Outboxes) -> None:
        self._store = store
        self._tally = tally
        self._committer = committer
        self._limits = limits
        self._outboxes = outboxes
        self._streams: dict[_Stream, None] = {}
        self._by_peer: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """Read no more, and end each stream when what was read has its answers."""
        self._closed = True
        for stream in self._streams:
            stream.stop(Draining())

    async def stream(self, messages: Requests, call: Call) -> AsyncGenerator[bytes]:
        """Serialised answers, the next one made when the one before was taken off."""
        peer = call.peer
        if self._closed:
            raise Draining
        if self._by_peer[peer] >= PIPELINES:
            raise TooManyPipelines(PIPELINES)
        self._by_peer[peer] += 1
        outbox = self._outboxes.open(peer, call.meter.payer)
        stream = _Stream(self._store, self._committer, self._limits, call, self._tally, outbox)
        self._streams[stream] = None
        try:
            with call.caller.standing(stream.look, stream.revoke):
                stream.start(messages)
                async for answer in stream.answers():
                    yield answer
        finally:
            del self._streams[stream]
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]
            await stream.close()


class _Stream:
    def __init__(
        self, store: Store, committer: Committer, limits: Limits, call: Call, tally: Tally, outbox: Outbox
    ) -> None:
        self._outbox = outbox
        self._lists = Lists(store, limits, call.caller, MESSAGE_BYTES, outbox, self._fail)
        self._answers = Answers(outbox, self._lists.take_off, Failures(tally, CURRENT.get()), tally)
        self._writes = Writes(committer, limits, call.meter, self._answers)
        taking = Taking(store, limits, call.caller, self._writes, self._lists, self._answers, tally)
        self._reading = Reading(call, limits, taking, self._answers, self.stop, self._fail)
        self._end: Exception | None = None  # what the stream ends with
        self._revoked: Exception | None = None  # why its caller may go on no more
        self._ending = False
        self._failed = False

    def start(self, messages: Requests) -> None:
        self._reading.start(messages)

    def look(self) -> None:
        """Raise PermissionDenied if its caller may do nothing in the namespace any more."""
        self._reading.look()

    def stop(self, end: Exception | None) -> None:
        """Read no more. What was read is answered, before the stream ends with an error, or without one."""
        if not self._ending:
            self._ending = True
            self._end = end
            self._reading.stop()
        self._answers.ready.set()

    def revoke(self, error: Exception) -> None:
        """Its caller may go on no more: what was read is answered as far as there is room for it, and no more."""
        self._revoked = error
        self.stop(error)
        self._outbox.give_up()

    def _fail(self, error: Exception) -> None:
        """Something that was read is never answered: end at once."""
        self._failed = True
        self.stop(error)
        self._end = self._revoked or error

    async def answers(self) -> AsyncGenerator[bytes]:
        """Messages, until the last operation that was read is answered. Raises what the stream ends with."""
        while not self._failed and (self._answers.unanswered or not self._ending):
            if self._answers.is_due:
                await self._has_room()
                messages = await self._answers.serialise()
                size = COPIES * sum(map(len, messages))
                self._outbox.settle(size)
                while messages:
                    yield messages.popleft()
                self._outbox.free(size)
            else:
                self._answers.ready.clear()
                await self._answers.ready.wait()
        if self._end is not None:
            raise self._end

    async def _has_room(self) -> None:
        """Wait until there is room for an answer. Raises why its caller may go on no more if there is none."""
        try:
            await self._outbox.wait()
        except asyncio.CancelledError:
            if self._revoked is not None:
                raise self._revoked from None
            raise
        self._answers.changed()

    async def close(self) -> None:
        """Let go of everything. Writes that were not begun are not begun any more."""
        self._ending = True
        await self._reading.close()  # first, since it adds lists
        await self._lists.close()
        self._outbox.leave()
        self._writes.cancel()
        self._answers.leave()
        # They have been raised, or nobody is there any more: their frames have what was read last.
        self._end = self._revoked = None
