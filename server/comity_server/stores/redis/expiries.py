"""Finds the leases that have run out, in all namespaces: also in those that no server has in memory.

A sorted set says when to look into which namespace: not after the first of its leases runs out. Whoever grants one sees
to that; whoever looks says when to look next. Each is looked into by one server at a time, and by another one if that
does not say when next.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

import structlog

from comity_server.errors import StateError
from comity_server.stores.redis import keys
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.failures import Passing, Unreadable
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.script import Script
from comity_server.tasks import end

log = structlog.get_logger(__name__)

DOZE: Final = Script("doze")
DUE: Final = Script("due")
WAKE: Final = Script("wake")
WOKEN: Final = Script("woken")

NAMESPACES: Final = 100  # that are looked into at a time, by one round trip to each node
ROUNDS: Final = 20  # of that, in one look, where little is found
LEASES: Final = 1000  # that are told at a time
LEAST: Final = 50  # of each namespace, where many are looked into at a time
AGAIN: Final = (
    250_000  # µs, after which a namespace is looked into again whose leases are due, or that is not done with
)
UNREADABLE: Final = 10_000_000  # µs, likewise, of one that cannot be read
LOOK_SECONDS: Final = 0.2  # how long looks are waited for; what is found later is told the next time
APART: Final = 500_000  # µs that what servers think of Redis's clock may be apart
SLACK: Final = 10_000  # µs by which a time may seem earlier than it is, since answers take time
NAME: Final = re.compile(r"[^{}]+")  # else the keys of it may lie in several slots
KNOWN: Final = 10_000  # namespaces of which it is remembered when one looks


class _Looked(NamedTuple):
    left: int | None  # µs until the first lease of a namespace runs out; None: it has none
    due: Sequence[int]  # the ids of those that have


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
        self._full: dict[str, int] = {}  # when others look into namespaces of which not all could be told
        self._looks: dict[str, asyncio.Task[Mapping[str, Sequence[int]]]] = {}  # under way, by names of namespaces

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
        looked = (await self._look([name]))[name]
        if not isinstance(looked, _Looked):
            raise looked
        if looked.left is not None:
            await self._wake(name, self._time() + max(0, looked.left))

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
        full, self._full = self._full, {}
        found: dict[str, Sequence[int]] = {}
        for _ in range(ROUNDS):
            try:
                is_last = await self._begin(full)
            except (StateError, Passing):
                if not found:
                    raise
                break
            found.update(await self._seen())
            if is_last or len(found) >= NAMESPACES or self._looks:
                break
            full = {}
        return found

    async def _begin(self, full: Mapping[str, int]) -> bool:
        """Look into some namespaces, and into those of which not all could be told. Returns whether there are no
        others that it is time to look into."""
        now, room = self._time(), max(1, NAMESPACES - len(full))
        members = await self._client.ask("ZRANGEBYSCORE", self._key, "-inf", now, "LIMIT", 0, room)
        again = dict(full)
        if members:
            woken = await self._client.run(WOKEN, [self._key], [now, now + AGAIN, *members])
            again |= await self._named(woken, now + AGAIN)
        metas = [Keys(self._prefix, name).meta for name in again]
        for some in await self._client.by_node(metas) if metas else ():
            names = {name: again[name] for name in (keys.name_of(self._prefix, meta) for meta in some)}
            self._looks |= dict.fromkeys(names, asyncio.get_running_loop().create_task(self._due_of(names)))
        return len(members) < room

    async def _named(self, members: Sequence[bytes], again: int) -> dict[str, int]:
        """The namespaces among what is to be looked into, and when others would. What is none is left alone."""
        names: dict[str, int] = {}
        strange: list[Any] = []
        for member in members:
            try:
                name = member.decode()
            except UnicodeDecodeError:
                name = ""
            if not NAME.fullmatch(name):
                log.debug("what is to be looked into is no namespace", member=member)
                strange += [member, again, again + UNREADABLE]
            elif name not in self._looks:
                names[name] = again
        if strange:
            await self._client.run(DOZE, [self._key], strange)
        return names

    async def _seen(self) -> Mapping[str, Sequence[int]]:
        """What has been found. A node of a Cluster that does not answer keeps nothing from the namespaces of others."""
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=LOOK_SECONDS)
        found: dict[str, Sequence[int]] = {}
        for look in {look for look in self._looks.values() if look.done()}:
            names = [name for name, one in self._looks.items() if one is look]
            for name in names:
                del self._looks[name]
            try:
                found.update(look.result())
            except (StateError, Passing) as error:
                log.debug("leases could not be looked at", namespaces=names, error=str(error))
        return found

    async def close(self) -> None:
        for look in set(self._looks.values()):
            await end(look)

    async def _due_of(self, names: Mapping[str, int]) -> Mapping[str, Sequence[int]]:
        """Those of namespaces, given when others would look. Where there are none, say when there may be."""
        for name in names:
            self._known.pop(name, None)
        found: dict[str, Sequence[int]] = {}
        later: dict[str, int | None] = {}
        limit = max(LEAST, LEASES // len(names))
        for name, looked in (await self._look(list(names), limit)).items():
            if isinstance(looked, Passing):
                log.debug("leases could not be looked at", namespace=name, error=str(looked))
            elif isinstance(looked, Unreadable):
                log.debug("leases cannot be read", namespace=name, error=looked.message)
                later[name] = names[name] + UNREADABLE
            elif looked.due:
                found[name] = looked.due
                if len(looked.due) == limit:
                    self._full[name] = names[name]
            else:
                later[name] = None if looked.left is None else self._time() + looked.left
        if later:
            await self._doze(names, later)
        return found

    async def _doze(self, names: Mapping[str, int], later: Mapping[str, int | None]) -> None:
        """Say when to look into namespaces next: never, if there is nothing to look for."""
        said = [(name, names[name], "" if at is None else at) for name, at in later.items()]
        dozing = await self._client.run(DOZE, [self._key], list(chain.from_iterable(said)))
        # What was granted in between was made known in vain if that was before it was said when to look next.
        for name, looked in (await self._look([member.decode() for member in dozing])).items():
            if not isinstance(looked, _Looked) or looked.left is None:
                continue
            at = later[name]
            if at is None or self._time() + looked.left < at - SLACK:
                await self._wake(name, self._time() + max(0, looked.left))

    async def _look(self, names: Sequence[str], limit: int = 1) -> Mapping[str, "_Looked | Unreadable | Passing"]:
        """What there is of the leases of namespaces, and of each the ids of so many that have run out."""
        looked: dict[str, _Looked | Unreadable | Passing] = {}
        generations = {name: self._generation(name) for name in names}
        while generations:
            asked, generations = generations, {}
            calls: list[tuple[Sequence[str], Sequence[Any]]] = []
            for name, generation in asked.items():
                of = Keys(self._prefix, name)
                calls.append(([of.meta, of.leases(generation), of.deadlines(generation)], [generation, limit]))
            for name, answer in zip(asked, await self._client.look_by_all(DUE, calls), strict=True):
                try:
                    if isinstance(answer, Unreadable | Passing):
                        looked[name] = answer
                    elif len(answer) == 1:
                        generations[name] = int(answer[0])
                    else:
                        _, left, due = answer
                        looked[name] = _Looked(None if left == b"" else int(left), [int(id) for id in due])
                except ValueError:
                    looked[name] = Unreadable("it is not what a server writes")
        return looked

    async def _wake(self, name: str, at: int) -> None:
        known = await self._client.run(WAKE, [self._key], [name, at])
        if len(self._known) >= KNOWN:
            now = self._time()
            self._known = {one: when for one, when in self._known.items() if when > now}
        self._known[name] = int(float(known))
