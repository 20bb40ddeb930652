"""A barrier: nobody goes on before all have come."""

from comity import recipes
from comity.sync.client import Client
from comity.sync.waiting import waiting as waiting_for

from .inner import inner

__all__ = ["Barrier"]


class Barrier:
    """A barrier for so many parties, which all who name it share: as `comity.recipes.Barrier`."""

    def __init__(self, state: Client, name: str, parties: int, ttl: float = 10.0, *, owner: str | None = None) -> None:
        self._async = recipes.Barrier(inner(state), name, parties, ttl, owner=owner)
        self.name = self._async.name
        self.parties = parties

    def __repr__(self) -> str:
        return repr(self._async)

    wait = waiting_for(recipes.Barrier.wait)
    waiting = waiting_for(recipes.Barrier.waiting)
