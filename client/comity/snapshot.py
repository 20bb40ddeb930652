"""What a transaction function has read: the state at one revision, as far as it was asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

from . import convert
from .errors import OutOfRange
from .listing import Listing
from .model import Entry
from .operations import Condition, Key, Prefix
from .turns import Contender, Left
from .v1 import state_pb2

__all__ = ["Reading", "Snapshot"]

T = TypeVar("T")
Entries = dict[str, Entry]


class Reading(NamedTuple):
    """How a snapshot reads."""

    get: Callable[[str, int], Awaitable[tuple[int, Entry | None]]]  # a key at a revision, 0 being the newest
    list: Callable[[str, int], Listing]  # likewise
    timeout: float  # seconds, of each call
    contender: Contender  # of the keys that are read first
    namespace: str


class Snapshot:
    """The state at the revision of the first read.

    `gone` is the error of a read that found the revision compacted: what was read is then not the whole state.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._first = asyncio.Lock()
        self._revision: int | None = None
        self._entries: dict[str, Entry | None] = {}
        self._lists: dict[str, Entries] = {}
        # What is known of this revision without a read, and becomes a condition only once it is asked for.
        self._known_entries: dict[str, Entry | None] = {}
        self._known_lists: dict[str, Entries] = {}
        self.gone: OutOfRange | None = None

    async def get(self, key: str) -> Entry | None:
        """The entry of a key; None if it is absent."""
        for prefix, listed in self._lists.items():
            if key.startswith(prefix):
                return listed.get(key)
        if key not in self._entries:
            known = key in self._known_entries
            self._entries[key] = self._known_entries[key] if known else await self._read_key(key)
        return self._entries[key]

    async def list(self, prefix: str) -> Collection[Entry]:
        """The entries under a prefix, in the order of keys."""
        if prefix not in self._lists:
            known = prefix in self._known_lists
            self._lists[prefix] = self._known_lists[prefix] if known else await self._read_prefix(prefix)
        return self._lists[prefix].values()

    def conditions(self) -> Sequence[Condition]:
        """What must hold so that all that was read is still so: keys first, then prefixes, in the order of reading."""
        if self._revision is None:
            return []
        keys = [Key(key).mod_revision == (entry.mod_revision if entry else 0) for key, entry in self._entries.items()]
        return keys + [Prefix(prefix).unchanged_since(self._revision) for prefix in self._lists]

    def known(self, key: str, left: Left) -> "Snapshot":
        """The snapshot at a later revision, of which nothing else is known than what a key holds."""
        known = Snapshot(self._reading)
        known._revision = left.revision
        known._known_entries[key] = left.entry
        return known

    def moved(self, response: state_pb2.TransactResponse) -> "Snapshot":
        """The snapshot at the revision at which a transaction with these conditions failed.

        The answer has the entries of the conditions that failed, and what the others are about is as it was. So the
        next run of the function reads nothing that the last one has read.
        """
        moved = Snapshot(self._reading)
        moved._revision = response.revision
        failed = {found.index: found for found in response.failed}
        for index, (key, entry) in enumerate(self._entries.items()):
            found = failed.get(index)
            if found is None:
                moved._known_entries[key] = entry
            elif not found.value_omitted:
                moved._known_entries[key] = convert.entry(found.current) if found.HasField("current") else None
        for index, (prefix, entries) in enumerate(self._lists.items(), start=len(self._entries)):
            if index not in failed:
                moved._known_lists[prefix] = entries
        return moved

    async def _read_key(self, key: str) -> Entry | None:
        async def read(revision: int) -> tuple[int, Entry | None]:
            left = None if revision else await self._reading.contender.begin(key)
            return left or await self._reading.get(key, revision)

        return await self._read(read, None)

    async def _read_prefix(self, prefix: str) -> Entries:
        async def read(revision: int) -> tuple[int, Entries]:
            listing = self._reading.list(prefix, revision)
            entries = {entry.key: entry async for entry in listing}
            return listing.revision, entries

        return await self._read(read, {})

    async def _read(self, read: Callable[[int], Awaitable[tuple[int, T]]], empty: T) -> T:
        try:
            if self._revision is None:
                async with self._first:  # of reads that begin together, the others wait for the revision
                    if self._revision is None:
                        self._revision, found = await read(0)
                        return found
            if self._revision == 0:  # to the server that would mean the newest; here it is the empty state
                return empty
            return (await read(self._revision))[1]
        except OutOfRange as error:
            self.gone = error
            raise
