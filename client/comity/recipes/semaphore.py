"""A semaphore: so many holders at a time, in the order in which they asked."""

from comity.checks import check_count, check_seconds
from comity.client import Client

from .holder import Holder
from .line import Line
from .names import asynchronous, check_name, owner_of

__all__ = ["Semaphore"]


class Semaphore(Holder):
    """One contender for one of the slots that all who name the semaphore share. Fair: who asked first has one first.

        async with Semaphore(state, "gpu", limit=4):
            ...

    A slot is held by a lease. If that is lost in an `async with`, the block is cancelled and LeaseLost is raised. An
    object holds or waits once at a time, so make one for each task.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    limit: how many may hold it, from 1. The first to ask writes it down; `acquire` raises FailedPrecondition
        (LIMIT_DIFFERS) for another one.
    ttl: seconds after which a slot is free again where a holder died.
    owner: what `owners()` says; the client's author unless given.

    Raises TypeError and ValueError for arguments that do not fit.
    """

    def __init__(self, state: Client, name: str, limit: int, ttl: float = 10.0, *, owner: str | None = None) -> None:
        asynchronous(state)
        self.name = check_name(name)
        self.limit = check_count("limit", limit)
        root = f"semaphores/{self.name}/"
        line = Line(state, f"{root}slots/", check_seconds("ttl", ttl), limit=limit, limit_key=f"{root}limit")
        super().__init__(f"semaphore {name!r}", line, {"owner": owner_of(state, owner)}, missed="had no free slot")

    async def owners(self) -> list[str]:
        """Who holds it, as they call themselves, the longest-serving first."""
        return await self._owners()
