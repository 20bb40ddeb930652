"""What a child of a supervisor runs as: a task, a process, or an agent that a former supervisor has started."""

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from .forking import AgentProcess
from .identity import identity
from .interrupts import without_interrupts
from .presence import Presence
from .process import Ended, Start, run_process
from .text import described

__all__ = ["Adopted", "End", "ProcessRun", "Running", "TaskRun"]

PATIENCE_SECONDS: Final = 0.5  # with a task that was cancelled and goes on: then it is cancelled again
KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has the latter alone
REAPED_CHECKS: Final = 20
REAPED_SECONDS: Final = 0.01  # between them: multiprocessing has the exit code a moment after it has reaped


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended."""

    failed: bool  # its function did not return
    why: str  # for people: "returned", "ValueError: …", "killed by SIGKILL"
    error: BaseException | None = None  # of a task
    hopeless: bool = False  # its process did not get as far as its function, and no other one will


class Running(Protocol):
    """One start of a child."""

    @property
    def pid(self) -> int:
        """Of its process; 0: not known."""

    async def ended(self) -> End:
        """Wait for its end. Can be awaited any number of times, and cancelled without harm."""

    async def stop(self, grace: float) -> None:
        """Ask it to end, kill it after so many seconds, and return when it has ended."""

    def kill(self) -> None:
        """Kill it, without a chance to end."""

    def leave(self) -> bool:
        """Have nothing to do with it any more, if it can go on without whoever has started it. Whether it can."""


class TaskRun:
    """A child that is a task of the running event loop."""

    def __init__(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        self._task = asyncio.create_task(work, name=f"agent {name}")
        self._killing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return os.getpid()

    async def ended(self) -> End:
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return End(True, "cancelled")
        error = self._task.exception()
        return End(False, "returned") if error is None else End(True, described(error), error)

    async def stop(self, grace: float) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=None if grace == math.inf else grace)
        if not self._task.done():
            self.kill()
            await asyncio.wait([self._task])

    def kill(self) -> None:
        if self._killing is None:
            self._killing = asyncio.create_task(self._kill())

    def leave(self) -> bool:
        return False

    async def _kill(self) -> None:
        """A task cannot be killed: it is cancelled until it ends."""
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=PATIENCE_SECONDS)


class ProcessRun:
    """A child that is a process of its own."""

    def __init__(self, start: Start) -> None:
        self._told, tell = Pipe(duplex=False)
        self._tell: Connection | None = tell
        self._process = AgentProcess(target=run_process, args=(start, tell), name=f"agent {start.name}")
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start the process. Where this is cancelled, there is none."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if self._process.pid is not None:
                self.kill()
                await self.ended()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    async def ended(self) -> End:
        return await asyncio.shield(self._ended)

    async def stop(self, grace: float) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([self._ended], timeout=None if grace == math.inf else grace)
        if not self._ended.done():
            self.kill()
            await self.ended()

    def kill(self) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def leave(self) -> bool:
        self._process.left = True
        return not self._ended.done()

    def _start(self) -> None:
        with without_interrupts():
            self._process.start()
        assert self._tell is not None
        self._tell.close()
        loop = self._ended.get_loop()
        # A thread waits for the process: it works on every platform and in every event loop.
        threading.Thread(target=self._wait, args=(loop,), name=f"wait for {self._process.name}", daemon=True).start()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.join()
        self._process.end()
        told: list[object] = []
        with contextlib.suppress(EOFError, OSError):
            while self._told.poll():
                told.append(self._told.recv())
        code = self._process.exitcode
        for _ in range(REAPED_CHECKS):  # another thread, which starts a process, may have reaped this one
            if code is not None:
                break
            time.sleep(REAPED_SECONDS)
            code = self._process.exitcode
        self._told.close()
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(self._settle, _end(code, told))

    def _settle(self, end: End) -> None:
        if not self._ended.done():
            self._ended.set_result(end)


class Adopted:
    """A child that a former supervisor of the same name has started, and that lives on: known by its presence alone.

    gone: its end, as whoever watches the presence sees it.
    revoke: ends the agent's lease.
    owns_process: its process has nothing else to do, so that it may be killed.
    """

    def __init__(
        self,
        found: Presence,
        gone: "asyncio.Future[End]",
        revoke: Callable[[], Coroutine[Any, Any, None]],
        *,
        owns_process: bool,
    ) -> None:
        self._process = found.process
        self._killable = owns_process and bool(found.process) and found.host == socket.gethostname()
        self._pid = found.pid
        self._gone = gone
        self._revoke = revoke

    @property
    def pid(self) -> int:
        return self._pid

    async def ended(self) -> End:
        return await asyncio.shield(self._gone)

    async def stop(self, grace: float) -> None:
        if self._signal(signal.SIGTERM):
            await asyncio.wait([self._gone], timeout=None if grace == math.inf else grace)
        await self._revoke()
        self.kill()

    def kill(self) -> None:
        self._signal(KILL)

    def leave(self) -> bool:
        return self._killable

    def _signal(self, number: int) -> bool:
        """To the process, if it is one of this machine, and still the same one. Whether it was."""
        if not self._killable or self._pid == os.getpid() or identity(self._pid) != self._process:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._pid, number)
        return True


def _end(code: int | None, told: Sequence[object]) -> End:
    """told: what the process has said, if it did: that it has begun, and how it has ended."""
    if told and isinstance(last := told[-1], Ended):
        return End(True, last.why) if last.why else End(False, "returned")
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return End(True, f"killed by {signal.Signals(-code).name}")
    if code is None:
        return End(True, "ended, and how is not known")
    if not told:
        why = f"exited with {code} before it could run its function: its standard error says why"
        return End(True, why, hopeless=True)
    return End(True, f"exited with {code}")
