"""Finds the leases that have run out, in all namespaces: also in those that no server has in memory.

A sorted set says when to look into which namespace: not after the first of its leases runs out. Whoever grants one sees
to that; whoever looks says when to look next. Each is looked into by one server at a time, and by another one if that
does not say when next.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from comity_server.errors import StateError
from comity_server.stores.redis import keys
from comity_server.stores.redis.client import Client, Passing, Script, Unreadable
from comity_server.stores.redis.keys import Keys
from comity_server.tasks import end

log = structlog.get_logger(__name__)

DOZE: Final = Script("doze")
DUE: Final = Script("due")
WAKE: Final = Script("wake")
WOKEN: Final = Script("woken")

NAMESPACES: Final = 100  # that are looked into at a time
LEASES: Final = 5000  # of one, that are told at a time
AGAIN: Final = (
    250_000  # µs, after which a namespace is looked into again whose leases are due, or that is not done with
)
UNREADABLE: Final = 10_000_000  # µs, likewise, of one that cannot be read
LOOK_SECONDS: Final = 0.2  # how long looks are waited for; what is found later is told the next time
APART: Final = 500_000  # µs that what servers think of Redis's clock may be apart
SLACK: Final = 10_000  # µs by which a time may seem earlier than it is, since answers take time
NAME: Final = re.compile(r"[^{}]+")  # else the keys of it may lie in several slots
KNOWN: Final = 10_000  # namespaces of which it is remembered when one looks


class Expiries:
    """Use from one event loop.

    Args:
        time: the clock of Redis, in µs since 1970.
        generation: what is thought to be the generation of a namespace.
    """

    def __init__(self, client: Client, *, time: Callable[[], int], generation: Callable[[str], int]) -> None:
        self._client = client
        self._time = time
        self._generation = generation
        self._prefix = client.target.prefix
        self._key = keys.expiries(self._prefix)
        self._known: dict[str, int] = {}  # when servers look into namespaces, at the latest
        self._late: dict[str, int] = {}  # what could not be said yet
        self._looks: dict[bytes, asyncio.Task[Sequence[int]]] = {}  # under way, by the names of namespaces

    async def granted(self, name: str, remaining: int) -> None:
        """Have a namespace looked into in time for a lease that lives so many µs from now on. What cannot be done now
        the next `due` does."""
        now = self._time()
        at = now + remaining
        known = self._known.get(name)
        if known is not None and known <= at and now < known - APART:
            return  # before that time nobody says anything else
        try:
            await self._wake(name, at)
        except (StateError, Passing) as error:
            log.debug("a lease could not be made known yet", namespace=name, error=str(error))
            self._late[name] = min(at, self._late.get(name, at))

    async def remind(self, name: str) -> None:
        """Have a namespace looked into in time for the leases that it has, whatever was said before: whoever was to say
        so may have ended before, and Redis may have lost it."""
        await self._client.repeated(partial(self._remind, name))

    async def _remind(self, name: str) -> None:
        left, _ = await self._look(name)
        if left is not None:
            await self._wake(name, self._time() + max(0, left))

    async def due(self) -> Mapping[str, Sequence[int]]:
        """The leases that have run out, of some namespaces; of the others the next time. Raises StoreUnavailable or
        StoreFull."""
        try:
            return await self._due()
        except Passing as error:  # it is tried again soon anyway
            raise error.failure from error

    async def _due(self) -> Mapping[str, Sequence[int]]:
        for name, at in list(self._late.items()):
            await self._wake(name, at)
            if self._late.get(name) == at:
                del self._late[name]
        now = self._time()
        names = await self._client.ask("ZRANGEBYSCORE", self._key, "-inf", now, "LIMIT", 0, NAMESPACES)
        again = now + AGAIN
        for name in await self._client.run(WOKEN, [self._key], [now, again, *names]) if names else ():
            if name not in self._looks:
                self._looks[name] = asyncio.get_running_loop().create_task(self._due_of(name, again))
        return await self._seen()

    async def _seen(self) -> Mapping[str, Sequence[int]]:
        """What has been found. A node of a Cluster that does not answer keeps nothing from the namespaces of others."""
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=LOOK_SECONDS)
        found: dict[str, Sequence[int]] = {}
        for name, look in list(self._looks.items()):
            if not look.done():
                continue
            del self._looks[name]
            try:
                due = look.result()
            except (StateError, Passing) as error:
                log.debug("leases could not be looked at", namespace=name, error=str(error))
                continue
            if due:
                found[name.decode()] = due
        return found

    async def close(self) -> None:
        for look in list(self._looks.values()):
            await end(look)

    async def _due_of(self, member: bytes, again: int) -> Sequence[int]:
        """Those of one namespace. If there is none, say when there may be."""
        try:
            name = member.decode()
            if not NAME.fullmatch(name):
                raise Unreadable("it is not the name of a namespace")
            self._known.pop(name, None)
            left, due = await self._look(name)
            if due:
                return due
            at = self._time() + left if left is not None else None
            if not await self._client.run(DOZE, [self._key], [name, again, "" if at is None else at]):
                return ()
            # What was granted in between was made known in vain if that was before it was said when to look next.
            left, _ = await self._look(name)
            if left is not None and (at is None or self._time() + left < at - SLACK):
                await self._wake(name, self._time() + max(0, left))
        except (Unreadable, UnicodeDecodeError, ValueError) as error:
            log.debug("leases cannot be read", namespace=member, error=str(error))
            await self._client.run(DOZE, [self._key], [member, again, again + UNREADABLE])
        return ()

    async def _look(self, name: str) -> tuple[int | None, Sequence[int]]:
        """How many µs are left until the first lease of a namespace runs out, and the ids of those that have."""
        of, generation = Keys(self._prefix, name), self._generation(name)
        while True:
            names = [of.meta, of.deadlines(generation)]
            found, *answers = await self._client.look_by(DUE, names, [generation, LEASES])
            if answers:
                left, due = answers
                return (None if left == b"" else int(left)), [int(id) for id in due]
            generation = int(found)

    async def _wake(self, name: str, at: int) -> None:
        known = await self._client.run(WAKE, [self._key], [name, at])
        if len(self._known) >= KNOWN:
            now = self._time()
            self._known = {one: when for one, when in self._known.items() if when > now}
        self._known[name] = int(float(known))
