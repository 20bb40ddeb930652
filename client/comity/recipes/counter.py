"""A counter that any number of agents add to at once."""

from comity.client import Client
from comity.model import GetResult
from comity.operations import Get, Put

from .names import asynchronous, check_name, whole

__all__ = ["Counter"]


class Counter:
    """A whole number, from -(2^53-1) to 2^53-1, that all who name it share. No addition is lost, and none waits for
    another.

        runs = Counter(state, "runs")
        await runs.increment()

    In a transaction: `tx.increment(runs.key)`.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    """

    def __init__(self, state: Client, name: str) -> None:
        self._state = asynchronous(state)
        self.name = check_name(name)
        self.key = f"counters/{self.name}"

    def __repr__(self) -> str:
        return f"<comity.recipes.Counter {self.name!r}>"

    async def increment(self, by: int = 1) -> int:
        """Add to it, and return the sum. Raises TypeError for what is no whole number; FailedPrecondition
        (NOT_A_NUMBER) if the sum would be past the bounds."""
        return (await self._state.increment(self.key, by)).value

    async def decrement(self, by: int = 1) -> int:
        """Take away from it, and return what is left, which may be below 0. Raises as `increment` does."""
        if isinstance(by, bool) or not isinstance(by, int):
            raise TypeError(f"by must be a whole number, not {type(by).__name__}")
        return await self.increment(-by)

    async def get(self) -> int:
        """What it is now; 0 if nothing was ever added. Raises FailedPrecondition if the key holds something else."""
        entry = await self._state.get(self.key)
        return whole(entry)

    async def reset(self, value: int = 0) -> int:
        """Set it, and return what it was, so that each addition is seen by one reset only."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"value must be a whole number, not {type(value).__name__}")
        done = await self._state.transact(then=[Get(self.key), Put(self.key, value)])
        before = done.results[0]
        assert isinstance(before, GetResult)
        return whole(before.entry)
