"""A circuit breaker: once some have found a dependency broken, all of them leave it alone for a while."""

import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from comity import recipes
from comity.leases.lease import Lease
from comity.sync.client import Client
from comity.sync.thread import run
from comity.sync.waiting import waiting

from .inner import inner

__all__ = ["CircuitBreaker"]

P = ParamSpec("P")
T = TypeVar("T")


class CircuitBreaker:
    """The circuit breaker of one dependency, which all who name it share: as `comity.recipes.CircuitBreaker`, for plain
    functions. One object may be used by any number of threads.

        with breaker:  # raises CircuitOpen
            search(...)
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
        self._async = recipes.CircuitBreaker(
            inner(state), name, failures, within=within, reset_after=reset_after, counts=counts, ttl=ttl
        )
        self.name = self._async.name
        self._entered = threading.local()

    def __repr__(self) -> str:
        return repr(self._async)

    close = waiting(recipes.CircuitBreaker.close)
    state = waiting(recipes.CircuitBreaker.state)
    retry_after = waiting(recipes.CircuitBreaker.retry_after)
    trip = waiting(recipes.CircuitBreaker.trip)
    reset = waiting(recipes.CircuitBreaker.reset)

    def __enter__(self) -> Self:
        self._probes().append(run(self._async._enter()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run(self._async._leave(self._probes().pop(), error))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function if the circuit is not open, and return what it returns. Raises CircuitOpen."""
        with self:
            return function(*args, **kwargs)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorates a function: it is called only if the circuit is not open, and raises CircuitOpen else."""
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"an async function is for comity.recipes.CircuitBreaker: {function!r}")

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(function, *args, **kwargs)

        return guarded

    def _probes(self) -> list[Lease | None]:
        """Of the blocks that this thread is in, the innermost last."""
        stack: Any = getattr(self._entered, "probes", None)
        if stack is None:
            stack = self._entered.probes = []
        found: list[Lease | None] = stack
        return found
