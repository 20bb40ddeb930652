"""Turns of transaction functions that contend for a key: those of one event loop go one after another.

Of many that try at the same time one gets through, and the others run again. In turns each gets through at its first
try, and begins with what the one before has left, so that it need not read it. A turn is an expedient and no lock:
whoever has waited for long goes on without one, and what decides is the server, as always.
"""

import asyncio
import weakref
from collections import deque
from typing import NamedTuple

from .model import Entry

__all__ = ["Contender", "Left", "Turns"]

WAIT_SECONDS = 0.25  # for a turn, which a function that takes long may have, or one that waits for this one


class Left(NamedTuple):
    """What a key holds at a revision; None: it is absent."""

    revision: int
    entry: Entry | None


class _Queue:
    """Of one key, while somebody has the turn."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, asyncio.Future[Left | None]]] = deque()
        self.came = 0  # how many; each has the number that it came as


class Turns:
    """The queues of a client and of all that share its connections, for each event loop its own."""

    def __init__(self) -> None:
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Queue]] = (
            weakref.WeakKeyDictionary()
        )

    def contender(self, namespace: str, timeout: float) -> "Contender":
        """For one run of `transact` on the running event loop, which begins now and has so many seconds."""
        loop = asyncio.get_running_loop()
        return Contender(self._queues.setdefault(loop, {}), namespace, loop.time() + timeout)


class Contender:
    """One that may have a turn: at the key that it lost at, or finds others to contend for when it begins."""

    def __init__(self, queues: dict[tuple[str, str], _Queue], namespace: str, deadline: float) -> None:
        self.deadline = deadline  # by the clock of the event loop; it waits for no turn beyond it
        self._queues = queues
        self._namespace = namespace
        self._queue: _Queue | None = None
        self._last = 0  # that waited when it was asked whether the turn is wanted
        self.key: str | None = None  # whose turn this has

    async def begin(self, key: str) -> Left | None:
        """Wait for a turn at a key that is about to be read first, if others contend for it.

        Returns what it holds, if that is known and no older than this call.
        """
        if self._queue is not None or not self.is_taken(key):
            return None
        return await self._take(key)

    def is_taken(self, key: str) -> bool:
        """Whether somebody has the turn at a key."""
        return (self._namespace, key) in self._queues

    async def lost(self, key: str) -> Left | None:
        """Leave the turn that it has, and wait for one at a key that somebody else has changed, if that is taken.

        Returns as `begin` does.
        """
        self.end(None)
        return await self._take(key)

    def wanted(self) -> bool:
        """Whether somebody waits for the turn to end. To be asked before that is committed which `end` tells of."""
        queue = self._queue
        if queue is None or not queue.waiting:
            return False
        self._last = queue.came
        return True

    def end(self, left: Left | None) -> None:
        """Leave the turn to the next one, with what is left, if that is known. Without a turn nothing happens.

        Who came after `wanted` was asked is not told: meanwhile he may have seen something newer.
        """
        queue, key = self._queue, self.key
        if queue is None or key is None:
            return
        self._queue = self.key = None
        last, self._last = self._last, 0
        while queue.waiting:
            number, turn = queue.waiting.popleft()
            if not turn.done():
                turn.set_result(left if number <= last else None)
                return
        del self._queues[self._namespace, key]

    async def _take(self, key: str) -> Left | None:
        queue = self._queues.get((self._namespace, key))
        if queue is None:
            self._queues[self._namespace, key] = self._queue = _Queue()
            self.key = key
            return None
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Left | None] = loop.create_future()
        queue.came += 1
        queue.waiting.append((queue.came, turn))
        try:
            await asyncio.wait([turn], timeout=max(0.0, min(WAIT_SECONDS, self.deadline - loop.time())))
        finally:
            if turn.done():  # it may have come just when this was cancelled
                self._queue, self.key = queue, key
            else:
                turn.cancel()
        return turn.result() if turn.done() and not turn.cancelled() else None
