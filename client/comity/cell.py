"""One key that holds one value of one type."""

import copy
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from .errors import NotFound
from .leases.guard import Guard, OfLease
from .model import DeleteResult, Entry, PutResult, Resync
from .transaction import Transaction
from .typed import Typed, typed

if TYPE_CHECKING:
    from .client import Client

__all__ = ["MISSING", "Cell"]

T = TypeVar("T")

MISSING: Final[Any] = object()  # said by nobody: None may be a default


class Cell(Generic[T]):
    """One key that holds one value of one type. Made by `Client.cell`. All methods raise what those of `Client` raise.

        budget = state.cell("budget", Budget)
        await budget.update(lambda value: value.spend(10))

    A stored value that does not fit the type raises DecodeError; a value to store that does not fit it, TypeError.
    """

    def __init__(self, client: "Client", key: str, type: Any, default: Any) -> None:
        self._client = client
        self._typed: Typed = typed(type)
        self._default = default
        self.key = key

    async def get(self, *, timeout: float | None = None) -> T:
        """The value; the default where the key is absent. Raises NotFound if there is no default."""
        return self._value(await self._client.get(self.key, timeout=timeout))

    async def set(
        self,
        value: T,
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> PutResult:
        """Write a value, whatever was there before.

        lease, ttl, guard: as of `Client.put`.
        """
        return await self._put(value, None, lease, ttl, guard, message, timeout)

    async def create(
        self,
        value: T,
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> PutResult:
        """Write a value if the key is absent. Raises Conflict if it is not.

        lease, ttl, guard: as of `Client.put`.
        """
        return await self._put(value, 0, lease, ttl, guard, message, timeout)

    async def update(
        self,
        function: Callable[[T], T | Awaitable[T]],
        *,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> T:
        """Write what the function, async or not, makes of the value, and return it.

        The function is run again when somebody else wrote the key meanwhile, as by `Client.transact`. It is given the
        default where the key is absent. Raises NotFound if there is no default, Conflict if the time is up.

        lease, ttl, guard: as of `Client.put`; without a lease and a ttl the key lives by none, also if it did before.
        """

        async def change(transaction: Transaction) -> T:
            changed = function(self._value(await transaction.get(self.key)))
            if inspect.isawaitable(changed):
                changed = await changed
            data, content_type = self._typed.encode(changed)
            transaction.put(self.key, data, content_type=content_type, lease=lease, ttl=ttl)
            return cast("T", changed)

        return await self._client.transact(change, guard=guard, message=message, timeout=timeout)

    async def delete(
        self, *, guard: Guard | None = None, message: str = "", timeout: float | None = None
    ) -> DeleteResult:
        """Delete the key. That it is absent is no error.

        guard: as of `Client.put`.
        """
        return await self._client.delete(self.key, guard=guard, message=message, timeout=timeout)

    async def watch(self) -> AsyncGenerator[T]:
        """The value now, and after every commit that changes it.

        A deletion yields the default; without one, neither it nor an absent key yields anything.
        """
        async with self._client.watch(key=self.key, initial=True) as watch:
            async for change in watch:
                if isinstance(change, Resync):
                    entry = change.entries[0] if change.entries else None
                else:
                    entry = change.entry if change.is_put else None
                if entry is not None or self._default is not MISSING:
                    yield self._value(entry)

    async def _put(
        self,
        value: T,
        if_version: int | None,
        lease: OfLease | None,
        ttl: float | None,
        guard: Guard | None,
        message: str,
        timeout: float | None,
    ) -> PutResult:
        data, content_type = self._typed.encode(value)
        return await self._client.put(
            self.key,
            data,
            content_type=content_type,
            if_version=if_version,
            lease=lease,
            ttl=ttl,
            guard=guard,
            message=message,
            timeout=timeout,
        )

    def _value(self, entry: Entry | None) -> T:
        if entry is not None:
            return cast("T", self._typed.decode(entry))
        if self._default is MISSING:
            raise NotFound(f"{self.key!r} holds nothing", metadata={"key": self.key})
        return cast("T", copy.deepcopy(self._default))  # so that what a caller does to it stays with the caller
