"""Gives the writer's thread its turns.

Whoever asks for Python's lock is let in within some ms, unless the one who has it lets go of it by itself all the time,
as an event loop does that looks for news between two steps: then the asking never counts as having waited. A loop with
much to do would so keep a write from its end for seconds. Where it has, it stands still for a moment.
"""

import asyncio
import threading
import time
from typing import Final

PATIENCE: Final = 0.005  # seconds that a write may take before the loop looks whether it is in its way
BUSY: Final = 0.8  # of the time: a loop that works so much may be
STANDSTILL: Final = 0.001  # seconds


class Turns:
    """Between `begin` and `end`, which the loop's thread calls, another thread writes."""

    def __init__(self) -> None:
        self._written = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._worked = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._written.clear()
        self._wait(loop)

    def written(self) -> None:
        """Called by the other thread."""
        self._written.set()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._since, self._worked = time.monotonic(), time.thread_time()
        self._timer = loop.call_later(PATIENCE, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._written.is_set():
            return
        if time.thread_time() - self._worked > BUSY * (time.monotonic() - self._since):
            self._written.wait(STANDSTILL)
        self._wait(loop)
