"""Reads what is long a portion at a time: as many items as come to a few MiB, whatever the size of each.

So no answer holds Redis for long, nor takes longer to come than a command may.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from comity_server.stores.redis.client import Client
from comity_server.stores.redis.failures import Passing

BYTES: Final = 4 * 1024 * 1024  # that a portion is to come to
FIRST: Final = 16  # items, while it is not known how long they are
FIELDS: Final = 1000  # of a hash, at the most
ENTRIES: Final = 256  # of a stream, likewise

Entry = tuple[bytes, Mapping[bytes, bytes]]  # of a stream: its id, and its fields


class Portion:
    """How many items are read at a time, by what those before came to.

    Args:
        most: how many, however short they are.
    """

    def __init__(self, most: int) -> None:
        self.count = min(FIRST, most)
        self._most = most

    def took(self, count: int, size: int) -> None:
        """So many items came to so many bytes."""
        if count:
            self.count = max(1, min(self._most, 4 * self.count, BYTES * count // max(size, 1)))

    def failed(self) -> None:
        """It may be that it was too much."""
        self.count = max(1, self.count // 4)

    def took_entries(self, entries: Sequence[Entry]) -> None:
        self.took(len(entries), sum(len(value) for _, fields in entries for value in fields.values()))

    async def call(self, client: Client, *command: Any) -> Any:
        """A command that takes a COUNT at its end. Errors as of `Client.call`."""

        async def attempt() -> Any:
            try:
                return await client.ask(*command, "COUNT", self.count)
            except Passing:
                self.failed()
                raise

        return await client.repeated(attempt)


async def scan(client: Client, key: str) -> AsyncIterator[tuple[bytes, bytes]]:
    """The fields of a hash and their values; what changes meanwhile may come as it was, as it is, or twice."""
    portion = Portion(FIELDS)
    cursor = 0
    while True:
        cursor, found = await portion.call(client, "HSCAN", key, cursor)
        portion.took(len(found), sum(map(len, found.values())))
        for field, value in found.items():
            yield field, value
        if not cursor:
            return


async def entries_after(client: Client, key: str, start: str) -> AsyncIterator[Entry]:
    """The entries of a stream from an id on, or after it if it begins with a parenthesis, up to the newest one."""
    portion = Portion(ENTRIES)
    while True:
        found = await portion.call(client, "XRANGE", key, start, "+")
        asked = portion.count
        portion.took_entries(found)
        for entry in found:
            yield entry
        if len(found) < asked:
            return
        start = f"({found[-1][0].decode()}"
