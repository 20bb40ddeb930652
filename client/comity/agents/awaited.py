"""Waiting for what becomes of keys: one watch for all who wait for some key under a prefix."""

import asyncio
from collections.abc import Callable
from typing import Final

from comity.client import Client
from comity.model import Entry, Event, Resync

__all__ = ["Awaited"]

LOOK: Final = "look"  # there is no telling what has happened up to now

News = Event | Exception | str
Waits = dict[str, list["asyncio.Queue[News]"]]  # of each key


class Awaited:
    """The keys under a prefix that somebody waits for. The watch is there while anybody does, in the event loop of the
    first one. A server limits how many streams a connection has, and waits of this kind can be many."""

    def __init__(self, state: Client, prefix: str) -> None:
        self._state = state
        self._prefix = prefix
        self._watching: _Watching | None = None

    async def until(self, key: str, holds: Callable[[Entry], bool]) -> Entry | None:
        """Wait until this holds of the entry of a key under the prefix, and return that; None: there is none.

        Raises what `Client.watch` raises; RuntimeError if the client is closed.
        """
        if self._watching is None or self._watching.has_ended:
            self._watching = _Watching(self._state, self._prefix)
        watching = self._watching
        news = watching.join(key)
        known = 0
        try:
            while True:
                item = await news.get()
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, str):
                    entry = await self._state.get(key)
                elif item.revision <= known:
                    continue
                else:
                    entry = item.entry if item.is_put else None
                if entry is None or holds(entry):
                    return entry
                known = entry.mod_revision
        finally:
            watching.leave(key, news)


class _Watching:
    """One watch, until nobody waits any more, or it fails."""

    def __init__(self, state: Client, prefix: str) -> None:
        self._waits: Waits = {}
        self._is_live = False
        self.has_ended = False
        self._task = asyncio.create_task(self._follow(state, prefix))

    def join(self, key: str) -> "asyncio.Queue[News]":
        news: asyncio.Queue[News] = asyncio.Queue()
        self._waits.setdefault(key, []).append(news)
        if self._is_live:
            news.put_nowait(LOOK)
        return news

    def leave(self, key: str, news: "asyncio.Queue[News]") -> None:
        self._waits[key].remove(news)
        if not self._waits[key]:
            del self._waits[key]
        if not self._waits:
            self.has_ended = True
            self._task.cancel()

    async def _follow(self, state: Client, prefix: str) -> None:
        failure: Exception = RuntimeError("the client was closed")
        try:
            async with state.watch(prefix) as watch:
                await watch.ready()
                self._is_live = True
                self._tell_all(LOOK)
                async for item in watch:
                    if isinstance(item, Resync):
                        self._tell_all(LOOK)
                    else:
                        for news in self._waits.get(item.key, ()):
                            news.put_nowait(item)
        except Exception as error:  # noqa: BLE001 - raised by all who wait
            failure = error
        finally:
            self.has_ended = True
            self._tell_all(failure)

    def _tell_all(self, item: News) -> None:
        for waiting in self._waits.values():
            for news in waiting:
                news.put_nowait(item)
