"""Watching a key or a prefix: what a program holds of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Self

from . import requests
from .calls import Calls
from .cursor import Item
from .following import Following, OnConnection
from .model import Commit, Event, EventType, Resync

__all__ = ["Watch"]

PROGRESS_SECONDS = 10.0
MIN_PROGRESS_SECONDS = 0.1


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

    Raises Unavailable or DeadlineExceeded if the stream cannot be opened at first; and whatever a new stream could not
    heal, such as InvalidArgument and PermissionDenied. With resync=False: Compacted.
    """

    def __init__(
        self,
        calls: Calls,
        namespace: str,
        prefix: str,
        *,
        key: str | None,
        from_revision: int,
        epoch: str,
        initial: bool,
        types: Sequence[EventType] | None,
        previous: bool,
        progress_interval: float | None,
        resync: bool,
        timeout: float,
        on_connection: OnConnection | None = None,
    ) -> None:
        if key is not None and prefix:
            raise TypeError("give either a key or a prefix")
        if initial and from_revision:
            raise TypeError("give either initial or from_revision")
        if epoch and not from_revision:
            raise TypeError("epoch goes with from_revision")
        interval = PROGRESS_SECONDS if progress_interval is None else progress_interval
        if not isinstance(interval, (int, float)):
            raise TypeError(f"progress_interval must be a number of seconds, not {type(interval).__name__}")
        if not MIN_PROGRESS_SECONDS <= interval < float("inf"):
            raise ValueError(f"progress_interval is a number of seconds from {MIN_PROGRESS_SECONDS}, not {interval!r}")
        request = requests.watch(
            namespace,
            prefix if key is None else key,
            is_prefix=key is None,
            from_revision=from_revision,
            epoch=epoch,
            types=types or (),
            previous=previous,
            progress_interval=interval,
        )
        self._following = Following(
            calls,
            request,
            initial=initial,
            interval=interval,
            resync=resync,
            timeout=timeout,
            on_connection=on_connection,
        )
        self._whole: bool | None = None  # whether it yields commits

    @property
    def revision(self) -> int:
        """A bookmark: everything up to it was handed out, so that `from_revision=watch.revision + 1, epoch=watch.epoch`
        goes on elsewhere.

        Between two events of one commit it stays below that commit. 0 until a watch from now on is ready.
        """
        return self._following.cursor.revision

    @property
    def epoch(self) -> str:
        """Of the history that `revision` is of: store both, and a watch that goes on from them notices if the state was
        lost meanwhile. Empty until a watch that was given none is ready, or has handed out its first Resync."""
        return self._following.cursor.epoch

    async def ready(self) -> int:
        """Wait until the stream is open, and return the revision after which it shows every change."""
        while self._following.live is None:
            if self._following.closed:
                raise RuntimeError("the watch is closed")
            await self._following.step()
        return self._following.live

    async def close(self) -> None:
        """End the stream. Whoever waits for its next event sees it end. Closing twice is no error."""
        self._following.close()

    def __del__(self) -> None:
        # Dropped without being closed, as by a `break`: gRPC alone would keep the stream.
        following: Following | None = getattr(self, "_following", None)
        if following is not None and following.loop is not None and not following.loop.is_closed():
            following.loop.call_soon_threadsafe(following.close)

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
            self._whole = self._following.whole = whole
        elif self._whole is not whole:
            raise RuntimeError("a watch yields either events or commits: make another one")
        while not self._following.closed:
            if (item := self._following.cursor.take()) is not None:
                return item
            await self._following.step()
        return None
