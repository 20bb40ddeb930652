"""What `comity bench` does to a server: kinds of calls, in the shares that were asked for."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from comity.errors import ComityError
from comity.load import Call, Times, drive
from comity.operations import Put

if TYPE_CHECKING:
    from comity.client import Client
    from comity.transaction import Transaction

__all__ = ["KINDS", "LISTED", "TOGETHER", "Work", "fill"]

KINDS: Final = ("get", "put", "transact", "update", "list", "watch")
TOGETHER: Final = 5  # keys of a transaction
LISTED: Final = 100  # keys of a list
FILLED: Final = 500  # keys that are written in one transaction before the load begins
FILLED_BYTES: Final = 2_000_000
STEPS: Final = 1_000  # after which the order of the kinds begins again


class Work:
    """The calls of one process, and what became of them.

    first: the number of the process, which goes about the keys in an order of its own.
    """

    def __init__(self, client: "Client", mix: Mapping[str, int], keys: int, value_bytes: int, first: int = 0) -> None:
        self._client = client
        self._keys = keys
        self._first = first * 7919
        self._value = b"v" * value_bytes
        self._kinds = _spread(mix)
        self._calls: dict[str, Call] = {
            "get": lambda number: client.get(self._key(number)),
            "put": lambda number: client.put(self._key(number), self._value),
            "transact": self._transact,
            "update": self._update,
            "list": self._list,
            "watch": self._watch,
        }
        self.times = {kind: Times() for kind in mix}
        self.errors: dict[str, int] = {}

    def done(self) -> int:
        """How many calls have succeeded so far."""
        return sum(times.count for times in self.times.values())

    async def run(self, tasks: int, seconds: float) -> float:
        """Make calls for a while, so many at a time. Returns how long that was, in seconds."""
        return await drive(self._call, tasks=tasks, seconds=seconds, failed=self._failed)

    async def _call(self, number: int) -> None:
        kind = self._kinds[number % len(self._kinds)]
        began = time.perf_counter()
        await self._calls[kind](number + self._first)
        self.times[kind].add(time.perf_counter() - began)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, ComityError):
            raise error
        name = f"{type(error).__name__}: {error.reason or error.message}"
        self.errors[name] = self.errors.get(name, 0) + 1

    def _key(self, number: int) -> str:
        return key(number * 2_654_435_761 % self._keys)  # all over the keys (Knuth's multiplicative hashing)

    async def _transact(self, number: int) -> None:
        keys = {self._key(number * TOGETHER + place) for place in range(TOGETHER)}
        await self._client.transact(then=[Put(each, self._value) for each in keys])

    async def _update(self, number: int) -> None:
        """Read a number, and write one more, again until nobody was faster."""
        name = f"number-{self._key(number)}"

        async def one_more(transaction: "Transaction") -> None:
            entry = await transaction.get(name)
            transaction.put(name, 1 if entry is None else int(entry.value) + 1)

        await self._client.transact(one_more)

    async def _list(self, number: int) -> None:
        async for _ in self._client.list(self._key(number)[:-2], page_size=LISTED):
            pass

    async def _watch(self, number: int) -> None:
        """Open a stream, write, and wait until it shows what was written."""
        name = f"watched-{self._first}-{number}"
        async with self._client.watch(key=name) as watch:
            await watch.ready()
            await self._client.put(name, self._value)
            await anext(aiter(watch))


def key(number: int) -> str:
    return f"key-{number:08}"


async def fill(client: "Client", keys: int, value_bytes: int) -> None:
    """Write all keys, so that what is read is there."""
    together = max(1, min(FILLED, FILLED_BYTES // (value_bytes + 100)))
    for first in range(0, keys, together):
        some = range(first, min(keys, first + together))
        await client.transact(then=[Put(key(number), b"v" * value_bytes) for number in some])


def _spread(mix: Mapping[str, int]) -> Sequence[str]:
    """The kinds in turn, each as often as its share says, and evenly among the others."""
    whole = sum(mix.values())
    due: dict[str, Any] = dict.fromkeys(mix, 0.0)
    order = []
    for _ in range(min(whole, STEPS)):
        for kind, share in mix.items():
            due[kind] += share / whole
        first = max(due, key=lambda kind: due[kind])
        due[first] -= 1
        order.append(first)
    return order
