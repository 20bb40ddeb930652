"""Watching a key or a prefix, in a loop."""

import asyncio
from collections.abc import Iterator
from typing import Self

from comity import watch
from comity.model import Commit, Event, Resync

from .thread import run
from .waiting import items, waiting

__all__ = ["Watch"]


class Watch:
    """The changes of a key or under a prefix, in order, without gaps, each once. Made by `Client.watch`.

        for event in state.watch("agents/"): ...             # Event | Resync
        for commit in state.watch("agents/").commits(): ...  # Commit | Resync; a commit is never split

    It does what `comity.Watch` does. A loop ends when another thread closes the watch. Ctrl-C while it waits raises
    KeyboardInterrupt and loses nothing. Close a watch by `with`, by `close`, or by dropping it.
    """

    def __init__(self, watch: watch.Watch) -> None:
        self._async = watch

    @property
    def revision(self) -> int:
        """A bookmark: everything up to it was handed out, so that `from_revision=watch.revision + 1, epoch=watch.epoch`
        goes on elsewhere.

        Between two events of one commit it stays below that commit. 0 until a watch from now on is ready.
        """
        return self._async.revision

    @property
    def epoch(self) -> str:
        """Of the history that `revision` is of: store both, and a watch that goes on from them notices if the state was
        lost meanwhile. Empty until a watch that was given none is ready, or has handed out its first Resync."""
        return self._async.epoch

    ready = waiting(watch.Watch.ready)
    close = waiting(watch.Watch.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event | Resync:
        try:
            return run(self._next(None))
        except StopAsyncIteration:
            raise StopIteration from None

    def next(self, timeout: float | None = None) -> Event | Resync:
        """The next event. Raises TimeoutError if there is none within so many seconds (None: it waits on), and
        RuntimeError once the watch is closed. Nothing is lost by it."""
        try:
            return run(self._next(timeout))
        except StopAsyncIteration:
            raise RuntimeError("the watch is closed") from None

    async def _next(self, timeout: float | None) -> Event | Resync:
        async with asyncio.timeout(timeout):
            return await anext(self._async)

    def commits(self) -> Iterator[Commit | Resync]:
        """The same as whole commits, however large they are. A watch yields either events or commits: RuntimeError."""
        return items(self._async.commits())
