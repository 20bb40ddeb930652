"""`comity serve --workers N`: a process that starts the ones that serve, and starts another where one has died.

All of them listen on the same addresses, and the system hands each new connection to one of them (SO_REUSEPORT).
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import structlog

from comity_server import ending
from comity_server.hangup import on_hangup
from comity_server.listening import ListenError, Serving, free, host_of, places
from comity_server.settings import Settings
from comity_server.stores.redis.url import FORMS

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-m", "comity_server.worker")
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
TRIES: Final = 10  # to start a worker again, before all of them are ended
STEADY_SECONDS: Final = 60.0  # one that lived so long is no reason to give up
KILL_SECONDS: Final = 5.0  # after which one that ought to have ended by itself is killed
BACKOFF_SECONDS: Final = (0.25, 10.0)  # before the second try, and at the most


class WorkerError(Exception):
    """The workers do not serve. The message says why; `code` is the exit code of the one that is the reason."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def check(settings: Settings) -> None:
    """Raises ValueError, where the workers would not have one state, or this system cannot run them."""
    scheme = settings.store.partition(":")[0]
    if scheme not in FORMS:
        raise ValueError(f"several processes can share a Redis, and not {scheme}:, which is of one process alone")
    if not sys.platform.startswith("linux"):
        raise ValueError("several processes on one port need Linux")


async def serve(settings: Settings, serving: Serving) -> int:
    """Have the workers serve until a signal to stop, and then drain. `serving` is called when all of them do. Returns
    the exit code. Raises WorkerError or ListenError."""
    with reserved(settings.listen) as addresses, reserved(settings.health_listen) as health:
        told = settings.model_copy(update={"listen": addresses, "health_listen": health}).model_dump_json()
        patience = ending.seconds(settings) + KILL_SECONDS
        workers = Workers(COMMAND, told, settings.workers, patience)
        code = await workers.run(lambda: serving(addresses, health))
        ending.soon()
        return code


@contextmanager
def reserved(addresses: Sequence[str]) -> Iterator[list[str]]:
    """Take addresses for sockets that share them, and tell them with the ports that were chosen where they say 0.
    Raises ListenError if another program has one."""
    with ExitStack() as stack:
        chosen = []
        for address in addresses:
            free(address)
            host, port = host_of(address)
            for family, kind, protocol, _, place in places(host, port):
                held = stack.enter_context(socket.socket(family, kind, protocol))
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    held.bind((place[0], port, *place[2:]))
                except OSError as error:
                    raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
                port = held.getsockname()[1]
            chosen.append(f"{address.rpartition(':')[0]}:{port}")
        yield chosen


class Workers:
    """The processes that serve.

    Args:
        command: runs one. It is told what to do in a line of its standard input, whose end is that of this process; and
            it writes a line when it serves, which is an object, with an `error` if it does not, and whether that is
            because the store is `unavailable`.
        told: the line.
        count: how many.
        patience: how many seconds they have to end before they are killed.
    """

    def __init__(self, command: Sequence[str], told: str, count: int, patience: float) -> None:
        self._command = command
        self._told = told
        self._count = count
        self._patience = patience
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._serving: set[int] = set()
        self._one_serves = asyncio.Event()
        self._announce: Callable[[], None] | None = None
        self._stopping = asyncio.Event()
        self._failure: WorkerError | None = None

    async def run(self, serving: Callable[[], None]) -> int:
        """Run them until a signal to stop. `serving` is called when all of them serve. Returns their exit code. Raises
        WorkerError if they do not come to serve, or one of them dies again and again: not where that is for want of the
        store, which those that serve wait for as well."""
        self._announce = serving
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        on_hangup(self._reload, self._hung_up)
        # Whatever is wrong with the settings or with the store, the first one finds out, and says so once.
        keepers = [asyncio.create_task(self._keep(1))]
        one_serves = asyncio.create_task(self._one_serves.wait())
        await asyncio.wait([*keepers, one_serves], return_when=asyncio.FIRST_COMPLETED)
        one_serves.cancel()
        if not self._stopping.is_set():
            keepers += [asyncio.create_task(self._keep(number)) for number in range(2, self._count + 1)]
        codes = await asyncio.gather(*keepers)
        if self._failure is not None:
            raise self._failure
        return next((code if code > 0 else 128 - code for code in codes if code), 0)

    def _stop(self, number: int) -> None:
        """Pass a signal on. The second one ends this process too, as if nobody handled it."""
        if self._stopping.is_set():
            self._pass_on(number)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stop_all(number)

    def _hung_up(self) -> None:
        if not self._stopping.is_set():  # a second signal would end them at once
            self._stop_all(signal.SIGTERM)

    def _stop_all(self, number: int) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(self._patience, self._kill)
        self._pass_on(number)

    def _kill(self) -> None:
        log.warning("workers that do not end are killed", seconds=self._patience)
        self._pass_on(signal.SIGKILL)

    def _reload(self) -> None:
        # Another one reads its files when it starts, and may not know the signal yet.
        self._send(signal.SIGHUP, [self._running[number] for number in self._serving])

    def _pass_on(self, number: int) -> None:
        self._send(number, self._running.values())

    def _send(self, number: int, processes: Iterable[asyncio.subprocess.Process]) -> None:
        for process in processes:
            if process.returncode is None:
                process.send_signal(number)

    def _give_up(self, failure: WorkerError) -> None:
        self._failure = self._failure or failure
        self._stop_all(signal.SIGTERM)

    async def _keep(self, number: int) -> int:
        """Run a worker, and another one when it has died, until all are to stop. Returns its exit code."""
        tries = waits = 0
        while True:
            began = time.monotonic()
            said, code = await self._run(number)
            if self._stopping.is_set():
                return code if said is not None else 0  # one that is stopped before it serves has nothing to drain
            reason = (said or {}).get("error") or f"it ended with {code}"
            if self._announce is not None:
                self._give_up(WorkerError(str(reason), max(code, 1)))
                return code
            if time.monotonic() - began > STEADY_SECONDS:
                tries = waits = 0
            if said is not None and said.get("unavailable"):
                waits += 1
            else:
                tries, waits = tries + 1, 0
            if tries > TRIES:
                self._give_up(WorkerError(f"worker {number} died {tries} times in a row: {reason}", max(code, 1)))
                return code
            log.warning("a worker died, and another one takes its place", worker=number, code=code, reason=reason)
            first, longest = BACKOFF_SECONDS
            again = min(tries + waits - 2, 20)
            await self._stops_within(0 if again < 0 else min(longest, first * 2**again))
            if self._stopping.is_set():
                return 0

    async def _stops_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _run(self, number: int) -> tuple[dict[str, object] | None, int]:
        """Run one to its end. Returns what it said when it was to serve, if it came to that, and its exit code."""
        pipe = asyncio.subprocess.PIPE
        # In a group of its own: what a terminal sends to all, this process passes on.
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, process_group=0)
        self._running[number] = process
        assert process.stdin is not None
        assert process.stdout is not None
        if self._stopping.is_set():
            process.terminate()
        process.stdin.write(json.dumps({"worker": number, "settings": self._told}).encode() + b"\n")
        line = await process.stdout.readline()
        said = json.loads(line) if line else None
        if said is not None and "error" not in said:
            self._serves(number)
        code = await process.wait()
        self._serving.discard(number)
        process.stdin.close()
        return said, code

    def _serves(self, number: int) -> None:
        self._one_serves.set()
        self._serving.add(number)
        if self._announce is not None and len(self._serving) == self._count:
            self._announce()
            self._announce = None
