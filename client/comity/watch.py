"""Watching a key or a prefix: a stream that outlives its connections."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Self

import grpc

from . import convert, requests
from .calls import Calls, is_task_cancelled
from .channel import Connection
from .cursor import Cursor, Item
from .errors import ComityError, Compacted, DeadlineExceeded, OutOfRange, Unavailable
from .listing import Listing
from .model import Commit, Entry, Event, EventType, Resync
from .retry import Backoff
from .status import error_from_call, is_transient
from .v1 import state_pb2

__all__ = ["Watch"]

PROGRESS_SECONDS = 10.0
MIN_PROGRESS_SECONDS = 0.1
SILENT_INTERVALS = 3  # after as many intervals without a word a stream is taken for dead

if TYPE_CHECKING:
    Stream = grpc.aio.UnaryStreamCall[state_pb2.WatchRequest, state_pb2.WatchResponse]


class Watch:
    """The changes of a key or under a prefix, in order, without gaps, each once. Made by `Client.watch`.

        async for event in state.watch("agents/"): ...             # Event | Resync
        async for commit in state.watch("agents/").commits(): ...  # Commit | Resync; a commit is never split

    The stream is opened by the first use, in the event loop of that use, and opened anew after every disconnect, from
    where it was. Where the history that this needs is gone (it was compacted, the namespace was deleted, or a server
    that keeps its state in memory has started again), a `Resync` with the whole present state comes, and then what
    follows it.

    Cancelling a wait for the next event, as asyncio.wait_for does, loses nothing. Close a watch by `async with`, by
    `close`, or by dropping it.

    Raises Unavailable if the stream cannot be opened at first; and whatever a new stream could not heal, such as
    InvalidArgument and PermissionDenied. With resync=False: Compacted.
    """

    _call: Stream | None = None

    def __init__(
        self,
        calls: Calls,
        namespace: str,
        prefix: str,
        *,
        key: str | None,
        from_revision: int,
        initial: bool,
        types: Sequence[EventType] | None,
        previous: bool,
        progress_interval: float | None,
        resync: bool,
        timeout: float,
    ) -> None:
        if key is not None and prefix:
            raise TypeError("give either a key or a prefix")
        if initial and from_revision:
            raise TypeError("give either initial or from_revision")
        interval = PROGRESS_SECONDS if progress_interval is None else progress_interval
        if not MIN_PROGRESS_SECONDS <= interval < float("inf"):
            raise ValueError(f"progress_interval is a number of seconds from {MIN_PROGRESS_SECONDS}, not {interval!r}")
        self._calls = calls
        self._request = requests.watch(
            namespace,
            prefix if key is None else key,
            is_prefix=key is None,
            types=types or (),
            previous=previous,
            progress_interval=interval,
        )
        self._from_revision = from_revision
        self._silence = interval * SILENT_INTERVALS
        self._resync = resync
        self._timeout = timeout
        self._cursor = Cursor(max(0, from_revision - 1))
        self._backoff = Backoff()
        self._stepping = asyncio.Lock()
        self._closing = asyncio.Event()
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoch = ""
        self._live: int | None = None  # what the first stream said
        self._give_up: float | None = None  # when, unless there was a stream
        self._lost = initial  # the next stream begins with a Resync, instead of at the bookmark
        self._whole: bool | None = None  # whether it yields commits

    @property
    def revision(self) -> int:
        """A bookmark: everything up to it was handed out, so that `from_revision=watch.revision + 1` goes on elsewhere.

        Between two events of one commit it stays below that commit. 0 until a watch from now on is ready.
        """
        return self._cursor.revision

    async def ready(self) -> int:
        """Wait until the stream is open, and return the revision after which it shows every change."""
        while self._live is None:
            if self._closing.is_set():
                raise RuntimeError("the watch is closed")
            async with self._stepping:
                if self._live is None:
                    await self._step()
        return self._live

    async def close(self) -> None:
        """End the stream. Whoever waits for its next event sees it end. Closing twice is no error."""
        self._closing.set()
        self._hang_up()

    def __del__(self) -> None:
        # Dropped without being closed, as by a `break`: gRPC alone would keep the stream.
        call, self._call = self._call, None
        if call is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call.cancel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Resync:
        item = await self._next(whole=False)
        if item is None:
            raise StopAsyncIteration
        assert not isinstance(item, Commit)
        return item

    async def commits(self) -> AsyncGenerator[Commit | Resync]:
        """The same as whole commits, however large they are. A watch yields either events or commits: RuntimeError."""
        while (item := await self._next(whole=True)) is not None:
            assert not isinstance(item, Event)
            yield item

    async def _next(self, *, whole: bool) -> Item | None:
        if self._whole is None:
            self._whole = whole
        elif self._whole is not whole:
            raise RuntimeError("a watch yields either events or commits: make another one")
        while not self._closing.is_set():
            if (item := self._cursor.take()) is not None:
                return item
            async with self._stepping:
                if not self._cursor:
                    await self._step()
        return None

    async def _step(self) -> None:
        """Open the stream, or read a message from it; or where that fails, wait until it may be tried again."""
        if self._closing.is_set():
            return
        try:
            if self._call is None:
                await self._open()
            else:
                self._cursor.receive(await self._read(self._call), whole=bool(self._whole))
                self._backoff.reset()
        except ComityError as error:
            self._hang_up()
            await self._pause(self._healing(error))
        except asyncio.CancelledError:
            self._hang_up()
            if is_task_cancelled():
                raise
            # Else the call was cancelled, by close() or with its channel: the next step sees which.

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._live is None and self._give_up is None:
            self._give_up = self._loop.time() + self._timeout
        request = state_pb2.WatchRequest()
        request.CopyFrom(self._request)
        if not self._lost:
            request.from_revision = self._from_revision if self._live is None else self._cursor.revision + 1
            request.epoch = self._epoch
        self._connection = self._calls.channels.connection()
        self._call = self._connection.state.Watch(request, wait_for_ready=False)
        created = await self._read(self._call)
        self._cursor.begin()
        if self._lost:
            # A state that began anew between the two calls broke the stream, and the next one finds another epoch.
            self._cursor.resync(created.revision, await self._state(created.revision))
        elif self._live is None:
            self._cursor.receive(created, whole=False)
        self._epoch = created.epoch
        self._lost = False
        if self._live is None:
            self._live = created.revision
            self._give_up = None

    async def _read(self, call: Stream) -> state_pb2.WatchResponse:
        seconds = max(0.0, min(self._silence, self._remaining()))
        try:
            async with asyncio.timeout(seconds):
                response = await call.read()
        except TimeoutError as error:
            raise Unavailable(f"the server said nothing for {seconds:.1f} s") from error
        except grpc.aio.AioRpcError as failure:
            raise error_from_call(failure) from failure
        if not isinstance(response, state_pb2.WatchResponse):
            raise Unavailable("the server ended the stream")
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

    def _healing(self, error: ComityError) -> float:
        """Seconds until a new stream may heal the error. Raises it if none can."""
        gone = isinstance(error, Compacted) or (isinstance(error, OutOfRange) and self._live is not None)
        if gone and self._resync and not self._lost:
            self._lost = True
            return 0.0
        if not ((gone and self._resync) or is_transient(error) or isinstance(error, DeadlineExceeded)):
            raise error
        if self._connection is not None:
            self._calls.channels.failed(self._connection)
        delay = self._backoff.delay(self._remaining(), error.retry_delay)
        if delay is None:
            self._give_up = None  # whoever asks again, tries again
            raise error
        return delay

    def _remaining(self) -> float:
        """Seconds that are left to open the first stream; no end of them, once there was one."""
        return math.inf if self._give_up is None else self._give_up - asyncio.get_running_loop().time()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
