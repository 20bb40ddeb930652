"""Looks how Redis is: whether it is there, can be written to, has what it had, and what time it is by its clock."""

import asyncio
import time
from typing import Final

import structlog

from comity_server.errors import StateError
from comity_server.stores.redis import keys
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.epoch import Epoch
from comity_server.stores.redis.failures import Passing
from comity_server.tasks import end

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.2  # how often Redis is asked for its time, which tells also that it is there
LOST_SECONDS: Final = 5.0  # how long health says so when Redis has lost what it had acknowledged


class Health:
    """How it was the last time that somebody looked. Use from one event loop."""

    def __init__(self, client: Client, epoch: Epoch) -> None:
        self.ahead = 0  # of Redis's clock before this process's monotonic one, in µs
        self._client = client
        self._epoch = epoch
        self._looking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look now and then, until it is closed."""
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        if self._looking is not None:
            await end(self._looking)

    def time(self) -> int:
        """By the clock of Redis, in µs since 1970."""
        return time.monotonic_ns() // 1000 + self.ahead

    def trouble(self) -> str:
        """Why it cannot be written to; empty: it can."""
        lost = self._epoch.lost_at
        if lost is not None and time.monotonic() < lost + LOST_SECONDS:
            return "Redis has lost what it had acknowledged"
        failure = self._client.failure or self._client.refusal or self._client.trouble
        if failure is not None:
            return failure.message
        return "" if self._client.reachable else "Redis cannot be reached"

    async def look(self) -> None:
        """Ask Redis for its time, and whether it has lost something."""
        before = time.monotonic_ns()
        now, epoch = await self._client.look(keys.epoch(self._client.target.prefix))
        after = time.monotonic_ns()
        self.ahead = now - (before + after) // 2000
        await self._epoch.look(epoch)

    async def _keep_looking(self) -> None:
        """Look how Redis is, until cancelled. The log says when it cannot be written to, and when it can again."""
        was_writable = not self.trouble()  # what it was opened with was warned of
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
                await self._client.try_writes()
            except (StateError, Passing) as error:
                log.debug("Redis is not well", error=str(error))
            except Exception:  # to look no more would be to say the last answer for ever
                log.exception("Redis could not be looked at")
            trouble = self.trouble()
            if was_writable and trouble:
                log.warning("the store cannot be written", reason=trouble, redis=str(self._client.target))
            elif not was_writable and not trouble:
                log.info("the store can be written again", redis=str(self._client.target))
            was_writable = not trouble
