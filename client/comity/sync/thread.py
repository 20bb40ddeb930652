"""The event loop behind all synchronous clients of a process, in a thread of its own; and waiting for what it does.

What threads ask for is handed over to it as it comes, so that calls of many threads share messages as those of many
tasks do. The thread begins with the first call, and ends with the last client's connections or the process. A fork gets
one of its own.
"""

import asyncio
import atexit
import contextlib
import contextvars
import functools
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, NoReturn, TypeVar

from comity.channel import is_connected

__all__ = ["Call", "end_if_unused", "run"]

T = TypeVar("T")
Given = TypeVar("Given")
Made = TypeVar("Made")

JUDGED_SECONDS: Final = 0.1
END_SECONDS: Final = 2.0  # that the end of the process may wait for the thread


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in the event loop, and return what it returns or raise what it raises.

    KeyboardInterrupt, and whatever else ends the wait, cancels it. A signal handler may call this, and a `__del__`.
    Raises RuntimeError in the event loop's own thread, which would wait for itself, and when the process ends.
    """
    return Call[T]().run(coroutine)


class Call(Generic[T]):
    """One coroutine, and the thread that waits for it, which can run functions for it meanwhile."""

    __slots__ = ("_cancelled", "_context", "_coroutine", "_inbox", "_task", "_thread")

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None
        self._thread: _Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As the function `run`."""
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        try:
            self._hand_over()
            while (job := self._inbox.get()) is not None:
                job()
        except BaseException:
            self._cancelled = True
            if self._thread is None:
                coroutine.close()
            else:
                self._thread.tell(self._cancel, self._thread)
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

    def begin(self, thread: "_Thread") -> None:
        """Start the coroutine. In the event loop."""
        if self._cancelled:
            self._coroutine.close()
            return
        thread.running += 1
        # In the context of the caller: what it traces is its own.
        self._task = asyncio.get_running_loop().create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(functools.partial(self._ended, thread))

    def refuse(self) -> None:
        """Have it handed to another event loop, since this one ends. In the event loop."""
        self._inbox.put(self._hand_over)

    def _hand_over(self) -> None:
        while True:
            self._thread = thread = _current()
            if thread.begin(self):
                return

    def _ended(self, thread: "_Thread", task: asyncio.Task[T]) -> None:
        thread.running -= 1
        if self._cancelled and not task.cancelled():
            task.exception()  # nobody is there to hear of it
        if not thread.is_ending:  # else the process ends, and whoever still waits ends with it
            self._inbox.put(None)

    def _cancel(self, thread: "_Thread") -> None:
        thread.begin_all()  # it may be among those, if what ended the wait came before the event loop was told
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()


class _Link:
    """What precedes a thread: of all that follow each other, the first that does not end is the current one."""

    def __init__(self) -> None:
        self._next: dict[None, _Thread] = {}

    @property
    def next(self) -> "_Thread | None":
        """The thread that follows this one, if there is any yet."""
        return self._next.get(None)

    def successor(self) -> "_Thread":
        """The thread that follows this one, the same for all who ask; made if there is none."""
        return self.next or self._next.setdefault(None, _Thread())  # atomic, where a lock could be held for ever


class _Thread(_Link):
    """An event loop, and the thread that runs it once it was started.

    No lock guards it. A signal handler, or a `__del__` that the garbage collector calls, may make a call of its own
    between any two steps of the one below it, which goes on only after that; or may raise, and it never does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None  # until it runs
        self.ident: int | None = None  # while it does not run
        self.running = 0  # calls
        self.is_ending = False  # what its own thread says, and does not take back
        self._calls: deque[Call[Any]] = deque()  # that are to begin
        self._begun = 0  # how often the event loop has begun all that there were
        self._told = -1  # as of which of these times it is sure to do so again
        self._stop = asyncio.Event()
        self._runs: dict[None, threading.Thread] = {}

    def start(self) -> None:
        """Have a thread run it. Any number of times: one of the threads does, and the others end."""
        if not self._runs:
            threading.Thread(target=self._run, daemon=True).start()

    def begin(self, call: Call[Any]) -> bool:
        """Have a call begun. False: the thread ends, and it is for another."""
        self._calls.append(call)
        if self.is_ending:
            try:
                self._calls.remove(call)
            except ValueError:
                return True  # the event loop has it, and refuses it
            return False
        begun = self._begun
        if self._told != begun:
            self.tell(self.begin_all)
            # Only now: until here it could end otherwise, and nobody would ever tell. Who comes meanwhile tells again.
            self._told = begun
        return True

    def tell(self, function: Callable[..., None], *args: Any) -> None:
        """Have a function called in the event loop. Nothing happens before it runs, nor after it has ended."""
        if (loop := self.loop) is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(function, *args)

    def begin_all(self) -> None:
        """Begin the calls that are to begin. In the event loop."""
        self._begun += 1
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                return
            if self.is_ending:
                call.refuse()
            else:
                call.begin(self)

    def end(self) -> None:
        """End whatever goes on."""
        thread = self._runs.get(None)
        if thread is not None and self.loop is not None:
            self.tell(self._stop.set)
            thread.join(END_SECONDS)

    def end_if_unused(self) -> None:
        """End if nothing goes on, and no client is connected. Returns when it has ended, or will not."""
        thread = self._runs.get(None)
        if thread is None or self.loop is None:  # somebody starts it, to use it
            return
        judged: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.tell(self._end_if_unused, judged)
        while thread.is_alive():  # another thread may have ended it in between
            with contextlib.suppress(queue.Empty):
                judged.get(timeout=JUDGED_SECONDS)
                break
        if self.is_ending:
            thread.join()

    def _end_if_unused(self, judged: queue.SimpleQueue[None]) -> None:
        if not self._calls and not self.running and not is_connected(asyncio.get_running_loop()):
            self.is_ending = True
            self._stop.set()
        judged.put(None)

    def _run(self) -> None:
        this = threading.current_thread()
        if self._runs.setdefault(None, this) is not this:
            return
        this.name = "comity"
        self.ident = this.ident
        try:
            asyncio.run(self._serve())
        finally:
            self.ident = None  # which another thread may have now

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begin_all()  # what came before there was anything to tell
        await self._stop.wait()
        self.is_ending = True
        self.begin_all()  # what came before it was said; what comes from now on is taken back


_thread = _Link()  # the current one, or one that it follows
_is_over = False
_parents: list[_Link] = []  # of a child: what it must not touch, nor let go of


def _current() -> _Thread:
    global _thread
    thread = _last()
    if isinstance(thread, _Thread) and threading.get_ident() == thread.ident:
        raise RuntimeError("this is the thread of the synchronous clients' event loop, which would wait for itself")
    if _is_over or sys.is_finalizing():
        _refuse()
    while not isinstance(thread, _Thread) or thread.is_ending:
        thread = thread.successor()
    _thread = thread
    thread.start()
    return thread


def _refuse() -> NoReturn:
    """Raise RuntimeError. In a daemon thread wait for the end of the process, as those do whose calls it ends."""
    if threading.current_thread().daemon and not sys.is_finalizing():
        queue.SimpleQueue[None]().get()
    raise RuntimeError("the process ends, and has ended the thread of the synchronous clients")


def _last() -> _Link:
    thread = _thread
    while thread.next is not None:
        thread = thread.next
    return thread


def end_if_unused() -> None:
    """Let go of the thread and its event loop if no client is connected any more: a process may then be forked."""
    thread = _last()
    if isinstance(thread, _Thread):
        thread.end_if_unused()


def _end() -> None:
    global _is_over
    _is_over = True
    thread = _last()
    if isinstance(thread, _Thread):
        thread.end()


def _after_fork() -> None:
    global _thread, _is_over
    _parents.append(_thread)
    _thread = _Link()
    _is_over = False


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
