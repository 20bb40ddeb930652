"""Registration of services, and the one place that every call goes through.

A handler takes a parsed message and answers with one, or raises an error of `comity_server.errors`. What else it raises
is a defect: it goes to the log under an id, and the client is told the id.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from comity_server.access.bounds import Meter
from comity_server.access.caller import Caller
from comity_server.access.gate import ANYBODY, Gate
from comity_server.errors import (
    DeadlinePassed,
    DeadlineReached,
    Draining,
    InvalidRequest,
    NotImplementedYet,
    StateError,
    Unauthenticated,
    Violation,
)
from comity_server.limits import Limits
from comity_server.services import status
from comity_server.services.admission import Admission
from comity_server.services.call import Call, Context
from comity_server.services.costs import operations
from comity_server.services.receiving import Requests, receive, receive_small
from comity_server.services.shape import Shape
from comity_server.telemetry.trail import Trail, Trails

log = structlog.get_logger(__name__)

QUIET_SECONDS: Final = 0.1
DEFAULTS: Final = Limits()
IN_DEBT: Final = frozenset({"KeepAlive"})  # let in whatever the rates say: leases would end while it waits to be

Unary = Callable[[Any, Call], Awaitable[Message]]
Stream = Callable[[Any, Call], AsyncGenerator[bytes]]
Enter = Callable[[Context], Caller]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class _Entrance(NamedTuple):
    """How the calls of a service come in."""

    enter: Enter
    gate: Gate
    admission: Admission
    is_tool: bool

    def begin(self, context: Context, trail: Trail, *, stream: bool) -> tuple[Caller, Meter]:
        """Who makes a call, and what it takes, which is to be told when it ends. Raises what the gate does."""
        caller = self.enter(context)
        trail.principal = caller.principal
        return caller, self.gate.begin(caller, context, stream=stream)


class Calls:
    """Registers services with a gRPC server, and knows how many of their calls are in progress.

    Args:
        server: gRPC's.
        gate: lets in those who call a service that is not for anybody.
        admission: gives each call its room.
        trails: follow each call, and count it.
        max_deadline: how long a call may take that is neither a stream nor a tool's, in seconds; None: no bound.
        limits: for how much a request may have.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        gate: Gate,
        admission: Admission,
        trails: Trails,
        max_deadline: float | None = None,
        limits: Limits = DEFAULTS,
    ) -> None:
        self._server = server
        self._gate = gate
        self._admission = admission
        self._trails = trails
        self._max_deadline = max_deadline
        self._limits = limits
        self._free = Gate()  # of tools, whose calls nothing counts
        self.unary_calls = 0
        self.streams = 0
        self._draining = False
        self._refused = 0
        self._ended = asyncio.Event()

    def add(
        self,
        service: ServiceDescriptor,
        servicer: object = None,
        *,
        tool: bool = False,
        anybody: bool = False,
        admission: Admission | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Register the methods that the servicer has under their names in the contract.

        A method that it has not answers UNIMPLEMENTED. One that streams its answer is a function that returns an
        iterator of serialised messages; one to which requests are streamed gets an iterator of them. The calls of a
        tool are answered to the last, and nobody waits for their end. With `anybody` it is not asked who calls. Calls
        that have an `admission` of their own take up none of the room of others, and wait for none. A `gate` of their
        own counts them.
        """
        if gate is None:
            gate = self._free if tool else self._gate
        room = self._admission if admission is None else admission
        entrance = _Entrance(_anybody if anybody else self._gate.enter, gate, room, tool)
        handlers = {
            method.name: self._handler(method, getattr(servicer, method.name, None), entrance)
            for method in service.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    @property
    def draining(self) -> bool:
        """Whether every further call is refused."""
        return self._draining

    @property
    def connections(self) -> int:
        """How many have calls that take up room."""
        return self._admission.connections

    def refuse(self) -> None:
        """Answer every further call with Draining."""
        self._draining = True
        self._admission.close()

    async def unary_calls_ended(self) -> None:
        """Return when no unary call is in progress any more. Only after `refuse`."""
        while self.unary_calls:
            self._ended.clear()
            await self._ended.wait()

    async def streams_ended(self) -> None:
        """Return when no stream is in progress any more. Only after `refuse`."""
        while self.streams:
            self._ended.clear()
            await self._ended.wait()

    async def refusals_ended(self) -> None:
        """Return when no call has come to be refused for a moment. Only after `refuse`."""
        refused = -1
        while refused != self._refused:
            refused = self._refused
            await asyncio.sleep(QUIET_SECONDS)

    def _handler(self, method: MethodDescriptor, handler: Any, entrance: _Entrance) -> Any:
        # To gRPC all requests are streamed, which is the same on the wire: so they are read when there is room, and for
        # no longer than a client may take. They arrive as bytes, since what cannot be parsed has to fail here.
        behaviour: Behaviour
        if handler is None:
            behaviour = self._unimplemented(method)
        elif method.server_streaming:
            behaviour = self._stream(method, handler, entrance)
        else:
            behaviour = self._unary(method, handler, entrance)
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(behaviour)
        return grpc.stream_unary_rpc_method_handler(behaviour)

    def _unary(self, method: MethodDescriptor, handler: Unary, entrance: _Entrance) -> Behaviour:
        tool, admission = entrance.is_tool, entrance.admission
        parse = GetMessageClass(method.input_type).FromString
        shape = Shape(method.input_type, self._limits)

        async def respond(context: Context, trail: Trail) -> bytes:
            bound = asyncio.timeout(None if tool else self._max_deadline)
            caller, meter = entrance.begin(context, trail, stream=False)
            _after_this_task(meter.leave)  # which ends when the client has the answer
            try:
                async with bound:
                    await meter.pay()
                    place = await admission.enter(context.peer(), meter.payer)
                    _after_this_task(place.leave)
                    data = await receive(context, trail, caller)
                    place.resize(len(data) + shape.check(data))
                    if not tool:
                        self.unary_calls += 1
                        _after_this_task(self._unary_ended)
                        if self._draining:
                            raise Draining
                    request = parse(data)
                    trail.asks(request)
                    await meter.begin(getattr(request, "namespace", ""), operations(request), len(data))
                    call = Call(context, caller, meter, _deadline(context, bound.when()))
                    answer = (await handler(request, call)).SerializeToString()
            except TimeoutError:
                if not bound.expired():
                    raise
                raise DeadlineReached(self._max_deadline or 0) from None
            place.resize(len(answer))
            meter.charge(0, len(answer))
            trail.gave(len(answer))
            return answer

        return self._behaviour(method, respond)

    def _stream(self, method: MethodDescriptor, handler: Stream, entrance: _Entrance) -> Behaviour:
        tool, admission = entrance.is_tool, entrance.admission
        parse = GetMessageClass(method.input_type).FromString
        shape = Shape(method.input_type, self._limits)

        async def respond(context: Context, trail: Trail) -> None:
            caller, meter = entrance.begin(context, trail, stream=True)
            try:
                if method.name not in IN_DEBT:
                    await meter.pay()
                elif not meter.owes():
                    meter.charge(1, 0)
                if method.client_streaming:
                    request: Any = Requests(admission, context, caller, meter.payer, trail, parse, shape)
                else:
                    data = await receive_small(admission, context, caller, meter.payer, trail)
                    request = parse(data)
                    trail.asks(request)
                    await meter.begin(getattr(request, "namespace", ""), operations(request), len(data))
                if not tool:
                    self.streams += 1
                    _after_this_task(self._stream_ended)
                    if self._draining:
                        raise Draining
                async with contextlib.aclosing(handler(request, Call(context, caller, meter))) as messages:
                    async for message in messages:
                        meter.charge(0, len(message))  # before any other looks whether something is owed
                        await context.write(message)
                        trail.gave(len(message))
                        del message  # the next one may be long in coming
            finally:
                meter.leave()

        return self._behaviour(method, respond)

    def _unary_ended(self, _: object) -> None:
        self.unary_calls -= 1
        if self._draining:
            self._ended.set()

    def _stream_ended(self, _: object) -> None:
        self.streams -= 1
        if self._draining:
            self._ended.set()

    def _behaviour(self, method: MethodDescriptor, respond: Callable[[Context, Trail], Awaitable[Any]]) -> Behaviour:
        """Answer with what `respond` returns, or with what it raises.

        gRPC keeps the exception by which a call is aborted, in a cycle with the call, and so every frame that it comes
        through, until Python collects cycles. So it comes through none that has the request: what `respond` had is
        gone by then.
        """
        counted = self._trails.tally.method(method.full_name)

        async def behave(_: object, context: Context) -> Any:
            trail = self._trails.begin(counted, context)
            try:
                try:
                    answer = await respond(context, trail)
                except grpc.aio.BaseError:  # the client went away before its answer
                    raise
                except Exception as error:  # noqa: BLE001 - the one place where defects end
                    refusal = self._refusal(method, error, trail)
                    _forget(error)
                else:
                    trail.code = "OK"
                    return answer
                await context.abort(refusal.code, refusal.message, refusal.trailer)
            finally:
                trail.end()

        return behave

    def _unimplemented(self, method: MethodDescriptor) -> Behaviour:
        async def respond(_: Context, __: Trail) -> NoReturn:
            raise NotImplementedYet(f"this server does not offer {method.full_name}")

        return self._behaviour(method, respond)

    def _refusal(self, method: MethodDescriptor, error: Exception, trail: Trail) -> status.Answer:
        """What a call is answered that ends with an error."""
        if isinstance(error, DecodeError):
            error = InvalidRequest(Violation("request", f"is not a {method.input_type.full_name}"))
        elif isinstance(error, EOFError):
            error = InvalidRequest(Violation("request", "is required"))
        self._refused += self._draining  # also where there was no room to be waited for any more
        tally = self._trails.tally
        if isinstance(error, StateError):
            tally.failed(error.reason, status.limit(error))
            answer = status.answer(error, trail.request_id)
            trail.reason = error.reason
            if isinstance(error, Unauthenticated):
                trail.why = str(error)
        else:
            log.error("a call failed", method=trail.method.full_name, error_id=trail.request_id, exc_info=error)
            tally.failed(status.DEFECT, None)
            answer = status.internal(trail.request_id)
            trail.reason = status.DEFECT
        trail.code = answer.code.name
        return answer


def _forget(error: BaseException) -> None:
    """Let go of the frames that an error came through: one that has it in a variable is in a cycle with it, and keeps
    the request and whatever else it has."""
    following: BaseException | None = error
    while following is not None:
        following.__traceback__, following.__cause__, following = None, None, following.__context__


def _anybody(_: Context) -> Caller:
    return ANYBODY


def _deadline(context: Context, when: float | None) -> float | None:
    """The time of the loop at which a call ends at the latest: by itself or by its client. Raises DeadlinePassed."""
    seconds: float | None = context.time_remaining()
    if seconds is None:
        return when
    if seconds <= 0:
        raise DeadlinePassed
    deadline = asyncio.get_running_loop().time() + seconds
    return deadline if when is None else min(deadline, when)


def _after_this_task(call: Callable[[object], None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(call)
