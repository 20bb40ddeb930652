"""What is held by one or a few at a time: locks, slots of semaphores, offices."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from comity import recipes
from comity.recipes.holder import Holder as AsyncHolder
from comity.sync.client import Client
from comity.sync.holding import Holding
from comity.sync.lease import Lease
from comity.sync.thread import run
from comity.sync.waiting import documented, items, waiting

from .inner import inner

__all__ = ["Election", "Lock", "Semaphore"]


class Holder(Holding):
    """One contender for something. It waits or holds once at a time."""

    _async: AsyncHolder

    @property
    def held(self) -> bool:
        """Whether it is held here, and its lease lives as far as this process knows."""
        return self._async.held

    @property
    def lease(self) -> Lease:
        """The lease that it is held by. It may be lost: see `held`. Raises RuntimeError if it is not held."""
        return Lease(self._async.lease)

    acquire = waiting(AsyncHolder.acquire)
    try_acquire = waiting(AsyncHolder.try_acquire)
    release = waiting(AsyncHolder.release)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run(self._async._end_block(error))


class Lock(Holder):
    """One contender for a lock that all who name it share: as `comity.recipes.Lock`."""

    _async: recipes.Lock

    def __init__(self, state: Client, name: str, ttl: float = 10.0, *, owner: str | None = None) -> None:
        self._async = recipes.Lock(inner(state), name, ttl, owner=owner)
        self.name = self._async.name

    locked = waiting(recipes.Lock.locked)
    owner = waiting(recipes.Lock.owner)


class Semaphore(Holder):
    """One contender for one of the slots that all who name the semaphore share: as `comity.recipes.Semaphore`."""

    _async: recipes.Semaphore

    def __init__(self, state: Client, name: str, limit: int, ttl: float = 10.0, *, owner: str | None = None) -> None:
        self._async = recipes.Semaphore(inner(state), name, limit, ttl, owner=owner)
        self.name = self._async.name
        self.limit = limit

    owners = waiting(recipes.Semaphore.owners)


class Election(Holder):
    """One candidate for, or observer of, a leadership: as `comity.recipes.Election`."""

    _async: recipes.Election

    def __init__(self, state: Client, name: str, ttl: float = 10.0) -> None:
        self._async = recipes.Election(inner(state), name, ttl)
        self.name = self._async.name

    campaign = waiting(recipes.Election.campaign)
    resign = waiting(recipes.Election.resign)
    proclaim = waiting(recipes.Election.proclaim)
    leader = waiting(recipes.Election.leader)

    @contextlib.contextmanager
    def leading(self, value: object, timeout: float | None = None) -> Iterator[Self]:
        """A block that is run while leading: campaigns, and resigns at its end."""
        self.campaign(value, timeout)
        try:
            yield self
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        self.__exit__(None, None, None)

    @documented(recipes.Election.observe)
    def observe(self) -> Iterator[recipes.Leader | None]:
        return items(self._async.observe())
