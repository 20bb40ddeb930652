"""One key that holds one value of one type."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from comity import cell
from comity.leases.guard import Guard, OfLease
from comity.model import DeleteResult, PutResult

from .thread import Call, run
from .waiting import documented, items

__all__ = ["Cell"]

T = TypeVar("T")


class Cell(Generic[T]):
    """One key that holds one value of one type. Made by `Client.cell`. All methods raise what those of `Client` raise.

        budget = state.cell("budget", Budget)
        budget.update(lambda value: value.spend(10))

    A stored value that does not fit the type raises DecodeError; a value to store that does not fit it, TypeError.
    """

    def __init__(self, cell: cell.Cell[T]) -> None:
        self._async = cell

    @property
    def key(self) -> str:
        """The key."""
        return self._async.key

    @documented(cell.Cell.get)
    def get(self, *, timeout: float | None = None) -> T:
        return run(self._async.get(timeout=timeout))

    @documented(cell.Cell.set)
    def set(
        self,
        value: T,
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> PutResult:
        return run(self._async.set(value, lease=lease, ttl=ttl, guard=guard, message=message, timeout=timeout))

    @documented(cell.Cell.create)
    def create(
        self,
        value: T,
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> PutResult:
        return run(self._async.create(value, lease=lease, ttl=ttl, guard=guard, message=message, timeout=timeout))

    def update(
        self,
        function: Callable[[T], T],
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> T:
        """Write what the function makes of the value, and return it.

        The function is run in this thread, and again when somebody else wrote the key meanwhile, as by
        `Client.transact`. It is given the default where the key is absent. Raises NotFound if there is no default,
        Conflict if the time is up. The rest is as of `comity.Cell.update`.
        """
        call = Call[T]()
        there = call.here(function)
        return call.run(self._async.update(there, lease=lease, ttl=ttl, guard=guard, message=message, timeout=timeout))

    @documented(cell.Cell.delete)
    def delete(self, *, guard: Guard | None = None, message: str = "", timeout: float | None = None) -> DeleteResult:
        return run(self._async.delete(guard=guard, message=message, timeout=timeout))

    @documented(cell.Cell.watch)
    def watch(self) -> Iterator[T]:
        return items(self._async.watch())
