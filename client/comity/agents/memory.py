"""What an agent keeps for itself: state under a prefix of its own, which only its living incarnation may write."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from comity.client import Client
from comity.model import DeleteResult, Entry, Event, PutResult, Resync
from comity.transaction import Transaction

if TYPE_CHECKING:
    from comity.leases.lease import Lease

__all__ = ["Memory", "MemoryTransaction"]

T = TypeVar("T")


class Memory:
    """The private state of one agent: `await agent.memory.put("draft", {...})`.

    It outlives the agent: the next one of the same name finds it. Keys are said, and entries given, without the prefix.
    Every write needs the agent's lease to live, so that one that was taken for dead, and has been replaced, cannot
    write over its successor: LeaseLost.

    All methods raise what those of `Client` raise.
    """

    def __init__(self, state: Client, prefix: str, lease: "Callable[[], Lease]") -> None:
        self._state = state
        self._lease = lease
        self.prefix = prefix

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry of a key, now or at a revision; None if it is absent."""
        entry = await self._state.get(self._key(key), revision=revision)
        return None if entry is None else self._own(entry)

    async def value(self, key: str, default: Any = None) -> Any:
        """The value of a key; the default if it is absent."""
        entry = await self._state.get(self._key(key))
        return default if entry is None else entry.value

    async def list(self, prefix: str = "") -> "list[Entry]":
        """The entries whose keys begin with this, in the order of keys, all at one revision."""
        return [self._own(entry) async for entry in self._state.list(self.prefix + prefix)]

    async def put(
        self,
        key: str,
        value: object,
        *,
        content_type: str | None = None,
        if_version: int | None = None,
        message: str = "",
    ) -> PutResult:
        """Write a key, as `Client.put` does."""
        return await self._state.put(
            self._key(key),
            value,
            content_type=content_type,
            if_version=if_version,
            message=message,
            guard=self._lease(),
        )

    async def delete(self, key: str | None = None, *, prefix: str | None = None, message: str = "") -> DeleteResult:
        """Delete a key, or all keys under a prefix (the empty prefix: everything that the agent has). What is not there
        is no error."""
        if prefix is not None:
            return await self._state.delete(None, prefix=self.prefix + prefix, message=message, guard=self._lease())
        return await self._state.delete(self._key(key), message=message, guard=self._lease())

    @overload
    async def update(
        self, key: str, function: Callable[[Any], Awaitable[T]], default: Any = None, *, message: str = ""
    ) -> T: ...

    @overload
    async def update(self, key: str, function: Callable[[Any], T], default: Any = None, *, message: str = "") -> T: ...

    async def update(self, key: str, function: Callable[[Any], Any], default: Any = None, *, message: str = "") -> Any:
        """Write what the function, async or not, makes of the value, and return it. It is given the default where the
        key is absent."""

        async def change(tx: MemoryTransaction) -> Any:
            entry = await tx.get(key)
            changed = function(default if entry is None else entry.value)
            if inspect.isawaitable(changed):
                changed = await changed
            tx.put(key, changed)
            return changed

        return await self.transact(change, message=message)

    async def transact(self, function: "Callable[[MemoryTransaction], Awaitable[T]]", *, message: str = "") -> T:
        """Change several keys at once, or none of them, as `Client.transact` does with a function."""

        async def change(tx: Transaction) -> T:
            return await function(self.within(tx))

        return await self._state.transact(change, message=message, guard=self._lease())

    def within(self, tx: Transaction) -> "MemoryTransaction":
        """The private state inside of a transaction over the whole namespace, as of `Agent.transact`."""
        return MemoryTransaction(self, tx)

    async def watch(
        self, prefix: str = "", *, from_revision: int = 0, epoch: str = ""
    ) -> AsyncGenerator[Event | Resync]:
        """The present state as a Resync, and then each change; with from_revision only the changes from there on. The
        epoch is that of from_revision: as of `Client.watch`."""
        async with self._state.watch(
            self.prefix + prefix, from_revision=from_revision, epoch=epoch, initial=not from_revision
        ) as watch:
            async for item in watch:
                if isinstance(item, Resync):
                    yield replace(item, entries=tuple(self._own(entry) for entry in item.entries))
                else:
                    yield replace(item, entry=self._own(item.entry))

    def _key(self, key: str | None) -> str:
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}")
        if not key:
            raise ValueError("key must not be empty")
        return self.prefix + key

    def _own(self, entry: Entry) -> Entry:
        return replace(entry, key=entry.key.removeprefix(self.prefix))


class MemoryTransaction:
    """What a transaction function reads and writes an agent's private state with. `Transaction` says the rest."""

    def __init__(self, memory: Memory, tx: Transaction) -> None:
        self._memory = memory
        self._tx = tx

    async def get(self, key: str) -> Entry | None:
        entry = await self._tx.get(self._memory._key(key))
        return None if entry is None else self._memory._own(entry)

    async def list(self, prefix: str = "") -> "list[Entry]":
        return [self._memory._own(entry) for entry in await self._tx.list(self._memory.prefix + prefix)]

    def put(self, key: str, value: object, *, content_type: str | None = None) -> None:
        self._tx.put(self._memory._key(key), value, content_type=content_type)

    def delete(self, key: str | None = None, *, prefix: str | None = None) -> None:
        if prefix is not None:
            self._tx.delete(None, prefix=self._memory.prefix + prefix)
        else:
            self._tx.delete(self._memory._key(key))

    def increment(self, key: str, by: int = 1) -> None:
        self._tx.increment(self._memory._key(key), by)
