"""`comity lock`: a command that runs while a lock is held."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from .failures import Failure
from .options import SECONDS, TEXT, Options, client_options, examples
from .session import run

if TYPE_CHECKING:
    from comity.client import Client
    from comity.leases.lease import Lease
    from comity.recipes import Lock

__all__ = ["lock"]

PASSED_ON: Final = ("SIGTERM", "SIGINT", "SIGHUP")  # as far as the system has them
KILL_SECONDS: Final = 5.0  # after which a command that was asked to end is ended
POLL_SECONDS: Final = 0.05  # between looks at whether a process group has ended
REVOKE_SECONDS: Final = 2.0  # that the end may wait for the server
REACH_SECONDS: Final = 1.0  # that a server has to answer, however short the wait
NOT_EXECUTABLE: Final = 126  # as shells do
NOT_FOUND: Final = 127
SIGNALLED: Final = 128  # and the number of the signal


@click.command(
    short_help="Run a command while holding a lock.",
    epilog=examples(
        "comity lock deploy -- make deploy",
        "comity lock deploy --wait 60 --ttl 30 -- ./deploy.sh",
        "comity lock plan -- sh -c 'comity put plan 7 --guard $COMITY_FENCE'",
    ),
)
@click.argument("name", type=TEXT)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    type=SECONDS,
    default=10.0,
    show_default=True,
    help="After how long the next one has it, where this process dies or is cut off.",
)
@click.option("--wait", type=float, metavar="SECONDS", help="How long to wait for it.  [for ever]")
@client_options
def lock(options: Options, name: str, command: Sequence[str], ttl: float, wait: float | None) -> None:
    """Run COMMAND while holding the lock NAME, and exit with its exit code.

    Who asked first has it first. COMMAND has the fencing token in COMITY_FENCE: a number that grows with each holder,
    and that `comity put --guard` takes too. What --tls… and --token-file say, it has in their variables. If the lock is
    lost, since the server could not be reached for as long as --ttl or ended it, COMMAND is terminated and the exit
    code is 3. It is 5 if the lock could not be had in time or no server be reached, and 127 if there is no such
    COMMAND.

    SIGTERM, SIGINT and SIGHUP are passed on. COMMAND is a process group, which is signalled as a whole; but in the
    foreground of a terminal it shares that with this process, so that it can read what is typed: then COMMAND alone is
    signalled, and SIGINT left to the keyboard.

    If this process is stopped or ended by SIGKILL, COMMAND goes on, and the next one has the lock after --ttl: only
    what checks COMITY_FENCE is safe then.
    """
    from comity.recipes import Lock

    if wait is not None and not 0 <= wait < float("inf"):
        raise click.BadParameter("it is no number of seconds from 0", param_hint="--wait")

    async def work(client: "Client") -> int:
        from comity.errors import InvalidArgument

        seconds = client.timeout if wait is None else min(client.timeout, max(wait, REACH_SECONDS))
        try:
            contender = Lock(client, name, ttl)
            seen = Lock(client.with_options(timeout=seconds), name, ttl)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="NAME") from error
        try:
            return await _Run(client, contender, seen, name, command, options.variables).run(wait)
        except InvalidArgument as error:
            refused = next((text for field, text in error.violations if field.endswith(".ttl")), None)
            if refused is None:
                raise
            raise click.BadParameter(refused, param_hint="--ttl") from error

    run(options, work)


class _Run:
    """One command and the lock that it needs. `seen` is the same lock, of which one asks only who holds it."""

    def __init__(
        self,
        client: "Client",
        contender: "Lock",
        seen: "Lock",
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        self._variables = variables
        self._client = client
        self._lock = contender
        self._seen = seen
        self._name = name
        self._command = command
        self._grouped = hasattr(os, "killpg") and not _in_foreground()
        self._child: subprocess.Popen[bytes] | None = None
        self._signal = 0  # that came before the command ran

    async def run(self, wait: float | None) -> int:
        """Wait for the lock, and run the command. Returns the exit code."""
        task = asyncio.current_task()
        assert task is not None
        with _signals(lambda number: self._receive(number, task)):
            try:
                await self._acquire(wait)
                return await self._held()
            except asyncio.CancelledError:
                if not self._signal:
                    raise
                task.uncancel()
                return SIGNALLED + self._signal

    async def _acquire(self, wait: float | None) -> None:
        """Raises ComityError, soon, where there is no server: a wait that ends unanswered does not know why."""
        await self._seen.owner()
        try:
            if wait != 0:
                await self._lock.acquire(wait)
                return
        except TimeoutError:
            pass
        else:
            if await self._lock.try_acquire():
                return
        owner = await self._seen.owner()
        by = f", which {owner} holds," if owner else ""
        raise Failure(f"the lock {self._name!r}{by} could not be had within {wait:g} s", "DEADLINE_EXCEEDED")

    async def _held(self) -> int:
        from comity.errors import LeaseLost

        lease = self._lock.lease
        try:
            code = await self._ran(lease)
            lease.check()  # this process may have been stopped while the command ran, and ended
        except LeaseLost as error:
            await self._release(lease)
            raise self._loss(error.message) from error
        except BaseException:
            await self._release(lease)
            raise
        if not await self._release(lease):
            raise self._loss("its lease had ended")
        return SIGNALLED - code if code < 0 else code

    async def _ran(self, lease: "Lease") -> int:
        """How the command has ended, by itself or since the lock was lost."""
        self._child = child = self._start(self._lock.fence)
        exited = asyncio.create_task(asyncio.to_thread(child.wait))
        lost = asyncio.create_task(lease.lost())
        await asyncio.wait([exited, lost], return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if not exited.done():
            await self._end(child, exited)
        return await exited

    async def _release(self, lease: "Lease") -> bool:
        """Whether the lock was held until now, as far as can be known."""
        from comity.errors import ComityError, LeaseNotFound

        await lease.close()
        try:
            await self._client.revoke_lease(lease.id, timeout=REVOKE_SECONDS)
        except LeaseNotFound:
            return False
        except ComityError:  # it then ends with its lease
            return True
        return True

    async def _end(self, child: "subprocess.Popen[bytes]", exited: "asyncio.Task[int]") -> None:
        """Have the command end, with all that is of its group."""
        self._send(child, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await asyncio.shield(exited)
                while self._grouped and _has_members(child.pid):  # noqa: ASYNC110 - no system tells when it has none
                    await asyncio.sleep(POLL_SECONDS)
                return
        self._send(child, signal.SIGKILL)
        await exited

    def _send(self, child: "subprocess.Popen[bytes]", number: int) -> None:
        if not self._grouped:
            child.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)

    def _loss(self, why: str) -> Failure:
        said = f"the lock {self._name!r} was lost while the command ran: {why}"
        return Failure(said, "FAILED_PRECONDITION", reason="LEASE_LOST")

    def _start(self, fence: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._command,
                env=os.environ | self._variables | {"COMITY_FENCE": str(fence)},
                process_group=0 if self._grouped else None,
            )
        except OSError as error:
            failure = Failure(f"{self._command[0]}: {error.strerror}")
            failure.status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            raise failure from error

    def _receive(self, number: int, task: "asyncio.Task[object]") -> None:
        if self._child is None:
            self._signal = number
            task.cancel()
        elif self._grouped or number != signal.SIGINT or not _in_foreground():  # else the keyboard has reached it, too
            self._send(self._child, number)


@contextlib.contextmanager
def _signals(receive: Callable[[int], None]) -> Iterator[None]:
    """Calls the function with each signal that is to be passed on."""
    loop = asyncio.get_running_loop()
    numbers = [getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)]
    with contextlib.suppress(NotImplementedError):  # not on Windows
        for number in numbers:
            loop.add_signal_handler(number, receive, number)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Whether this process has the keyboard of a terminal, so that its group has what is typed, and its signals."""
    for descriptor in range(3):
        with contextlib.suppress(OSError, AttributeError):
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                return True
    return False


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
