"""The event loop behind all synchronous clients of a process, in a thread of its own; and waiting for what it does.

What threads ask for is handed over to it as it comes, so that calls of many threads share messages as those of many
tasks do. The thread begins with the first call, and ends with the last client's connections or the process. A fork gets
one of its own.
"""

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from comity.channel import is_connected

__all__ = ["Call", "end_if_unused", "run"]

T = TypeVar("T")
Given = TypeVar("Given")
Made = TypeVar("Made")

JUDGED_SECONDS: Final = 0.1
END_SECONDS: Final = 2.0  # that the end of the process may wait for the thread


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in the event loop, and return what it returns or raise what it raises.

    KeyboardInterrupt, and whatever else ends the wait, cancels it. Raises RuntimeError in the event loop's own thread,
    which would wait for itself.
    """
    return Call[T]().run(coroutine)


class Call(Generic[T]):
    """One coroutine, and the thread that waits for it, which can run functions for it meanwhile."""

    __slots__ = ("_cancelled", "_context", "_coroutine", "_inbox", "_task", "_thread")

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As the function `run`."""
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        thread = _current()
        if threading.get_ident() == thread.ident:
            coroutine.close()
            raise RuntimeError("this is the thread of the synchronous clients' event loop, which would wait for itself")
        self._thread = thread
        try:
            while not thread.begin(self):
                self._thread = thread = _current()
            while (job := self._inbox.get()) is not None:
                job()
        except BaseException:
            self._cancelled = True
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                thread.loop.call_soon_threadsafe(self._cancel)
            raise
        task, self._task = self._task, None
        assert task is not None
        return task.result()

    def here(self, function: Callable[[Given], Made]) -> Callable[[Given], Awaitable[Made]]:
        """The function as an async one, which runs in the thread that waits."""

        async def call(given: Given) -> Made:
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()

            def end(result: Any, error: Exception | None) -> None:
                if not ended.done():
                    ended.set_result((result, error))

            def job() -> None:
                # What is no Exception, such as KeyboardInterrupt, ends the wait.
                try:
                    outcome: tuple[Any, Exception | None] = (function(given), None)
                except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                    outcome = (None, error)
                loop.call_soon_threadsafe(end, *outcome)

            self._inbox.put(job)
            result, error = await ended
            if error is not None:
                raise error
            made: Made = result
            return made

        return call

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the coroutine. In the event loop."""
        if self._cancelled:
            self._coroutine.close()
            self._thread.running -= 1
            return
        # In the context of the caller: what it traces is its own.
        self._task = loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._thread.running -= 1
        if self._cancelled and not task.cancelled():
            task.exception()  # nobody is there to hear of it
        if not self._thread.is_ending:  # else the process ends, and whoever still waits ends with it
            self._inbox.put(None)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Thread:
    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.running = 0  # calls
        self.is_ending = False
        self._calls: deque[Call[Any]] = deque()  # that are to begin
        self._is_told = False  # that there are some
        self._lock = threading.Lock()
        self._stop: asyncio.Event
        begun = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(begun),), name="comity", daemon=True)
        self._thread.start()
        begun.wait()
        self.ident = self._thread.ident

    def begin(self, call: Call[Any]) -> bool:
        """Have a call begun. False: the thread ends, and it is for another."""
        with self._lock:
            if self.is_ending:
                return False
            self._calls.append(call)
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self.loop.call_soon_threadsafe(self._begin)
        return True

    def end(self) -> None:
        """End whatever goes on."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(END_SECONDS)

    def end_if_unused(self) -> None:
        """End if nothing goes on, and no client is connected. Returns when it has ended, or will not."""
        judged = threading.Event()
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self._end_if_unused, judged)
            while not judged.wait(JUDGED_SECONDS) and self._thread.is_alive():
                pass  # another thread may have ended it in between
            if self.is_ending:
                self._thread.join()

    def _end_if_unused(self, judged: threading.Event) -> None:
        with self._lock:
            if not self._calls and not self.running and not is_connected(self.loop):
                self.is_ending = True
                self._stop.set()
        judged.set()

    def _begin(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, deque()
            self._is_told = False
        self.running += len(calls)
        for call in calls:
            call.begin(self.loop)

    async def _serve(self, begun: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        begun.set()
        await self._stop.wait()
        with self._lock:
            self.is_ending = True


_lock = threading.Lock()
_thread: _Thread | None = None
_parents: list[_Thread] = []  # of a child: what it must not touch, nor let go of


def _current() -> _Thread:
    global _thread
    if _thread is None or _thread.is_ending:
        with _lock:
            if _thread is None or _thread.is_ending:
                _thread = _Thread()
    return _thread


def end_if_unused() -> None:
    """Let go of the thread and its event loop if no client is connected any more: a process may then be forked."""
    if _thread is not None:
        _thread.end_if_unused()


def _end() -> None:
    if _thread is not None:
        _thread.end()


def _after_fork() -> None:
    global _thread, _lock
    if _thread is not None:
        _parents.append(_thread)
    _thread = None
    _lock = threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
