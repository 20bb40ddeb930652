"""What a store in memory tells a journal before it shows it: with one, it is durable."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.namespace import Collected, Namespace


class Journal(Protocol):
    """Each method returns when what it is told is durable, in the order in which it was told. Raises StoreUnavailable
    or StoreFull: then nothing of it is, as far as can be known."""

    async def commit(self, draft: Draft, *, begins: bool) -> None:
        """A group's commits, checkpoints, leases and outcomes. `begins`: the namespace is a new one."""

    async def keep_alive(self, namespace: Namespace, deadlines: Mapping[int, int]) -> None:
        """Leases that were renewed, and until when by the clock of the store. Those that have ended are left out."""

    async def floor(self, namespace: Namespace, floor: int) -> None:
        """A floor that is going to be raised."""

    async def collected(self, namespace: Namespace, collected: Collected) -> None:
        """What can not be read any more."""

    async def delete(self, namespace: Namespace, revision: int) -> None:
        """The end of a namespace, whose name goes on counting at a revision."""

    async def drop(self, namespaces: Sequence[Namespace]) -> None:
        """Deleted namespaces that no fork shares any more."""

    async def forget_clients(self, namespace: str, clients: Sequence[str]) -> None:
        """Clients whose outcomes are not remembered any more."""

    async def forget_names(self, names: Sequence[str], least: int) -> None:
        """Names whose counters are not kept any more: every new namespace begins above a revision."""
