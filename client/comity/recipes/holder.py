"""What whoever holds a place at the front of a line can do, be it a lock, a slot of a semaphore or an office."""

from types import TracebackType
from typing import Any, Self

from comity.cleanup import clean_up
from comity.leases.block import Block
from comity.leases.holding import Holding
from comity.leases.lease import Lease
from comity.model import Entry

from .line import Line, Place
from .within import within

__all__ = ["Holder", "label"]


class Holder(Holding):
    """One contender for something that a line is for. It is in line or holds it once at a time.

    While it is not held, `lease`, `namespace`, `fence`, `guard` and `check` raise RuntimeError.
    """

    name: str

    def __init__(self, what: str, line: Line, value: object, *, missed: str = "was not had") -> None:
        self._what = what  # and its name: lock 'a'
        self._missed = f"{what} {missed}"
        self._line = line
        self._value = value
        self._place: Place | None = None
        self._block: Block | None = None
        self._entering = False

    def __repr__(self) -> str:
        if self._place is not None:
            place = f"held, fence {self.fence}" if self.held else f"lost, fence {self.fence}"
        else:
            place = "waiting" if self._entering else "not held"
        return f"<comity.recipes.{type(self).__name__} {self.name!r}: {place}>"

    @property
    def held(self) -> bool:
        """Whether it is held here, and its lease lives as far as this process knows."""
        return self._place is not None and self._place.lease.alive

    @property
    def lease(self) -> Lease:
        """The lease that it is held by. It may be lost: see `held`. Raises RuntimeError if it is not held."""
        if self._place is None:
            raise RuntimeError(f"{self._what} is not held")
        return self._place.lease

    @property
    def fence(self) -> int:
        """The fencing token: greater than that of everyone who held it before. Raises RuntimeError if it is not
        held."""
        return self.lease.fence

    async def acquire(self, timeout: float | None = None) -> int:
        """Stand in line, hold it once it is our turn, and return the fence.

        timeout: seconds to wait at most; None: for ever. A cancelled wait leaves the line, as does one whose time is
            up.

        Raises TimeoutError; RuntimeError if it is held or waited for already: make one for each task; and what
        `Client.transact` raises.
        """
        self._begin()
        try:
            async with within(timeout, self._missed) as wait:
                self._place = await self._line.enter(self._value, wait)
        finally:
            self._entering = False
        assert self._place is not None
        return self._place.lease.fence

    async def try_acquire(self) -> bool:
        """Hold it if that can be had at once. Whether it is held now. Raises what `acquire` does."""
        self._begin()
        try:
            self._place = await self._line.try_enter(self._value)
        finally:
            self._entering = False
        return self._place is not None

    async def release(self) -> None:
        """Let the next one have it. Raises LeaseLost if it was lost before; RuntimeError if it is not held."""
        lease = self.lease
        self._place = None
        was_alive = lease.alive
        await lease.revoke()
        if not was_alive:
            lease.check()

    async def __aenter__(self) -> Self:
        await self.acquire()
        self._begin_block()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end_block(error)

    def _begin(self) -> None:
        if self._entering or self.held:
            raise RuntimeError(f"{self._what} is held or waited for by this object already: make one for each task")
        self._place = None
        self._entering = True

    def _begin_block(self) -> None:
        """The running task is cancelled if the lease is lost, until the block ends."""
        self._block = Block()
        self._block.begin(self.lease)

    async def _end_block(self, error: BaseException | None) -> None:
        """Release it after a block that has raised this. Raises LeaseLost if it was lost, unless the block raised."""
        block, self._block = self._block, None
        place, self._place = self._place, None
        try:
            if block is not None:
                block.end()
                if error is not None:
                    block.check(error)
            if place is not None and error is None:  # else it was released in the block
                place.lease.check()
        finally:
            if place is not None:
                await clean_up(place.lease.revoke())

    async def _owners(self) -> list[str]:
        return [label(entry) for entry in await self._line.first()]


def label(entry: Entry) -> str:
    """Who wrote a place, as it calls itself."""
    value: Any = entry.value
    return str(value.get("owner", "")) if isinstance(value, dict) else ""
