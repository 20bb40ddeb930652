"""What a store offers to be copied from, and to be copied to."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Union

from comity_server.stores.memory.draft import Following
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.store import MemoryStore

Progress = Callable[[str, int, int], None]
"""Is told the namespace, how much of it was written, and of how much: versions and commits."""

Remaining = Callable[[str], Awaitable[Mapping[int, int]]]
"""Tells of a namespace's leases how many µs each has left."""


class NoStore(Exception):
    """There is nothing to copy from."""


class Ancestor(NamedTuple):
    """A namespace in the line from a fork to what all was forked from."""

    name: str
    id: int  # tells it from others of that name
    exists: bool  # False: it is deleted, and forks share it


class Loaded(NamedTuple):
    """What a store has of some namespaces, as of one moment for each."""

    store: MemoryStore
    stands: Mapping[str, Hashable]  # where each stood


class Reader(Protocol):
    """Reads a store, and leaves it as it is."""

    least_revision: int  # see MemoryStore

    async def open(self) -> None:
        """Raises NoStore or StoreUnavailable."""

    async def close(self) -> None: ...

    async def names(self, prefix: str = "") -> Sequence[str]:
        """The names that begin so, in order: of namespaces, and of deleted ones, which go on counting."""

    async def lineage(self, name: str) -> Sequence[Ancestor]:
        """A namespace, what it was forked from, and so on."""

    async def load(self, names: Sequence[str]) -> Loaded:
        """Namespaces, and what they share: none is before what it was forked from."""

    async def remaining(self, name: str) -> Mapping[int, int]:
        """How many µs each lease of a namespace has left: of one that was renewed since it was loaded, more."""


class Counter(NamedTuple):
    """What is kept of a deleted namespace."""

    name: str
    revision: int
    time: int  # of its newest commit
    requests: Requests


@dataclass(frozen=True, eq=False)
class Arrival:
    """A namespace on its way to another store.

    Its parent is what it is a fork of there: another one on its way, or one that is there, deleted or not.
    """

    state: Namespace
    parent: Union["Arrival", Namespace, None]
    requests: Requests

    @property
    def name(self) -> str:
        return self.state.name


class Arrivals(Protocol):
    """Lets a store that is open take in what comes from another."""

    async def bring(
        self, arrivals: Sequence[Arrival], replaced: Sequence[str], progress: Progress, remaining: Remaining
    ) -> None:
        """Have namespaces in the store, none before what it was forked from. No reader sees one before it is whole.
        Their leases live as long as the source says when they come to be there; one that it does not know any more, for
        its ttl.

        Those that are replaced are deleted when all is written. Raises Conflict where another one has come meanwhile.
        """

    async def take_over(self, name: str, following: Following) -> None:
        """See MemoryStore. Raises Conflict where others write to the namespace."""

    async def renew(self, name: str, remaining: Mapping[int, int]) -> None:
        """Have leases, as far as they are there, live so many µs from now on at the least."""

    async def set_requests(self, name: str, requests: Requests) -> None:
        """Remember what is given, and nothing else. Raises Conflict as `take_over` does."""

    async def raise_counters(self, counters: Sequence[Counter]) -> Sequence[str]:
        """Have names that no namespaces have go on from revisions at least. Returns those that namespaces have."""

    async def raise_least(self, revision: int) -> None:
        """Have all names that are not known begin above a revision, where the store can."""
