"""A lock: one holder at a time, in the order in which they asked."""

from comity.checks import check_seconds
from comity.client import Client

from .holder import Holder
from .line import Line
from .names import asynchronous, check_name, owner_of

__all__ = ["Lock"]


class Lock(Holder):
    """One contender for a lock that all who name it share. Fair: who asked first has it first.

        async with Lock(state, "deploy") as lock:
            await state.put("version", 7, guard=lock.guard)  # LeaseLost if it is held no longer
            await service.deploy(token=lock.fence)

    It is held by a lease. If that is lost in an `async with`, the block is cancelled and LeaseLost is raised. Not
    reentrant: an object holds or waits once at a time, so make one for each task.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    ttl: seconds after which the next one has it where a holder died.
    owner: what `owner()` says; the client's author unless given.

    Raises TypeError and ValueError for arguments that do not fit.
    """

    def __init__(self, state: Client, name: str, ttl: float = 10.0, *, owner: str | None = None) -> None:
        asynchronous(state)
        self.name = check_name(name)
        line = Line(state, f"locks/{self.name}/", check_seconds("ttl", ttl))
        super().__init__(f"lock {name!r}", line, {"owner": owner_of(state, owner)})

    async def locked(self) -> bool:
        """Whether anybody holds it."""
        return bool(await self._line.first())

    async def owner(self) -> str | None:
        """Who holds it, as it calls itself; None if nobody does."""
        owners = await self._owners()
        return owners[0] if owners else None
