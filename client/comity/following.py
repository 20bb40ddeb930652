"""The stream of a watch. It outlives its connections, and whoever waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from . import convert
from .calls import Calls
from .channel import Connection
from .cursor import Cursor
from .errors import ComityError, Compacted, DeadlineExceeded, OutOfRange, RateLimited, Unauthenticated, Unavailable
from .listing import Listing
from .model import Entry
from .retry import Backoff, Misfit
from .status import is_retriable
from .tasks import is_task_cancelled
from .v1 import state_pb2

__all__ = ["Following", "OnConnection"]

OnConnection = Callable[[ComityError | None], None]

SILENT_INTERVALS = 3

if TYPE_CHECKING:
    Stream = grpc.aio.UnaryStreamCall[state_pb2.WatchRequest, state_pb2.WatchResponse]


class Following:
    """Follows what a request watches, a step at a time, into `cursor`.

    request: with the first revision to see and its epoch, or 0 for what follows from now on.
    initial: begin with a Resync.
    interval: seconds between two signs of life of the stream; after SILENT_INTERVALS of them without a word it is taken
        for dead.
    resync: where the history is gone begin with a Resync, instead of raising Compacted.
    timeout: for how long to try to open the stream at first, and to read the state for a Resync.
    on_connection: called with the error once an open stream is lost, and with None once it is open again.
    """

    def __init__(
        self,
        calls: Calls,
        request: state_pb2.WatchRequest,
        *,
        initial: bool,
        interval: float,
        resync: bool,
        timeout: float,
        on_connection: OnConnection | None = None,
    ) -> None:
        self.cursor = Cursor(max(0, request.from_revision - 1), request.epoch)
        self.whole = False  # whether the cursor is to have commits
        self.closed = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.live: int | None = None  # what the first stream said
        self._calls = calls
        self._request = request
        self._interval = interval
        self._silence = interval * SILENT_INTERVALS
        self._resync = resync
        self._timeout = timeout
        self._on_connection = on_connection
        self._away = False
        self._backoff = Backoff()
        self._misfit = Misfit()
        self._token = ""  # that the stream bears
        self._unknown: float | None = None  # since when the server has refused each token, if it has
        self._stepping: asyncio.Task[None] | None = None
        self._call: Stream | None = None
        self._connection: Connection | None = None
        self._epoch = ""
        self._give_up: float | None = None  # when, unless there was a stream
        self._refused: ComityError | None = None  # what failed the last try before that
        self._lost = initial  # the next stream begins with a Resync, instead of at the bookmark

    async def step(self) -> None:
        """Open the stream, or read a message from it; or where that fails, wait until it may be tried again.

        All who wait at the same time wait for one step. It goes on if they are cancelled, and the next ones get it.
        """
        if self._stepping is None:
            self._stepping = asyncio.create_task(self._step())
            self._stepping.add_done_callback(_note_failure)
        stepping = self._stepping
        if not stepping.done():
            await asyncio.wait([stepping])
        if self._stepping is stepping:
            self._stepping = None
        if not self.closed and not stepping.cancelled():
            stepping.result()

    def close(self) -> None:
        """End the stream, and the step that is under way."""
        self.closed = True
        if self._stepping is not None:
            self._stepping.cancel()
        self.hang_up()

    async def _step(self) -> None:
        try:
            if self._call is None or self._connection is None:
                await self._open()
            else:
                self.cursor.receive(await self._read(self._call, self._connection), whole=self.whole)
                self._backoff.reset()
        except ComityError as error:
            connection = self._connection
            self.hang_up()
            await asyncio.sleep(self._healing(error, connection))
        except asyncio.CancelledError:
            self.hang_up()
            if is_task_cancelled():
                raise
            # Else the call was cancelled, with its channel: the next step sees that.

    async def _open(self) -> None:
        self.loop = asyncio.get_running_loop()
        if self.live is None and self._give_up is None:
            self._give_up = self.loop.time() + self._timeout
        request = state_pb2.WatchRequest()
        request.CopyFrom(self._request)
        if self._lost:
            request.from_revision = 0
            request.epoch = ""
        elif self.live is not None:
            request.from_revision = self.cursor.revision + 1
            request.epoch = self._epoch
        self._connection = self._calls.channels.connection()
        await self._connection.reach(max(0.0, min(self._silence, self._remaining())))
        self._connection.watches.add(self)
        self._call = self._connection.state.Watch(request, wait_for_ready=False)
        self._token = self._connection.token
        created = await self._read(self._call, self._connection)
        self.cursor.begin()
        if self._lost:
            # A state that began anew between the two calls broke the stream, and the next one finds another epoch.
            self.cursor.resync(created.revision, await self._state(created.revision), created.epoch)
        elif self.live is None:
            self.cursor.receive(created, whole=False)
            self.cursor.epoch = created.epoch
        self._epoch = created.epoch
        self._lost = False
        self._unknown = None
        if self.live is None:
            self.live = created.revision
            self._give_up = self._refused = None
        self._notice(None)

    async def _read(self, call: Stream, connection: Connection) -> state_pb2.WatchResponse:
        remaining = self._remaining()
        seconds = max(0.0, min(self._silence, remaining))
        try:
            async with asyncio.timeout(seconds):
                response = await call.read()
        except TimeoutError as error:
            if remaining < self._silence:
                raise DeadlineExceeded(f"no answer from {connection.address} within {self._timeout:g} s") from error
            raise Unavailable(f"the server said nothing for {seconds:.1f} s") from error
        except grpc.aio.AioRpcError as failure:
            raise connection.peer.error(failure) from failure
        if not isinstance(response, state_pb2.WatchResponse):
            raise Unavailable("the server ended the stream")
        told = response.progress_interval.ToMicroseconds() / 1e6  # 0: what was asked for
        self._silence = max(self._interval, told) * SILENT_INTERVALS
        return response

    async def _state(self, revision: int) -> tuple[Entry, ...]:
        """The entries of what is watched, as a revision had them."""
        namespace = self._request.namespace
        if revision == 0:  # to the server that would mean the newest; here it is the empty state
            return ()
        if self._request.WhichOneof("target") == "prefix":
            listed = state_pb2.ListRequest(namespace=namespace, prefix=self._request.prefix, revision=revision)
            return tuple(await Listing(self._calls, listed, self._timeout).all())
        got = state_pb2.GetRequest(namespace=namespace, key=self._request.key, revision=revision)
        response = await self._calls.read(lambda to: to.state.Get, got, self._timeout)
        return (convert.entry(response.entry),) if response.HasField("entry") else ()

    def _healing(self, error: ComityError, connection: Connection | None) -> float:
        """Seconds until a new stream may heal the error. Raises it if none can."""
        gone = isinstance(error, Compacted) or (isinstance(error, OutOfRange) and self.live is not None)
        if gone and self._resync and not self._lost:
            self._lost = True
            return 0.0
        renewed = False
        if isinstance(error, Unauthenticated) and connection is not None:
            is_first = self._unknown is None
            renewed = self._has_new_token(connection)
            if renewed and is_first:
                return 0.0
        if not (renewed or (gone and self._resync) or is_retriable(error) or isinstance(error, DeadlineExceeded)):
            raise error
        now = asyncio.get_running_loop().time()
        if self.live is None and self._misfit.lasts(error, now):
            self._give_up = None
            raise error
        if connection is not None and not isinstance(error, (RateLimited, Unauthenticated)):
            self._calls.channels.failed(connection)
        delay = self._backoff.delay(self._remaining(), error.retry_delay)
        if delay is None:
            refused, self._refused = self._refused, None
            self._give_up = None  # whoever asks again, tries again
            if refused is not None and isinstance(error, DeadlineExceeded):
                raise self._misfit.known(refused, now)  # it says more than that the time was up
            raise self._misfit.known(error, now)
        if self.live is None:
            self._refused = error
        elif not gone:
            self._notice(error)
        return delay

    def _has_new_token(self, connection: Connection) -> bool:
        """Whether there is another token than the one that was refused. What has new ones without end, of which the
        server takes none, is asked as long as the first stream may take."""
        now = asyncio.get_running_loop().time()
        if self._unknown is None:
            self._unknown = now
        return now - self._unknown < self._timeout and connection.has_new_token(self._token)

    def _notice(self, lost: ComityError | None) -> None:
        """Tell who wants to know, unless it is no news."""
        if self._away is not (lost is not None):
            self._away = not self._away
            if self._on_connection is not None:
                self._on_connection(lost)

    def _remaining(self) -> float:
        """Seconds that are left to open the first stream; no end of them, once there was one."""
        return math.inf if self._give_up is None else self._give_up - asyncio.get_running_loop().time()

    def hang_up(self) -> None:
        """End the stream, and keep nothing of its connection: the next step opens another one."""
        call, self._call, self._connection = self._call, None, None
        if call is not None:
            call.cancel()


def _note_failure(stepping: asyncio.Task[None]) -> None:
    """Whoever waits next is told, and if nobody does there is nothing to tell."""
    if not stepping.cancelled():
        stepping.exception()
