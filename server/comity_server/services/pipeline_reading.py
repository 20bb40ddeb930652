"""How the messages of a pipeline are read: one after another, each checked, and begun when the rates have room for it.

What is unanswered is bounded, and so is what is answered and not yet taken by the client: beyond it nothing is read,
and gRPC holds the client back.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from comity.v1 import state_pb2
from comity_server import tasks
from comity_server.access.rights import READ_WRITE
from comity_server.errors import DeadlinePassed, StateError
from comity_server.limits import Limits
from comity_server.services import requests
from comity_server.services.admission import Place
from comity_server.services.call import Call
from comity_server.services.deadline import until
from comity_server.services.pipeline_answers import Answers, Message
from comity_server.services.pipeline_messages import Writer
from comity_server.services.pipeline_portions import Portion, portions
from comity_server.services.pipeline_taking import Taking
from comity_server.services.receiving import Requests
from comity_server.services.shape import OPERATIONS
from comity_server.services.validate import AUTHOR_BYTES, CLIENT_BYTES, Checks

UNANSWERED: Final = 4000  # operations of one stream, beyond which it is not read


class Reading:
    """Reads one stream.

    Args:
        call: the stream.
        limits: for what one message may ask.
        taking: begins operations.
        answers: those that are not taken by the client.
        ended: told when nothing more is read, and why; None: the client has said so.
        failed: told why something that was read is never answered.
    """

    def __init__(
        self,
        call: Call,
        limits: Limits,
        taking: Taking,
        answers: Answers,
        ended: Callable[[Exception | None], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._caller = call.caller
        self._meter = call.meter
        self._metadata = call.metadata
        self._limits = limits
        self._taking = taking
        self._answers = answers
        self._ended = ended
        self._failed = failed
        self._namespace = ""
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._is_taking = False

    def start(self, messages: Requests) -> None:
        self._task = asyncio.create_task(self._read(messages))

    def look(self) -> None:
        """Raise PermissionDenied if its caller may do nothing in the namespace any more."""
        if self._namespace:
            checks = self._taking.checks()
            checks.somewhere(READ_WRITE)
            checks.finish()

    def stop(self) -> None:
        """Read no more. Operations that are being begun are so to the last."""
        self._is_stopped = True
        if self._task is not None and not self._is_taking:
            self._task.cancel()

    async def close(self) -> None:
        """Begin nothing more either."""
        self._is_stopped = True
        if self._task is not None:
            await tasks.end(self._task)

    async def _read(self, messages: Requests) -> None:
        try:
            request, place, size = await messages.admitted(soon=True)
            self._begin(request, place)
            while True:
                await self._take_up(request, place, size)
                del request, place  # the next one may be long in coming
                if self._is_stopped:
                    return
                await self._answers.room(self._may_read)
                request, place, size = await messages.admitted(soon=False)
                self._go_on(request, place)
        except EOFError:
            self._ended(None)
        except asyncio.CancelledError as error:
            if self._is_taking or not self._is_stopped:  # it was not `stop`, and the answers must not wait for ever
                self._failed(tasks.unforeseen(error))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it
            (self._failed if self._is_taking else self._ended)(error)

    def _may_read(self) -> bool:
        return self._answers.unanswered < UNANSWERED

    def _begin(self, request: state_pb2.PipelineRequest, place: Place) -> None:
        """Take up what the first message says of the stream."""
        checks = self._taking.checks()
        namespace, client, author = request.namespace, request.client, request.author
        checks.namespace("namespace", namespace)
        checks.somewhere(READ_WRITE)
        checks.text("client", client, CLIENT_BYTES)
        checks.text("author", author, AUTHOR_BYTES)
        self._namespace = namespace
        self._taking.within(
            namespace, Writer(self._caller.client(client), *requests.said(author, "", self._metadata, checks))
        )
        self._check(request, checks, place)
        self._meter.within(namespace)

    def _go_on(self, request: state_pb2.PipelineRequest, place: Place) -> None:
        checks = self._taking.checks()
        checks.somewhere(READ_WRITE)
        if request.namespace not in ("", self._namespace):
            checks.wrong("namespace", "must be empty or that of the first message")
        if request.client or request.author:
            checks.wrong("client" if request.client else "author", "may be said in the first message only")
        self._check(request, checks, place)

    def _check(self, request: state_pb2.PipelineRequest, checks: Checks, place: Place) -> None:
        checks.count("awaited", request.awaited)
        if len(request.operations) > OPERATIONS:
            checks.wrong("operations", f"must not have more than {OPERATIONS} elements")
        if request.HasField("timeout"):
            seconds = checks.duration("timeout", request.timeout)
            if seconds is not None and seconds <= 0:
                checks.wrong("timeout", "must be above 0")
        try:
            checks.finish()
        except StateError:
            place.leave()
            raise

    async def _take_up(self, request: state_pb2.PipelineRequest, place: Place, size: int) -> None:
        """Begin each operation of a message, when the rates of its caller and of the namespace have room for it; what
        comes after it is held back meanwhile. For what they will have no room in its time it is refused."""
        arrived = asyncio.get_running_loop().time()
        deadline = _deadline(request, arrived)
        seconds = math.inf if deadline is None else deadline - arrived
        message = self._answers.expect(place, len(request.operations))
        held_back = message.unanswered
        paying: list[Portion] = []
        try:
            for portion in portions(request, size, self._meter, self._limits.transaction_operations):
                if portion.refusal is None or portion.refusal.seconds <= seconds:
                    paying.append(portion)
                else:
                    held_back -= self._refuse(message, portion, portion.refusal)
            for portion in paying:
                refusal = await self._pay(portion, deadline)
                if refusal is not None:
                    held_back -= self._refuse(message, portion, refusal)
                    continue
                held_back -= len(portion.operations)
                self._is_taking = True
                await self._taking.take(request.awaited, portion, message, deadline, is_last=portion is paying[-1])
                self._is_taking = False
                if self._is_stopped:
                    return
        finally:
            if not self._is_taking and (held_back or not request.operations):  # the stream ends, or there was nothing
                self._answers.done(message, held_back)
                self._answers.ready.set()

    async def _pay(self, portion: Portion, deadline: float | None) -> StateError | None:
        """Wait until it can be paid for. Returns why it is refused, if its time is up before."""
        if self._meter.counts:
            try:
                async with until(deadline):
                    await self._meter.hold(portion.cost, portion.size)
            except DeadlinePassed as passed:
                return self._meter.refusal(portion.cost, portion.size) or passed.with_traceback(None)
        return None

    def _refuse(self, message: Message, portion: Portion, why: StateError) -> int:
        """Answer operations with an error. Returns how many they are."""
        self._answers.add(message, [(each.id, max(each.kind, 0), None, why) for each in portion.operations])
        return len(portion.operations)


def _deadline(request: state_pb2.PipelineRequest, arrived: float) -> float | None:
    """The time of the loop by which the operations of a message have to be begun, if there is one."""
    if not request.HasField("timeout"):
        return None
    return arrived + min(request.timeout.ToNanoseconds() / 1e9, 1e6)
