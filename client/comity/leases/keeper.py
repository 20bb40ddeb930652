"""Keeps leases alive: one stream for all leases of a client and an event loop.

A lease is renewed every third of its ttl. What is due is sent at once, and answers are taken as they come; a stream
that ends is followed by another, perhaps to another server, on which all leases are renewed anew. One that does not
answer for a quarter of a ttl is given up too, and the next one then has the time that is left. Whatever becomes of
streams, a timer of each lease watches over its ttl: who holds a lease is told of its loss, also where nothing is heard
any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc

from comity import clock, tracing
from comity.errors import ComityError, PermissionDenied, RateLimited, Unauthenticated, Unavailable
from comity.tasks import is_task_cancelled
from comity.v1 import lease_pb2

from . import renewal

if TYPE_CHECKING:
    from comity.channel import Channels, Connection

    from .lease import Lease

    Call = grpc.aio.StreamStreamCall[lease_pb2.KeepAliveRequest, lease_pb2.KeepAliveResponse]

__all__ = ["Keeper", "Keepers"]

FIRST_SECONDS: Final = 0.5  # after which a lease is renewed first: then the server says unasked that it has ended
RENEWED: Final = 1 / 3  # of the ttl, between one renewal and the next
PATIENCE: Final = 1 / 4  # of the ttl, for an answer
FIRST_DELAY: Final = 0.02  # seconds at the most, before another stream is tried; it doubles with each that fails
LONGEST_DELAY: Final = 1.0
SHARE_OF_TTL: Final = 1 / 8  # beyond which no lease waits for another stream
IDLE_SECONDS: Final = 30.0  # for which a stream is kept that no lease needs
SETTLE_SECONDS: Final = 0.02  # in which gRPC says to the event loop what it has to say of a call that was cancelled
CLEANUP_SECONDS: Final = 5.0  # after all tasks were cancelled no stream begins, which a loop that ends would not end
FORK_SECONDS: Final = 0.25  # that a fork may take, before which the stream was ended

HAS_ENDED: Final = "the server says that it has ended"


class _Kept:
    """A lease that is kept alive, for all objects that stand for it."""

    def __init__(self, lease: Lease) -> None:
        self.namespace = lease.namespace
        self.id = lease.id
        self.ttl = lease.ttl
        self.deadline = lease._deadline
        self.leases = [lease]
        self.asked = False  # a renewal is to be sent, or is not answered yet
        self.sent: float | None = None  # when
        self.timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Keeper:
    """The leases that one event loop keeps alive. Everything but `lose` and `discard` is called in that loop."""

    def __init__(self, channels: Channels) -> None:
        self.loop = asyncio.get_running_loop()
        self._channels = channels
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._due: deque[_Kept] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None  # the one before
        self._call: Call | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._failure: ComityError | None = None  # why there is no stream
        self._failures = 0  # of streams, since one answered
        self._doubted = False  # since one answered, one was given up for its silence
        self._rest = 0.0  # seconds that the next stream has to wait
        self._pause = 0.0  # until when none begins
        self._closed = False

    def keep(self, lease: Lease) -> None:
        """Keep a lease alive from now on."""
        kept = self._kept.get((lease.namespace, lease.id))
        if kept is not None:
            kept.leases.append(lease)
            lease._extend(kept.deadline)
            return
        self._kept[lease.namespace, lease.id] = kept = _Kept(lease)
        left = kept.deadline - clock.now()
        self._set(kept, min(FIRST_SECONDS, kept.ttl * RENEWED, max(0.0, left - kept.ttl * RENEWED)))

    def discard(self, lease: Lease) -> None:
        """Keep a lease alive no longer. From anywhere."""
        self._here(self._discard, lease)

    def lose(self, lease: Lease, why: str) -> bool:
        """A lease is lost. From anywhere. False: the event loop has ended, and tells nobody."""
        return self._here(self._lose_one, lease, why)

    def ended(self, namespace: str, id: int) -> None:
        """The server has said of a lease that it has ended. From anywhere."""
        self._here(self._lose_all, namespace, id, HAS_ENDED)

    def hang_up(self) -> None:
        """End the stream. Another one follows while there are leases."""
        if self._call is not None:
            self._call.cancel()

    def interrupt(self) -> None:
        """The process forks: end the stream, and wait a little before the next one."""
        self._rest = FORK_SECONDS
        self.hang_up()

    async def close(self) -> None:
        """End the stream, and renew nothing more. The leases are lost when what they have left has passed."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        tasks = [task for task in (self._task, self._ending) if task is not None and not task.done()]
        if self._task is not None:
            self._task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for kept in self._kept.values():
            self._set(kept, kept.deadline - clock.now())

    def _here(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Call it in the event loop: at once, if that is the running one. False: it has ended."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            function(*arguments)
            return True
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    # The leases

    def _set(self, kept: _Kept, after: float) -> None:
        kept.stop()
        kept.timer = self.loop.call_later(max(0.0, after), self._ring, kept)

    def _ring(self, kept: _Kept) -> None:
        left = kept.deadline - clock.now()
        if left <= 0:
            self._lose(kept, "")
        elif self._closed:
            self._set(kept, left)
        elif not kept.asked or self._task is None or self._task.done():
            self._ask(kept)
        else:
            if not self._doubted:
                self._doubted = True
                self.hang_up()  # another way may be better
            self._set(kept, left)

    def _ask(self, kept: _Kept) -> None:
        kept.asked = True
        kept.sent = None
        self._due.append(kept)
        self._wake.set()
        left = kept.deadline - clock.now()
        self._set(kept, left if self._doubted else min(left, kept.ttl * PATIENCE))
        if (self._task is None or self._task.done()) and self.loop.time() >= self._pause:
            # In a context of its own: it is no part of whatever the lease is part of.
            self._task = self.loop.create_task(self._run(), context=contextvars.Context())

    def _receive(self, response: lease_pb2.KeepAliveResponse) -> None:
        self._failures = 0
        self._doubted = False
        kept = self._kept.get((response.namespace, response.lease_id))
        if kept is None:
            return
        left = renewal.left(response)
        if not left:
            self._lose(kept, HAS_ENDED)
            return
        if kept.sent is None:
            return
        if clock.now() >= kept.deadline:  # who asked meanwhile was told that it is lost
            self._lose(kept, "")
            return
        kept.asked = False
        kept.deadline = max(kept.deadline, kept.sent + left)
        for lease in kept.leases:
            lease._extend(kept.deadline)
        self._set(kept, kept.sent + kept.ttl * RENEWED - clock.now())
        kept.sent = None

    def _lose_all(self, namespace: str, id: int, why: str) -> None:
        kept = self._kept.get((namespace, id))
        if kept is not None:
            self._lose(kept, why)

    def _deny(self, error: PermissionDenied) -> None:
        """What may not be renewed any more is lost. The others go on, without waiting for it."""
        for kept in list(self._kept.values()):
            if kept.namespace == error.namespace and error.metadata.get("lease_id", f"{kept.id}") == f"{kept.id}":
                self._lose(kept, error.message)

    def _lose_one(self, lease: Lease, why: str) -> None:
        self._discard(lease)
        lease._lose(why)

    def _lose(self, kept: _Kept, why: str) -> None:
        self._forget(kept)
        for lease in kept.leases:
            silence = lease._silence() + (f" ({self._failure.message})" if self._failure is not None else "")
            lease._lose(why or silence)

    def _discard(self, lease: Lease) -> None:
        kept = self._kept.get((lease.namespace, lease.id))
        if kept is not None and lease in kept.leases:
            kept.leases.remove(lease)
            if not kept.leases:
                self._forget(kept)

    def _forget(self, kept: _Kept) -> None:
        kept.stop()
        self._kept.pop((kept.namespace, kept.id), None)
        if not self._kept and self._task is not None:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self.loop.call_later(IDLE_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._kept and self._task is not None:
            task, self._task = self._task, None
            self._ending = task
            task.cancel()

    # The stream

    async def _run(self) -> None:
        """One stream after another, for as long as there are leases."""
        try:
            while self._kept and not self._closed:
                try:
                    connection = self._channels.connection()
                except RuntimeError:  # the client is closed
                    return
                try:
                    await self._stream(connection)
                except PermissionDenied as error:
                    self._failure = error
                    self._deny(error)
                except Unauthenticated as error:  # the next stream may have another token
                    self._failure = error
                except RateLimited as error:
                    self._failure = error
                    self._rest = error.retry_after
                except ComityError as error:
                    self._failure = error
                    self._channels.failed(connection)
                except Exception as error:  # noqa: BLE001 - told to the event loop, and leases must be renewed
                    self._complain(error)
                await asyncio.sleep(self._delay())
        except asyncio.CancelledError:
            if self._task is asyncio.current_task():
                self._pause = self.loop.time() + CLEANUP_SECONDS
            await asyncio.sleep(SETTLE_SECONDS)

    async def _stream(self, connection: Connection) -> None:
        """Renew on a stream until it ends. Raises why it did."""
        await self._reach(connection)
        connection.watches.add(self)
        connection.lanes.beside.add(self)
        self._call = call = tracing.untraced(connection.leases.KeepAlive)
        self._due.clear()
        for kept in list(self._kept.values()):
            self._ask(kept)
        writer = asyncio.create_task(self._write(call))
        writer.add_done_callback(self._wrote)
        try:
            while True:
                response = await call.read()
                if not isinstance(response, lease_pb2.KeepAliveResponse):
                    raise Unavailable("the server ended the stream")
                self._failure = None
                self._receive(response)
        except grpc.aio.AioRpcError as failure:
            raise connection.peer.error(failure) from failure
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            raise Unavailable(f"no answer from {connection.address} in time") from None
        finally:
            self._call = None
            call.cancel()
            writer.cancel()

    async def _reach(self, connection: Connection) -> None:
        shortest = min((kept.ttl for kept in self._kept.values()), default=LONGEST_DELAY)
        try:
            await connection.reach(shortest * PATIENCE)
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            raise Unavailable(f"no answer from {connection.address} in time") from None

    async def _write(self, call: Call) -> None:
        # Where the stream has ended, whoever reads learns with what.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                while self._due:
                    kept = self._due.popleft()
                    if self._kept.get((kept.namespace, kept.id)) is kept:
                        kept.sent = clock.now()
                        await call.write(lease_pb2.KeepAliveRequest(namespace=kept.namespace, lease_id=kept.id))
                self._wake.clear()
                await self._wake.wait()

    def _wrote(self, writer: asyncio.Task[None]) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._complain(error)
            self.hang_up()

    def _complain(self, error: BaseException) -> None:
        said = "a stream of comity was ended by an error that it did not foresee"
        self.loop.call_exception_handler({"message": said, "exception": error})

    def _delay(self) -> float:
        """Seconds before the next stream: jittered, and short enough for the shortest ttl."""
        bound = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures, 10))
        self._failures += 1
        shortest = min((kept.ttl for kept in self._kept.values()), default=LONGEST_DELAY)
        rest, self._rest = self._rest, 0.0
        return rest + random.uniform(0, min(bound, shortest * SHARE_OF_TTL))


class Keepers:
    """The keepers of a client, and of all that share its connections: one an event loop."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._by_loop: dict[asyncio.AbstractEventLoop, Keeper] = {}

    def keeper(self) -> Keeper:
        """That of the running event loop. Raises RuntimeError if the client is closed."""
        self._channels.check_open()
        loop = asyncio.get_running_loop()
        keeper = self._by_loop.get(loop)
        if keeper is None:
            for known in list(self._by_loop):
                if known.is_closed():
                    self._by_loop.pop(known, None)
            keeper = self._by_loop[loop] = Keeper(self._channels)
        return keeper

    def ended(self, namespace: str, id: int) -> None:
        """The server has said of a lease that it has ended: tell whoever keeps it alive."""
        for keeper in list(self._by_loop.values()):
            keeper.ended(namespace, id)

    async def close(self) -> None:
        """Renew nothing more in the running event loop."""
        keeper = self._by_loop.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.close()
