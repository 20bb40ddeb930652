"""Has those who ask at the same time where a namespace stands ask Redis once."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from comity_server.errors import StateError

log = structlog.get_logger(__name__)

Look = Callable[[], Awaitable[None]]


class Barriers:
    """One a namespace, as long as somebody is at it. Use from one event loop."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Barrier] = {}

    async def passed(self, name: str, look: Look) -> None:
        """Wait until a look that began after this call has ended. Raises what it raised."""
        barrier = self._by_name.get(name)
        if barrier is None:
            barrier = self._by_name[name] = _Barrier()
        try:
            await barrier.passed(look)
        finally:
            if not barrier.used and self._by_name.get(name) is barrier:  # else the name has another one now
                del self._by_name[name]

    def is_used(self, name: str) -> bool:
        """Whether a look is under way, or somebody waits for one."""
        barrier = self._by_name.get(name)
        return barrier is not None and barrier.used

    def forget(self, name: str) -> None:
        """What one who did not wait for the end has left. It is not used."""
        self._by_name.pop(name, None)

    async def close(self) -> None:
        for barrier in list(self._by_name.values()):
            await barrier.close()


class _Barrier:
    """Lets those pass together who came before a look began."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def used(self) -> bool:
        return self._next is not None or self._task is not None

    async def passed(self, look: Look) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiting = self._next
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(look))
        await asyncio.shield(waiting)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, look: Look) -> None:
        while self._next is not None:
            waiting, self._next = self._next, None
            try:
                await look()
            except StateError as error:
                self._fail(waiting, error)
            except Exception as error:
                log.exception("a namespace could not be looked at")
                self._fail(waiting, error)
            except BaseException:
                for one in (waiting, self._next):
                    if one is not None:
                        one.cancel()
                self._next = self._task = None
                raise
            else:
                waiting.set_result(None)
        self._task = None

    def _fail(self, waiting: asyncio.Future[None], error: Exception) -> None:
        late, self._next = self._next, None  # who came meanwhile would wait as long again to hear the same
        for one in (waiting, late):
            if one is not None:
                one.set_exception(error)
                one.exception()  # whoever waits may be gone
