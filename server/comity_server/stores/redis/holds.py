"""What forks hold of what they share, wherever they are, so that it stays.

A hold is GENERATION.TOKEN:NAME, of the fork. The token is of the attempt to make it, since several may be under way at
a time, and each holds what it is to share.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

import structlog

from comity_server.errors import NamespaceNotFound, StateError
from comity_server.model import Fork, Ref
from comity_server.stores.memory.namespace import Namespace, Parent
from comity_server.stores.redis.codec import Control
from comity_server.stores.redis.failures import Passing, Unreadable
from comity_server.stores.redis.journal import RedisJournal
from comity_server.stores.redis.loading import Meta
from comity_server.stores.redis.replicas import Moved, Replicas

log = structlog.get_logger(__name__)

FORKS: Final = 200  # that are looked up at a time
ORPHAN_SECONDS: Final = 60.0  # how long a fork may take to come into being


def new(generation: int, name: str) -> str:
    """Of an attempt to make a fork."""
    return f"{generation}.{secrets.token_hex(6)}:{name}"


def name(hold: str) -> str:
    """The fork's."""
    return _parse(hold)[0]


class Holds:
    """Takes them and lets go of them. No lock is held by who calls.

    Args:
        lock: of a namespace.
    """

    def __init__(self, replicas: Replicas, journal: RedisJournal, lock: Callable[[str], asyncio.Lock]) -> None:
        self._replicas = replicas
        self._journal = journal
        self._lock = lock
        self._orphans: dict[str, dict[str, float]] = {}  # since when holds seem to be, by what is held

    async def take(self, empty: Namespace, action: Fork) -> Parent:
        """Hold what is to be forked in place of an empty namespace: in Redis, and (as one of its `forks`) in this
        process. Raises NamespaceNotFound, CheckpointNotFound, Compacted, RevisionInFuture."""
        if action.parent == empty.name:  # which does not exist
            raise NamespaceNotFound(empty.name)
        return await self.hold(action.parent, action.ref, new(empty.id, empty.name), here=True)

    async def hold(self, name: str, ref: Ref, hold: str, *, here: bool = False) -> Parent:
        """Keep a revision of a namespace readable for a fork that knows it by a hold; if it will be `here`, as one of
        its `forks` in this process, too. Raises NamespaceNotFound, and as `Namespace.resolve` does."""
        while True:
            try:
                async with self._lock(name):
                    replica = await self._replicas.advance(name)
                    if not replica.meta.exists:
                        raise NamespaceNotFound(name)
                    revision = replica.state.resolve(ref)
                    await self.pin(name, revision, hold)
                    replica.state.forks += here
                    return Parent(replica.state, revision, hold)
            except Moved:
                continue

    async def pin(self, name: str, revision: int, hold: str) -> None:
        """Keep a revision that can be read for a fork. The lock of the namespace is held. Raises Moved."""
        totals = self._replicas.find(name).state.totals(revision)
        await self._journal.control(name, Control("pin", revision, hold, *totals))

    async def take_again(self, name: str) -> None:
        """Keep what Redis has lost that forks hold, as far as it can be read and they are there. The lock of the
        namespace is held. Raises Moved."""
        replica = self._replicas.find(name)
        for hold, held in list(replica.missing.items()):
            state = replica.state
            if hold not in state.heirs and state.can_read(held.revision) and await self.is_alive(hold):
                await self.pin(name, held.revision, hold)
            del replica.missing[hold]

    async def let_go(self, parent: Parent) -> None:
        """In Redis. What cannot be now `let_go_of_orphans` sees to."""
        of: Parent | None = parent
        while of is not None:
            try:
                async with self._lock(of.namespace.name):
                    ended = await self._journal.let_go(of)
            except Moved:
                continue
            except (StateError, Passing) as error:
                log.warning("a fork could not let go of its parent yet", hold=of.hold, error=str(error))
                return
            of = of.namespace.parent if ended else None

    async def let_go_of_orphans(self, state: Namespace) -> None:
        """Let go of what is held for forks that never came into being, or are gone."""
        now = time.monotonic()
        known = self._orphans.get(state.name, {})
        orphans: dict[str, float] = {}
        holds = list(state.heirs.items())
        for some in (holds[start : start + FORKS] for start in range(0, len(holds), FORKS)):
            metas = await self._replicas.metas([name(hold) for hold, _ in some])
            for (hold, held), meta in zip(some, metas, strict=True):
                if isinstance(meta, Unreadable):  # nobody can tell
                    continue
                if _began(hold, meta) or await self.is_alive(hold):
                    continue
                if now - known.get(hold, now) <= ORPHAN_SECONDS:
                    orphans[hold] = known.get(hold, now)
                    continue
                # It may only seem so, where its server stood still: what is held counts until it cannot begin any more.
                await self._journal.outdate(*_parse(hold))
                await self._bury(hold)
                await self.let_go(Parent(state, held.revision, hold))
        self._orphans.pop(state.name, None)
        if orphans:
            self._orphans[state.name] = orphans

    async def is_alive(self, hold: str) -> bool:
        """Whether a fork has come into being, or is being copied here, and is there still, or is deleted and shared by
        forks of its own."""
        fork, generation = _parse(hold)
        meta = await self._replicas.meta(fork)
        if meta.generation == generation:
            return _began(hold, meta) or await self._replicas.coming_hold(fork) == hold
        if (await self._replicas.buried(fork, generation)).hold != hold:
            return False
        for heir in await self._journal.heirs(fork, generation):
            if await self.is_alive(heir):
                return True
        return False

    async def _bury(self, hold: str) -> None:
        """Free what a deleted fork that is not alive kept for forks of its own."""
        fork, generation = _parse(hold)
        if (await self._replicas.buried(fork, generation)).hold == hold:
            await self._journal.disinherit(fork, generation, await self._journal.heirs(fork, generation))


def _began(hold: str, meta: Meta) -> bool:
    """Whether a fork stands where its name does."""
    return meta.exists and meta.hold == hold


def _parse(hold: str) -> tuple[str, int]:
    prefix, _, fork = hold.partition(":")
    return fork, int(prefix.partition(".")[0])
