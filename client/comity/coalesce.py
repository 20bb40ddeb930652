"""Calls that are in flight together share the messages of a Pipeline.

A lane is the way of all calls of one event loop to one server that have a namespace and an author in common. What is
asked for is said in the message that goes out next: at once, unless another one is just being written, in which case it
gathers what comes meanwhile. Nothing waits for more to come. A stream has a task that reads and one that writes,
however many calls there are; each call has a future, and one timer watches over the deadlines of all.

Where a stream cannot be had, as behind a proxy that breaks it or holds back its answers, calls go by themselves for a
while, under the request ids that they have: what both ways brought to the server is applied once.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .detour import Detour
from .errors import ComityError, DeadlineExceeded, RateLimited, Unauthenticated
from .peer import Peer
from .pipelined import Asked, text_bytes
from .request_ids import Writer
from .status import error_from_result, is_transient
from .stream import Aside, Stream
from .v1 import state_pb2

if TYPE_CHECKING:
    from .stream import Call

__all__ = ["Aside", "Lane", "Lanes"]

LANES: Final = 8  # of one connection: a server lets one have 16 pipelines, which clients of one process may share
BUSY_SECONDS: Final = 1.0  # so long after a call a lane does not yet make place for another
INTERRUPT_SECONDS: Final = 1.0  # that another thread's event loop may take to end its streams

LARGE_BYTES: Final = 256 * 1024  # beyond it an operation goes by itself: it gains nothing, and would hold up others

LIMITED_SECONDS: Final = 10.0  # after a call was refused for a rate that may be why another one has no answer


class Interruptible(Protocol):
    """What has a stream of its own, which must not be open when the process forks."""

    def interrupt(self) -> None:
        """End the stream; a little later another one may begin."""


class Lanes:
    """The lanes of one connection. They end with it.

    open: begins a Pipeline, with the metadata that it is given.
    answers: asks the server for any other answer.
    peer: the server, for messages.
    failed: called when the server is of no use now.
    """

    def __init__(
        self, open: Callable[..., Call], answers: Callable[..., Any], peer: Peer, failed: Callable[[], None]
    ) -> None:
        self.open = open
        self.answers = answers
        self.peer = peer
        self.failed = failed
        self.detour = Detour()
        self.limited = ("", 0.0)  # what a call was refused with last for a rate, and when
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.tasks: set[asyncio.Task[None]] = set()  # of all streams
        self.beside: weakref.WeakSet[Interruptible] = weakref.WeakSet()  # what else is interrupted with them
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._ended = False

    def lane(self, namespace: str, author: str, writer: Writer) -> Lane | None:
        """The lane of these. None: calls go by themselves now."""
        try:
            lane = self._lanes.get((namespace, author, writer.name))
        except TypeError:  # of a namespace that is nothing of the kind
            return None
        return self._add(namespace, author, writer) if lane is None else lane

    def late(self) -> DeadlineExceeded:
        """The error of a call that had no answer in its time, with what the server may have held it back for."""
        why, at = self.limited
        seen = why and self.loop.time() - at < LIMITED_SECONDS
        held_back = f"; it held calls back, and of another one it said: {why}" if seen else ""
        return DeadlineExceeded(f"no answer from {self.peer.address} in time{held_back}")

    def end(self) -> None:
        """End all streams, and begin no more: what waits for an answer goes by itself, or fails with its channel."""
        self._ended = True
        for lane in self._lanes.values():
            lane.end()
        self._lanes.clear()

    def interrupt(self) -> None:
        """End all streams, from any thread; a little later calls begin others."""
        if self.loop.is_closed():
            return
        done = threading.Event()
        if self.loop.is_running() and threading.get_ident() != self._thread:
            self.loop.call_soon_threadsafe(self._interrupt, done)
            done.wait(INTERRUPT_SECONDS)
        else:
            self._interrupt(done)

    def _interrupt(self, done: threading.Event) -> None:
        self.detour.begin(self.loop.time())
        self.detour.reset()
        for lane in self._lanes.values():
            lane.close()
        for other in list(self.beside):
            other.interrupt()
        done.set()

    async def ended(self) -> None:
        """Wait until nothing is left of the streams."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    def end_soon(self) -> None:
        """The same from anywhere, once nobody has the connection any more."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.end)

    def _add(self, namespace: str, author: str, writer: Writer) -> Lane | None:
        if self._ended or not is_text(namespace) or not is_text(author):
            return None
        if len(self._lanes) >= LANES:
            since = self.loop.time() - BUSY_SECONDS
            idle = next((key for key, lane in self._lanes.items() if lane.is_idle(since)), None)
            if idle is None:
                return None
            self._lanes.pop(idle).end()
        lane = self._lanes[namespace, author, writer.name] = Lane(self, namespace, author, writer)
        return lane


class Lane:
    """One stream after another, each opened when it is needed."""

    def __init__(self, lanes: Lanes, namespace: str, author: str, writer: Writer) -> None:
        self.namespace = namespace
        self.author = author
        self.writer = writer
        self.detour = Detour()
        self._lanes = lanes
        self._stream: Stream | None = None
        self._loop = lanes.loop
        self._used = 0.0  # when the last stream ended
        self._ended = False

    async def ask(
        self, asked: Asked[Any], id: int, deadline: float, message: str, trace_parent: str | None
    ) -> state_pb2.PipelineResult:
        """Say it, and wait for the answer.

        id: of no other operation under the writer's name, unless this is its repeat.
        deadline: by the clock of the event loop.

        Raises the error that it is answered with, or that the stream ended with; DeadlineExceeded; Aside if it is to go
        by itself.
        """
        size = asked.size if message == "" else asked.size + text_bytes(message)
        if size > LARGE_BYTES:
            raise Aside
        while True:
            stream = self._stream
            if stream is None:
                now = self._loop.time()
                if self._ended or self.detour.lasts(now) or self._lanes.detour.lasts(now):
                    raise Aside
                stream = self._stream = Stream(self, self._lanes)
            if not stream.is_full:
                break
            await stream.room(deadline)
        try:
            outcome = await stream.say(asked, size, id, deadline, message, trace_parent)
        except asyncio.CancelledError:
            stream.given_up = True
            raise
        if isinstance(outcome, Exception):
            error = outcome
        elif outcome.code:
            error = error_from_result(outcome, stream.request_id)
        else:
            return outcome
        if isinstance(error, RateLimited):
            self._lanes.limited = error.message, self._loop.time()
        if isinstance(error, Unauthenticated):
            raise Aside from error  # by itself it has the token that there is now
        if isinstance(error, ComityError) and (is_transient(error) or isinstance(error, DeadlineExceeded)):
            self._lanes.failed()
        raise error

    def is_idle(self, since: float) -> bool:
        """Whether nobody waits for an answer, or has asked for anything since then."""
        stream = self._stream
        return self._used < since if stream is None else stream.is_idle(since)

    def left(self, stream: Stream) -> None:
        """A stream takes up nothing more."""
        if self._stream is stream:
            self._stream = None
            self._used = self._loop.time()

    def close(self) -> None:
        """End the stream. The next call begins another."""
        if self._stream is not None:
            self._stream.close()

    def end(self) -> None:
        """End the stream, and begin no more: who still waits for room goes by itself, or fails with its channel."""
        self._ended = True
        self.close()


def is_text(value: object) -> bool:
    """Whether a message can hold it. What it cannot hold, the building of a request explains."""
    try:
        return isinstance(value, str) and len(value.encode()) >= 0
    except UnicodeEncodeError:
        return False
