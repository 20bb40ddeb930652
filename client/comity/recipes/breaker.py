"""A circuit breaker: once some agents have found a dependency broken, all of them leave it alone for a while."""

import asyncio
import contextlib
import enum
import functools
import inspect
import uuid
import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from comity.checks import check_count, check_seconds
from comity.cleanup import begun, clean_up
from comity.client import Client
from comity.errors import ComityError, LeaseNotFound
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.model import ListResult
from comity.operations import Condition, Delete, Key, List, Put

from .circuit import Circuit, Found
from .names import asynchronous, check_name
from .puts import put_in

__all__ = ["CircuitBreaker", "CircuitOpen", "CircuitState"]

P = ParamSpec("P")
T = TypeVar("T")


class CircuitState(enum.StrEnum):
    """Whether a dependency may be called."""

    CLOSED = "closed"  # it may
    OPEN = "open"  # it may not: it has failed too often
    HALF_OPEN = "half-open"  # one may, to find out whether it works again


class CircuitOpen(Exception):
    """The call was not made, since the dependency is broken.

    retry_after: seconds until the next call may be made to find out whether it works again; 0: one is being made now.
    """

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        until = f"for {self.retry_after:.1f} s more" if self.retry_after else "while a call finds out if it works again"
        return f"circuit {self.name!r} is open {until}"


class CircuitBreaker:
    """The circuit breaker of one dependency, which all who name it share.

        breaker = CircuitBreaker(state, "search-api")
        async with breaker:  # raises CircuitOpen
            await search(...)

        found = await breaker.call(search, "comity")

        @breaker
        async def search(...): ...

    Closed, it counts the failures of all. With `failures` of them within a while it opens: nobody calls, for some time.
    Then it is half open: one caller is let through. If that succeeds it closes, else it opens again. All times are
    those of leases, so that no process's clock matters.

    To ask costs no call: what the store says is followed by a watch, which is at most some seconds late where the
    server cannot be reached; then the store is asked, and what that raises is raised. `close` ends the watch.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    failures: how many open it, from 1 to 1,000.
    within: the seconds in which they must happen; at least 1, as of a lease's ttl.
    reset_after: the seconds for which it is open; likewise.
    counts: what is a failure: an exception, or several. Cancellation is none.
    ttl: seconds after which another caller is let through where the one that was let through died.

    One object may be used by any number of tasks. Raises TypeError and ValueError for arguments that do not fit.
    """

    def __init__(
        self,
        state: Client,
        name: str,
        failures: int = 5,
        *,
        within: float = 60.0,
        reset_after: float = 30.0,
        counts: type[Exception] | tuple[type[Exception], ...] = Exception,
        ttl: float = 10.0,
    ) -> None:
        self._state = asynchronous(state)
        self.name = check_name(name)
        self._failures = check_count("failures", failures, most=1_000)
        self._within = check_seconds("within", within)
        self._reset_after = check_seconds("reset_after", reset_after)
        self._ttl = check_seconds("ttl", ttl)
        self._counts = counts
        self._root = f"breakers/{name}/"
        self._living = Living(state)
        self._circuits: dict[asyncio.AbstractEventLoop, Circuit] = {}
        self._probes: weakref.WeakKeyDictionary[asyncio.Task[Any], Lease] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        seen = [_state(circuit.last).value for circuit in self._circuits.values() if circuit.known]
        return f"<comity.recipes.CircuitBreaker {self.name!r}: {seen[-1] if seen else 'not looked at yet'}>"

    async def close(self) -> None:
        """Follow the store no longer. The breaker stays as it is, and this object can be used again."""
        circuit = self._circuits.pop(asyncio.get_running_loop(), None)
        if circuit is not None:
            await circuit.close()

    async def state(self) -> CircuitState:
        """Whether the dependency may be called now."""
        return _state(await self._circuit().now())

    async def retry_after(self) -> float:
        """Seconds until it is half open; 0 if it is not open."""
        circuit = self._circuit()
        await circuit.now()
        return circuit.remaining()

    async def __aenter__(self) -> Self:
        probe = await self._enter()
        if probe is not None:
            task = asyncio.current_task()
            assert task is not None
            self._probes[task] = probe
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        await self._leave(self._probes.pop(task, None), error)

    async def _enter(self) -> Lease | None:
        """Ask whether the call may be made. Returns what `_leave` is to be given after it. Raises CircuitOpen."""
        circuit = self._circuit()
        found = await circuit.now()
        if found.tripped is None:
            return None
        probe = None if found.open is not None or found.probe is not None else await self._let_through(circuit)
        if probe is None:
            raise CircuitOpen(self.name, circuit.remaining())
        return probe

    async def _leave(self, probe: Lease | None, error: BaseException | None) -> None:
        """Say how the call ended. What cannot be written down is not counted: the caller has a result of its own."""
        failed = isinstance(error, self._counts)
        if probe is None:
            if failed:
                await self._failed()
        elif error is None:
            await self._settle(probe, [Delete(prefix=self._root)], "close")
        elif failed:
            await self._settle(probe, self._opening(), "open again")
        else:
            await clean_up(probe.revoke())

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function if the circuit is not open, and return what it returns. Raises CircuitOpen."""
        async with self:
            return await function(*args, **kwargs)

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Decorates an async function: it is called only if the circuit is not open, and raises CircuitOpen else."""
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"a circuit breaker is for async functions, not for {function!r}")

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.call(function, *args, **kwargs)

        return guarded

    async def trip(self) -> None:
        """Open it, as if it had failed often enough; also while a probe is under way, which then closes nothing."""
        await self._write(self._opening())

    async def reset(self) -> None:
        """Close it, whatever has failed."""
        await self._write([Delete(prefix=self._root)], message=f"reset circuit {self.name}")

    async def _write(self, then: list[Put | Delete], conditions: Sequence[Condition] = (), message: str = "") -> None:
        """Change its keys, and see at once what has become of them, whoever was faster."""
        circuit = self._circuit()
        resyncs, look = circuit.resyncs, List(circuit.prefix)
        done = await self._state.transact(conditions=conditions, then=[*then, look], otherwise=[look], message=message)
        seen = done.results[-1]
        assert isinstance(seen, ListResult)
        with contextlib.suppress(ComityError):  # it is done, and the watch tells of it
            await circuit.see(seen.entries, done.revision, resyncs, anew=False)

    def _circuit(self) -> Circuit:
        loop = asyncio.get_running_loop()
        circuit = self._circuits.get(loop)
        if circuit is None or circuit.ended:
            self._circuits = {known: each for known, each in self._circuits.items() if not known.is_closed()}
            circuit = self._circuits[loop] = Circuit(self._state, self._root, self._reset_after)
        return circuit

    async def _let_through(self, circuit: Circuit) -> Lease | None:
        """Be the one that finds out whether it works again. None: another one is."""
        keys, found = circuit.keys, circuit.last
        taking = begun(
            self._state.transact(
                conditions=[
                    Key(keys.tripped).exists(),
                    Key(keys.open).mod_revision == found.open_revision,
                    Key(keys.probe).mod_revision == found.probe_revision,
                ],
                then=[Put(keys.probe, {"by": self._state.author}, ttl=self._ttl)],
                message=f"probe circuit {self.name}",
            )
        )
        try:
            taken = await asyncio.shield(taking)
            return await self._state.keep_alive(put_in(taken).lease_id, ttl=self._ttl) if taken.committed else None
        except LeaseNotFound:
            return None
        except BaseException:

            async def give_back() -> None:
                await asyncio.wait([taking])
                if not taking.cancelled() and not taking.exception() and taking.result().committed:
                    await self._state.delete(keys.probe, if_revision=taking.result().revision)

            await clean_up(give_back())
            raise

    async def _failed(self) -> None:
        """One more failure."""
        prefix = f"{self._root}failures/"
        failure = Put(prefix + uuid.uuid4().hex, {"by": self._state.author}, ttl=self._within)
        with _unheard():
            done = await self._state.transact(then=[failure, List(prefix, keys_only=True)])
            listed = done.results[1]
            assert isinstance(listed, ListResult)
            if len(listed.entries) >= self._failures <= len(await self._living.among(listed.entries)):
                await self._write(
                    self._opening(),
                    [Key(self._circuit().keys.tripped).absent()],
                    f"open circuit {self.name}: {self._failures} failures within {self._within:g} s",
                )

    async def _settle(self, probe: Lease, then: list[Put | Delete], what: str) -> None:
        """Say how a probe ended, unless it took longer than its lease lived, or the circuit was tripped meanwhile."""
        with _unheard():
            try:
                at = [Key(self._circuit().keys.probe).lease_id == probe.id]
                await self._write(then, at, f"{what} circuit {self.name}")
            finally:
                await probe.close()

    def _opening(self) -> list[Put | Delete]:
        """Whatever a probe that is under way finds out is not waited for."""
        keys = self._circuit().keys
        opened = {"by": self._state.author, "reset_after": self._reset_after}
        return [
            Put(keys.tripped, opened),
            Put(keys.open, opened, ttl=self._reset_after),
            Delete(keys.probe),
            Delete(prefix=f"{self._root}failures/"),
        ]


def _unheard() -> contextlib.AbstractContextManager[None]:
    """What goes wrong here is not raised: the caller has a result of its own. RuntimeError: the client was closed."""
    return contextlib.suppress(ComityError, RuntimeError)


def _state(found: Found) -> CircuitState:
    if found.tripped is None:
        return CircuitState.CLOSED
    return CircuitState.HALF_OPEN if found.open is None else CircuitState.OPEN
