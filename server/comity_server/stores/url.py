"""Chooses the store that a URL names."""

from comity_server.limits import Limits
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Store


def open_store(url: str, limits: Limits) -> Store:
    """Make the store that a URL names, not yet opened: `memory:`. Raises ValueError."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(f"{url!r} is not the URL of a store, such as memory:")
    if scheme == "memory":
        if rest:
            raise ValueError(f"memory: takes nothing after the colon, and got {rest!r}")
        return MemoryStore(limits)
    raise ValueError(f"{url!r} names a kind of store that does not exist: there is memory:")
