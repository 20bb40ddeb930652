"""Has replicas that are watched follow their logs, as these grow."""

import asyncio
from collections.abc import Callable

import structlog

from comity_server.errors import StateError
from comity_server.stores.redis.failures import Passing, Unreadable
from comity_server.stores.redis.loading import Trimmed
from comity_server.stores.redis.patience import backoff
from comity_server.stores.redis.portions import ENTRIES, Portion
from comity_server.stores.redis.replicas import Replicas
from comity_server.tasks import end, is_cancelled

log = structlog.get_logger(__name__)


class Followers:
    """One a namespace. Use from one event loop.

    Args:
        lock: of a namespace.
    """

    def __init__(self, replicas: Replicas, lock: Callable[[str], asyncio.Lock]) -> None:
        self._client = replicas.client
        self._replicas = replicas
        self._lock = lock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str) -> None:
        """Follow a namespace until the `end` of it."""
        self._tasks[name] = asyncio.get_running_loop().create_task(self._follow(name))

    async def end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            await end(task)

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            await end(task)

    async def _follow(self, name: str) -> None:
        """Read the log as it grows, until cancelled; or where redis-py has lost that, until it is nobody's follower."""
        attempt = 0
        portion = Portion(ENTRIES)
        while self._tasks.get(name) is asyncio.current_task():
            try:
                replica = self._replicas.known(name)
                if replica is None:
                    await self._replicas.fresh(name)
                    continue
                meta = replica.meta
                key = self._replicas.keys(name).log(meta.generation)
                entries = await self._client.read_blocking(key, f"{meta.revision}-{meta.sub}", portion.count)
                portion.took_entries(entries)
                if not entries:
                    await self._replicas.fresh(name)
                    continue
                async with self._lock(name):
                    if self._replicas.known(name) is not replica or replica.meta.generation != meta.generation:
                        continue
                    try:
                        await self._replicas.read_log(name, replica, entries)
                    except Trimmed:
                        advanced = await self._replicas.advance(name)
                        if advanced is replica and replica.meta.place == meta.place:  # no server has written that
                            raise Unreadable(f"the log of {name} has what is not the store's") from None
                attempt = 0
            except (StateError, Passing):
                portion.failed()
                await asyncio.sleep(backoff(attempt))
                attempt += 1
            except (Exception, asyncio.CancelledError) as error:
                # To follow no more would leave watches silent for ever.
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                log.exception("a log could not be followed", namespace=name)
                self._replicas.distrust(name)
                await asyncio.sleep(backoff(attempt))
                attempt += 1
