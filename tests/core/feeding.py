"""A feed over a store in memory, and reading from it."""

from collections.abc import Sequence

from comity_server.feed import Batch, Cursor, Feed
from comity_server.limits import Limits
from comity_server.model import Commit, Event, Operation, Put, Transaction
from comity_server.pieces import Interest
from comity_server.record import KEY
from comity_server.stores.memory.store import MemoryStore

EVERYTHING = Interest("", is_prefix=True)


def encode(commit: Commit, events: Sequence[Event], start: int, previous: bool) -> tuple[bytes, int]:
    """Two events at a time."""
    keys = [("-" if event.is_delete else "+") + event.entry[KEY] for event in events[start : start + 2]]
    return f"{commit.revision}:{','.join(keys)};".encode(), start + len(keys)


class World:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(Limits())
        self.encoded = 0
        self.feed = Feed(self.store, self._encode)

    def _encode(self, commit: Commit, events: Sequence[Event], start: int, previous: bool) -> tuple[bytes, int]:
        self.encoded += 1
        return encode(commit, events, start, previous)

    async def write(self, *operations: Operation, namespace: str = "n") -> int:
        (outcome,) = await self.store.commit(namespace, [Transaction(then=operations)])
        assert not isinstance(outcome, Exception)
        return outcome.revision

    async def fill(self, count: int, key: str = "k", value: bytes = b"") -> None:
        await self.store.commit("n", [Transaction(then=[Put(key, value)])] * count)


def text(batch: Batch) -> str:
    return b"".join(batch.fragments).decode()


async def read(cursor: Cursor, max_bytes: int = 1_000_000) -> str:
    return text(await cursor.read(max_bytes, 10))


async def read_until(cursor: Cursor, revision: int, max_bytes: int = 1_000_000) -> str:
    found = ""
    while cursor.revision < revision:
        found += await read(cursor, max_bytes)
    return found
