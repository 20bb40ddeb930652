"""One Pipeline: operations go out in messages that gather what comes while another is written; answers come in."""

from __future__ import annotations

import asyncio
import contextvars
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc

from . import tracing
from .detour import Detour
from .errors import ComityError, DeadlineExceeded, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented
from .peer import Peer
from .pipelined import Asked
from .request_ids import Writer
from .status import is_transient
from .tasks import is_task_cancelled
from .v1 import state_pb2

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[state_pb2.PipelineRequest, state_pb2.PipelineResponse]

__all__ = ["Aside", "Stream"]

IDLE_SECONDS: Final = 60.0  # after so long a stream without a call ends
PATIENCE_SECONDS: Final = 2.0  # a stream that has answered nothing for so long is doubted
CLEANUP_SECONDS: Final = 5.0  # after all tasks were cancelled no stream begins, which a loop that ends would not end

OPERATIONS: Final = 1000  # of one message
MESSAGE_BYTES: Final = 512 * 1024  # about as much a message carries
UNANSWERED: Final = 2000  # operations of one stream, beyond which callers wait; a server stops reading at 4,000
UNSENT_BYTES: Final = 4 * 1024 * 1024  # likewise

REQUEST_ID: Final = "x-request-id"  # says by which id the server's log is to know a call
DRAINING: Final = "DRAINING"  # the reason of a server that shuts down

# What gRPC still has to say of a call that was cancelled, it says to the event loop some moments later. If that is
# closed by then, another loop tells of it with a traceback.
SETTLE_SECONDS: Final = 0.02

NEVER: Final = math.inf
REST_SECONDS: Final = 2e-6  # for each who waits, before deadlines are looked at again: it takes a twentieth of the time


class Aside(Exception):
    """The call is to go by itself."""


Outcome = state_pb2.PipelineResult | Exception
Waiter = tuple["asyncio.Future[Any]", float]  # with its deadline


class Lane(Protocol):
    """Whose operations a stream takes, one stream after another."""

    @property
    def namespace(self) -> str: ...
    @property
    def author(self) -> str: ...
    @property
    def writer(self) -> Writer: ...
    @property
    def detour(self) -> Detour: ...

    def left(self, stream: Stream) -> None:
        """A stream takes up nothing more."""


class Lanes(Protocol):
    """What the streams of one connection have in common."""

    @property
    def open(self) -> Callable[..., Call]: ...
    @property
    def answers(self) -> Callable[..., Any]: ...
    @property
    def peer(self) -> Peer: ...
    @property
    def failed(self) -> Callable[[], None]: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def tasks(self) -> set[asyncio.Task[None]]: ...
    @property
    def detour(self) -> Detour: ...

    def late(self) -> DeadlineExceeded:
        """The error of a call that had no answer in its time."""


class Stream:
    """Open from its construction on, until it fails, or is closed or idle."""

    def __init__(self, lane: Lane, lanes: Lanes) -> None:
        self.is_full = False
        self.given_up = False  # somebody waits no longer, perhaps for what was not sent
        self.request_id = uuid.uuid4().hex  # by which the server's log knows it
        self._lane = lane
        self._lanes = lanes
        self._loop = loop = lanes.loop
        self._unanswered: dict[int, Waiter] = {}
        self._waiting: OrderedDict[asyncio.Future[Exception | None], float] = OrderedDict()  # for room: the deadlines
        self._invited: set[asyncio.Future[Exception | None]] = set()  # have room, and do not know it yet
        self._messages: deque[tuple[state_pb2.PipelineRequest, int, float]] = deque()  # full: size, last deadline
        self._message = state_pb2.PipelineRequest(namespace=lane.namespace, client=lane.writer.name, author=lane.author)
        self._operations = self._message.operations
        self._count = 0  # of its operations
        self._bytes = 0  # about its size
        self._unsent = 0  # bytes of those that are full
        self._latest = 0.0  # of its deadlines
        self._idle: asyncio.Future[None] | None = None  # the writer has nothing to do
        self._timer: asyncio.TimerHandle | None = None
        self._rings = NEVER
        self._rests = 0.0  # until when deadlines are not looked at
        self._used = loop.time()
        self._has_answered = False
        self._left = False
        # In a context of its own: the stream is no part of whatever its first call is part of.
        context = contextvars.Context()
        self._call: Call = context.run(tracing.untraced, self._open)
        self._writer = loop.create_task(self._write(), context=context)
        for task in (self._writer, loop.create_task(self._read(), context=context)):
            lanes.tasks.add(task)
            task.add_done_callback(lanes.tasks.discard)
        self._doubting: asyncio.Task[None] | None = None
        self._doubt_handle = loop.call_later(PATIENCE_SECONDS, self._doubt, context=context)  # again until it answers
        self._idle_handle = loop.call_later(IDLE_SECONDS, self._end_if_idle, context=context)

    def _open(self) -> Call:
        return self._lanes.open(metadata=((REQUEST_ID, self.request_id),))

    # Asking

    def say(
        self, asked: Asked[Any], size: int, id: int, deadline: float, message: str, trace_parent: str | None
    ) -> asyncio.Future[Outcome]:
        """Add an operation of about so many bytes to the message that goes out next."""
        if self._count and (self._count >= OPERATIONS or self._bytes + size > MESSAGE_BYTES):
            self._next_message()
        operation = self._operations.add()
        try:
            asked.say(operation)
            operation.id = id
            if message != "":
                operation.message = message
            if trace_parent is not None:
                operation.trace_parent = trace_parent
            if asked.guard is not None:
                operation.guard_lease_id, operation.guard_fence = asked.guard
        except (TypeError, ValueError) as error:
            del self._operations[-1]
            if self._waiting:
                self._make_room()
            raise Aside from error
        self._count += 1
        self._bytes += size
        if deadline > self._latest:
            self._latest = deadline
        if deadline < self._rings:
            self._ring(deadline)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._unanswered[id] = future, deadline
        if len(self._unanswered) >= UNANSWERED or self._unsent + self._bytes >= UNSENT_BYTES:
            self.is_full = True
        idle = self._idle
        if idle is not None:
            self._idle = None
            if not idle.done():  # cancelled, where the event loop ends
                idle.set_result(None)
        return future

    async def room(self, deadline: float) -> None:
        """Wait until more may be asked for, or the stream has ended. Raises DeadlineExceeded.

        Who had room and does not use it leaves it to the next one.
        """
        future: asyncio.Future[Exception | None] = self._loop.create_future()
        self._waiting[future] = deadline
        if deadline < self._rings:
            self._ring(deadline)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._invited.discard(future)
            if self._waiting:
                self._make_room()
            raise
        finally:
            self._waiting.pop(future, None)
            self._invited.discard(future)
        if outcome is not None:
            raise outcome

    # Writing

    async def _write(self) -> None:
        call = self._call
        try:
            while True:
                if not self._count and not self._messages:
                    self._idle = self._loop.create_future()
                    await self._idle
                message = self._take()
                if message is not None:
                    await call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream has ended, and the reader learns with what
        except asyncio.CancelledError:
            self._cancelled()
        except Exception as error:  # noqa: BLE001 - told to the event loop
            self._broken(error)

    def _next_message(self) -> None:
        self._messages.append((self._message, self._bytes, self._latest))
        self._unsent += self._bytes
        self._message = state_pb2.PipelineRequest()
        self._operations = self._message.operations
        self._count = 0
        self._bytes = 0
        self._latest = 0.0

    def _take(self) -> state_pb2.PipelineRequest | None:
        """The message that goes out now. None: nobody waits any more for what it asks."""
        if not self._messages:
            self._next_message()
        message, size, latest = self._messages.popleft()
        self._unsent -= size
        if self.given_up:
            self._leave_out(message)
        if self.is_full or self._waiting:
            self._make_room()
        if not message.operations:
            return None
        self._used = now = self._loop.time()
        message.awaited = self._lane.writer.awaited()
        seconds = max(latest - now, 0.001)
        whole = int(seconds)
        timeout = message.timeout
        timeout.seconds = whole
        timeout.nanos = int((seconds - whole) * 1e9)
        return message

    def _leave_out(self, message: state_pb2.PipelineRequest) -> None:
        operations = message.operations
        for place in range(len(operations) - 1, -1, -1):
            id = operations[place].id
            if self._unanswered[id][0].done():
                del self._unanswered[id]
                del operations[place]
        self.given_up = bool(self._messages or self._count)

    # Reading

    async def _read(self) -> None:
        call = self._call
        unanswered = self._unanswered
        try:
            while True:
                response = await call.read()
                if not isinstance(response, state_pb2.PipelineResponse):
                    self._ended()
                    return
                if not self._has_answered:
                    self._has_answered = True
                    self._doubt_handle.cancel()
                    self._lane.detour.reset()
                    self._lanes.detour.reset()
                for result in response.results:
                    waiter = unanswered.pop(result.id, None)
                    if waiter is not None and not waiter[0].done():
                        waiter[0].set_result(result)
                if self.is_full or self._waiting:
                    self._make_room()
        except grpc.aio.AioRpcError as failure:
            self._failed(failure)
        except asyncio.CancelledError:
            self._cancelled()
            if is_task_cancelled():  # else its call was
                await asyncio.sleep(SETTLE_SECONDS)
        except Exception as error:  # noqa: BLE001 - told to the event loop
            self._broken(error)

    def _make_room(self) -> None:
        room = UNANSWERED - len(self._unanswered)
        if room <= 0 or self._unsent + self._bytes >= UNSENT_BYTES:
            return
        self.is_full = False
        room -= len(self._invited)
        while self._waiting and room > 0:
            future, _ = self._waiting.popitem(last=False)
            if not future.done():
                future.set_result(None)
                self._invited.add(future)
                room -= 1

    # Time

    def _ring(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = at
        self._timer = self._loop.call_at(max(at, self._rests), self._rung)

    def _rung(self) -> None:
        """Tell those whose time is up."""
        self._timer = None
        self._rings = NEVER
        now = self._loop.time()
        self._rests = now + REST_SECONDS * (len(self._unanswered) + len(self._waiting))
        following = NEVER
        for future, deadline in (*self._unanswered.values(), *self._waiting.items()):
            if future.done():
                continue
            if deadline <= now:
                self.given_up = True
                future.set_result(self._lanes.late())
            elif deadline < following:
                following = deadline
        if following < NEVER:
            self._ring(following)

    def _doubt(self) -> None:
        if self._unanswered:
            self._doubting = self._loop.create_task(self._ask_otherwise())
        else:
            self._doubt_handle = self._loop.call_later(PATIENCE_SECONDS, self._doubt)

    async def _ask_otherwise(self) -> None:
        """Nothing was answered for long: if a call by itself is, something in between breaks streams."""
        is_away = False
        try:
            await self._lanes.answers(b"", timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as failure:
            error = self._lanes.peer.error(failure)
            is_away = is_transient(error) or isinstance(error, DeadlineExceeded)
        if self._has_answered or self._left:
            return
        if is_away or not self._unanswered:
            self._doubt_handle = self._loop.call_later(PATIENCE_SECONDS, self._doubt)
        else:
            self._lanes.detour.begin(self._loop.time())
            self._end(Aside)

    def is_idle(self, since: float) -> bool:
        return not self._unanswered and not self._waiting and self._used < since

    def _end_if_idle(self) -> None:
        if self.is_idle(self._loop.time() - IDLE_SECONDS + 1.0):
            self.close()
        else:
            self._idle_handle = self._loop.call_later(IDLE_SECONDS, self._end_if_idle)

    # The end

    def close(self) -> None:
        """End the stream. What is not answered goes by itself."""
        self._end(Aside)

    def _ended(self) -> None:
        """The stream ended without an error, which no server of ours does to one that it has read from."""
        if self._has_answered:
            self._end(lambda: Unavailable("the server ended the stream"))
        else:
            self._lanes.detour.begin(self._loop.time())
            self._end(Aside)

    def _failed(self, failure: grpc.aio.AioRpcError) -> None:
        """The stream ended with an error: of all who wait for an answer, or of streams only."""
        lanes = self._lanes
        error = lanes.peer.error(failure)
        if is_transient(error) and (self._has_answered or error.reason):
            self._end(lambda: _caused(lanes.peer.error(failure), failure))
            if error.reason == DRAINING:
                lanes.failed()
            return
        if isinstance(error, Unauthenticated) and self._has_answered:  # its token holds no more; another may
            self._end(Aside)
            return
        # The server refuses what this lane says, or streams do not get through. What goes by itself learns more.
        own = error.reason and not isinstance(error, (Unimplemented, ResourceExhausted))
        (self._lane if own else lanes).detour.begin(self._loop.time())
        self._end(Aside)

    def _broken(self, error: Exception) -> None:
        """An error of this client, or of gRPC, that nothing here foresees: nobody is to wait for ever because of it."""
        said = "a stream of comity was ended by an error that it did not foresee"
        self._loop.call_exception_handler({"message": said, "exception": error})
        if not self._left:
            self._lanes.detour.begin(self._loop.time())
            self._end(Aside)

    def _cancelled(self) -> None:
        """All tasks are cancelled, as where the event loop ends: what is called soon after this goes by itself."""
        if not self._left:
            self._lanes.detour.pause(self._loop.time(), CLEANUP_SECONDS)
            self._end(Aside)

    def _end(self, why: Callable[[], Exception]) -> None:
        if self._left:
            return
        self._left = True
        self._lane.left(self)
        for handle in (self._timer, self._doubt_handle, self._idle_handle):
            if handle is not None:
                handle.cancel()
        if self._doubting is not None and not self._doubting.done() and self._doubting is not asyncio.current_task():
            self._doubting.cancel()
        self._call.cancel()
        self._writer.cancel()
        for future, _ in self._unanswered.values():
            if not future.done():
                future.set_result(why())
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)  # there is another stream
        self._unanswered.clear()
        self._waiting.clear()


def _caused(error: ComityError, cause: Exception) -> ComityError:
    error.__cause__ = cause
    return error
