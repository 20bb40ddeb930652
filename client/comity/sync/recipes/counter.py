"""A counter that any number of threads add to at once."""

from comity import recipes
from comity.sync.client import Client
from comity.sync.waiting import waiting

from .inner import inner

__all__ = ["Counter"]


class Counter:
    """A whole number that all who name it share: as `comity.recipes.Counter`."""

    def __init__(self, state: Client, name: str) -> None:
        self._async = recipes.Counter(inner(state), name)
        self.name = self._async.name
        self.key = self._async.key

    def __repr__(self) -> str:
        return repr(self._async)

    increment = waiting(recipes.Counter.increment)
    decrement = waiting(recipes.Counter.decrement)
    get = waiting(recipes.Counter.get)
    reset = waiting(recipes.Counter.reset)
