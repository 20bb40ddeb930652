"""The words in which all clients do the same work."""

from collections.abc import Sequence
from typing import Protocol


class Client(Protocol):
    """One client of one server, in the event loop that made it, with keys that no other run has."""

    async def put(self, key: str, value: bytes) -> None:
        """Write a key."""

    async def get(self, key: str) -> bytes | None:
        """Read a key."""

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        """Write keys in one transaction."""

    async def add(self, key: str) -> None:
        """Read a number, and write one more in its place unless somebody was faster: then again, until it is done."""

    async def count(self, prefix: str) -> int:
        """Read all keys under a prefix with their values, and count them."""
