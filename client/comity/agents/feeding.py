"""What puts the inputs of a map into the store, once each, whoever else has begun to or does so as well."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

from comity import codec
from comity.client import Client
from comity.errors import DecodeError
from comity.leases.lease import Lease
from comity.model import Entry
from comity.recipes import Queue
from comity.transaction import Transaction

from . import layout
from .errors import MapDiffers

__all__ = ["Feeding", "Inputs", "Size", "index_of", "place"]

INDEX_DIGITS: Final = 10

Inputs = Iterable[Any] | AsyncIterable[Any]


class Size(NamedTuple):
    """How many inputs of a map are in its queue, or were."""

    fed: int
    is_all: bool

    @classmethod
    def of(cls, entry: Entry | None) -> "Size":
        """Raises DecodeError for what is no size."""
        if entry is None:
            return cls(0, False)
        record = entry.value
        fed = record.get("fed") if isinstance(record, dict) else None
        if not isinstance(fed, int):
            raise DecodeError(f"the value of {entry.key!r} is not the size of a map", metadata={"key": entry.key})
        return cls(fed, bool(record.get("all")))


class Feeding:
    """The inputs of one map, as one supervisor has them.

    An input is put along with its digest, on the condition that it is the next one. So of several supervisors one puts
    it, and the others compare theirs with it, as one does that goes on where a former one was.

    lease: the supervisor's.
    """

    def __init__(self, state: Client, id: str, queue: Queue, lease: Lease) -> None:
        self._state = state
        self._id = id
        self._queue = queue
        self._lease = lease
        self._digests = layout.digests(id)
        self._size = layout.size(id)
        self._fed = 0  # how many inputs are known to be in the store, as of whomever
        self._seen = 0  # how many outcomes were given
        self._compared = 0  # how many inputs are known to be in the store as they are here
        self._goes_on = asyncio.Event()  # there may be room for another input, or somebody has put it
        self._compared_more = asyncio.Event()

    def seen(self) -> None:
        """One more outcome was given."""
        self._seen += 1
        self._goes_on.set()

    def fed(self, count: int) -> None:
        """So many inputs are in the store: outcomes of them may be waited for, and so there is no waiting with them."""
        self._fed = max(self._fed, count)
        self._goes_on.set()

    async def compared(self, index: int) -> None:
        """Wait until this input is known to be in the store as it is here."""
        while index >= self._compared:
            self._compared_more.clear()
            await self._compared_more.wait()

    async def run(self, inputs: Inputs, ahead: int) -> None:
        """Put the inputs that are not there yet. So many at most are in the store of which no outcome was given yet.

        Raises MapDiffers.
        """
        known = {
            index: entry.value
            async for entry in self._state.list(self._digests)
            if (index := index_of(entry.key, self._digests)) is not None
        }
        self.fed(Size.of(await self._state.get(self._size)).fed)
        index = 0
        async for each in _each(inputs):
            digest = digest_of(each)
            found = known.pop(index, None) if index < self._fed else None
            if found is None:
                while index >= self._fed and index - self._seen >= ahead:
                    self._goes_on.clear()
                    await self._goes_on.wait()
                found = await self._put(index, each, digest)
            if found != digest:
                raise self._differs(index, "is another one than that which it was begun with")
            index += 1
            self._compared = index
            self._compared_more.set()
        await self._end(index)

    async def _put(self, index: int, value: Any, digest: str) -> object:
        """Put an input if it is the next one. Returns the digest of that which the store has, or had."""
        key = place(self._digests, index)

        async def add(tx: Transaction) -> object:
            size = Size.of(await tx.get(self._size))
            if index < size.fed:
                entry = await tx.get(key)
                return digest if entry is None else entry.value  # None: whoever has put it keeps no digests
            if size.is_all:
                raise self._differs(index, "is one more than it was begun with")
            await self._queue.put({"index": index, "input": value}, tx=tx)
            tx.put(key, digest)
            tx.put(self._size, {"fed": index + 1, "all": False})
            return digest

        return await self._state.transact(add, guard=self._lease)

    async def _end(self, count: int) -> None:
        """These are all."""

        async def end(tx: Transaction) -> None:
            size = Size.of(await tx.get(self._size))
            if count < size.fed:
                raise self._differs(count, "is missing")
            if not size.is_all:
                tx.put(self._size, {"fed": count, "all": True})

        await self._state.transact(end, guard=self._lease)

    def _differs(self, index: int, how: str) -> MapDiffers:
        return MapDiffers(
            f"the map {self._id!r} was begun with other inputs: input {index} {how}. Give it another id, or forget the "
            f"first by `forget_map`",
            reason="INPUTS_CHANGED",
            metadata={"id": self._id, "index": str(index)},
        )


def place(prefix: str, index: int) -> str:
    """The key of an input under a prefix."""
    return f"{prefix}{index:0{INDEX_DIGITS}}"


def index_of(key: str, prefix: str) -> int | None:
    """Which input a key under a prefix is of; None: of none."""
    digits = key.removeprefix(prefix)
    index = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) == INDEX_DIGITS else None
    return index if key.startswith(prefix) else None


def digest_of(value: object) -> str:
    """The SHA-256 of a value as compact JSON, with the members of objects in order. Raises as `codec.to_json`."""
    plain = codec.from_json(codec.to_json(value), key="")
    text = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


async def _each(inputs: Inputs) -> AsyncIterator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for each in inputs:
            yield each
    else:
        for each in inputs:
            yield each
