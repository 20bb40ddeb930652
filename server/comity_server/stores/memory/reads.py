"""The namespaces that a store in memory has, and what is read of them."""

import itertools
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from sortedcontainers import SortedDict

from comity_server.errors import LeaseNotFound, NamespaceNotFound
from comity_server.limits import Limits
from comity_server.model import (
    Checkpoint,
    CommitRange,
    DiffPage,
    LeaseInfo,
    NamespaceInfo,
    Page,
    Position,
    Provenance,
    Read,
    ReadAll,
    Ref,
)
from comity_server.stores.memory import differences
from comity_server.stores.memory.leases import Held
from comity_server.stores.memory.namespace import Namespace
from comity_server.turns import Pace

_NAMES = 100  # of namespaces that are looked at in one go
_NAME_STEPS = 5  # what one takes


class Reads:
    """The half of `stores.protocol.Store` that changes nothing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._limits_of: Callable[[str], Limits] | None = None
        self.epoch = uuid.uuid4().hex
        self.namespaces_by_name: SortedDict[str, Namespace] = SortedDict()
        self.deleted: dict[str, tuple[float, Namespace]] = {}  # empty ones, whose counter and outcomes live on
        self.counters: OrderedDict[str, tuple[int, int]] = OrderedDict()  # revision and time of those deleted before
        self.least_revision = 0  # that a namespace of a name which is not known begins above
        self.ids = itertools.count(1)
        self._clock_ahead = 0  # of the system's monotonic one

    def clock(self) -> int:
        """What leases go by, in µs: it runs evenly, and only while the store is open."""
        return self._clock_ahead + time.monotonic_ns() // 1000

    def set_clock(self, now: int) -> None:
        """Have it go on from a time. The deadlines of leases that are there already do not change."""
        self._clock_ahead += now - self.clock()

    def bound(self, limits: Callable[[str], Limits]) -> None:
        self._limits_of = limits

    def limits_of(self, name: str) -> Limits:
        """What there may be in a namespace as of now."""
        return self.limits if self._limits_of is None else self._limits_of(name)

    def state(self, name: str) -> Namespace:
        """A namespace as this store has it, or the empty one that it would begin as."""
        return self._find(name)

    async def _fresh(self, name: str) -> None:
        """Called before a namespace is read, so that a store which others write to may look what they did."""

    async def get(self, namespace: str, key: str, revision: int = 0) -> Read:
        await self._fresh(namespace)
        return self._find(namespace).get(key, revision)

    async def get_all(self, namespace: str, keys: Sequence[str], revision: int = 0) -> ReadAll:
        await self._fresh(namespace)
        return self._find(namespace).get_all(keys, revision)

    async def list(
        self,
        namespace: str,
        prefix: str,
        *,
        after: str = "",
        limit: int,
        max_bytes: int,
        keys_only: bool = False,
        revision: int = 0,
    ) -> Page:
        await self._fresh(namespace)
        return self._find(namespace).list(prefix, after, limit, max_bytes, keys_only, revision)

    async def commits(
        self, namespace: str, *, first: int, last: int, limit: int, newest_first: bool = False
    ) -> CommitRange:
        await self._fresh(namespace)
        state = self._find(namespace)
        return CommitRange(state.commits(first, last, limit, newest_first), state.revision, state.floor)

    async def position(self, namespace: str) -> Position:
        await self._fresh(namespace)
        return self._find(namespace).position()

    async def provenance(self, namespace: str, revisions: Sequence[int]) -> Mapping[int, Provenance]:
        await self._fresh(namespace)
        state = self._find(namespace)
        found = ((revision, state.provenance(revision)) for revision in revisions)
        return {revision: said for revision, said in found if said is not None}

    async def checkpoint(self, namespace: str, name: str) -> Checkpoint:
        await self._fresh(namespace)
        return self._find(namespace).checkpoint(name)

    async def checkpoints(
        self, namespace: str, labels: Mapping[str, str], *, after: str = "", limit: int
    ) -> Sequence[Checkpoint]:
        await self._fresh(namespace)
        found: list[Checkpoint] = []
        checkpoints = self._existing(namespace).checkpoints
        pace = Pace()
        for name in list(checkpoints.irange(after, inclusive=(not after, True))):
            if len(found) == limit:
                break
            await pace.step()
            checkpoint = checkpoints.get(name)
            if checkpoint is not None and labels.items() <= dict(checkpoint.labels).items():
                found.append(checkpoint)
        return found

    async def lease(self, namespace: str, id: int) -> LeaseInfo:
        await self._fresh(namespace)
        held = self._find(namespace).leases.get(id)
        if held is None:
            raise LeaseNotFound(id, namespace)
        return self._lease_info(held)

    async def leases(self, namespace: str, *, after: int = 0, limit: int) -> Sequence[LeaseInfo]:
        await self._fresh(namespace)
        return [self._lease_info(held) for held in self._existing(namespace).leases.after(after, limit)]

    def _lease_info(self, held: Held) -> LeaseInfo:
        return LeaseInfo(held.lease, max(0, held.deadline - self.clock()), len(held.keys))

    async def ended(self, namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        await self._fresh(namespace)
        leases = self._find(namespace).leases
        return [id for id in lease_ids if leases.get(id) is None]

    async def diff(
        self,
        namespace: str,
        base: Ref,
        target: Ref = None,
        prefix: str = "",
        *,
        after: str = "",
        limit: int,
        max_bytes: int,
        keys_only: bool = False,
    ) -> DiffPage:
        await self._fresh(namespace)
        state = self._existing(namespace)
        return differences.diff(
            state,
            state.resolve(base),
            state.resolve(target),
            prefix,
            after=after,
            limit=limit,
            max_bytes=max_bytes,
            keys_only=keys_only,
        )

    async def namespace(self, name: str) -> NamespaceInfo:
        await self._fresh(name)
        return self._existing(name).info()

    async def namespaces(
        self, prefix: str, *, after: str = "", limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        found: list[NamespaceInfo] = []
        named = self.namespaces_by_name
        pace = Pace()
        while True:
            inclusive = after < prefix or not after
            names = list(itertools.islice(named.irange(max(prefix, after), inclusive=(inclusive, True)), _NAMES))
            for name in names:
                if len(found) == limit or not name.startswith(prefix):
                    return found
                if shown is None or shown(name):
                    found.append(named[name].info())
            if len(names) < _NAMES:
                return found
            after = names[-1]
            await pace.step(_NAME_STEPS * _NAMES)

    def _find(self, name: str) -> Namespace:
        """A namespace, or the empty one that it would begin as."""
        found = self.namespaces_by_name.get(name)
        if found is not None:
            return found
        if name in self.deleted:
            return self.deleted[name][1]
        revision, at = self.counters.get(name, (self.least_revision, 0))
        return Namespace(name, self.limits, self.epoch, id=next(self.ids), revision=revision, time=at)

    def _existing(self, name: str) -> Namespace:
        state = self.namespaces_by_name.get(name)
        if state is None:
            raise NamespaceNotFound(name)
        return state
