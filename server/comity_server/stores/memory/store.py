"""The store in memory: fast, and gone with the process."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Sequence

from sortedcontainers import SortedDict

from comity_server.errors import Conflict, NamespaceNotFound, StateError
from comity_server.limits import Limits, Retention
from comity_server.model import CommitRange, NamespaceInfo, Outcome, Page, Position, Read, Transaction
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.judge import judge
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.protocol import Listener

_JUDGING_SECONDS = 0.005


class MemoryStore:
    """Implements `stores.protocol.Store`. Use from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._epoch = uuid.uuid4().hex
        self._namespaces: SortedDict[str, Namespace] = SortedDict()
        self._deleted: dict[str, Namespace] = {}  # empty ones, whose counter and remembered outcomes live on
        self._deletions: deque[tuple[float, str]] = deque()
        self._counters: dict[str, tuple[int, int]] = {}  # revision and time of those deleted before
        self._listeners: dict[str, Listener] = {}

    async def open(self) -> None:
        """There is nothing to make ready."""

    async def close(self) -> None:
        """There is nothing to finish."""

    def writable(self) -> bool:
        return True

    async def commit(self, namespace: str, group: Sequence[Transaction]) -> Sequence[Outcome | StateError]:
        outcomes: list[Outcome | StateError] = []
        while len(outcomes) < len(group):
            if outcomes:
                await asyncio.sleep(0)  # a group that takes long must not hold up other namespaces
            outcomes += self._commit(namespace, group[len(outcomes) :])
        return outcomes

    def _commit(self, namespace: str, group: Sequence[Transaction]) -> Sequence[Outcome | StateError]:
        """Commit the first transactions of a group: as many as can be judged in a short time."""
        state = self._find(namespace)
        now = time.monotonic()
        draft = Draft(
            state,
            self._limits,
            time=time.time_ns() // 1000,
            now=now,
            may_begin=namespace in self._namespaces or len(self._namespaces) < self._limits.namespaces,
        )
        outcomes: list[Outcome | StateError] = []
        for transaction in group:
            outcomes.append(judge(draft, transaction))
            if time.monotonic() - now > _JUDGING_SECONDS:
                break
        if draft.commits:
            state.apply(draft.commits)
            for request, fingerprint, outcome in draft.named.values():
                state.requests.remember(request, fingerprint, outcome)
            self._namespaces.setdefault(namespace, state)
            self._deleted.pop(namespace, None)
            self._counters.pop(namespace, None)
            listener = self._listeners.get(namespace)
            if listener is not None:
                listener.publish(draft.commits)
        return outcomes

    async def get(self, namespace: str, key: str, revision: int = 0) -> Read:
        return self._find(namespace).get(key, revision)

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
        return self._find(namespace).list(prefix, after, limit, max_bytes, keys_only, revision)

    async def commits(
        self, namespace: str, *, first: int, last: int, limit: int, newest_first: bool = False
    ) -> CommitRange:
        state = self._find(namespace)
        return CommitRange(state.commits(first, last, limit, newest_first), state.revision, state.floor)

    async def position(self, namespace: str) -> Position:
        return self._find(namespace).position()

    async def follow(self, namespace: str, listener: Listener) -> Position:
        self._listeners[namespace] = listener
        return self._find(namespace).position()

    async def unfollow(self, namespace: str) -> None:
        self._listeners.pop(namespace, None)

    async def namespace(self, name: str) -> NamespaceInfo:
        return self._existing(name).info()

    async def namespaces(self, prefix: str, *, after: str = "", limit: int) -> Sequence[NamespaceInfo]:
        found: list[NamespaceInfo] = []
        for name in self._namespaces.irange(max(prefix, after), inclusive=(after < prefix or not after, True)):
            if len(found) == limit or not name.startswith(prefix):
                break
            found.append(self._namespaces[name].info())
        return found

    async def delete_namespace(self, name: str, if_revision: int | None = None) -> None:
        state = self._existing(name)
        if if_revision is not None and if_revision != state.revision:
            raise Conflict(
                f"the newest revision of {name} is {state.revision}, not {if_revision}",
                namespace=name,
                revision=state.revision,
            )
        empty = Namespace(name, self._limits, self._epoch, state.revision + 1, state.time)
        empty.requests = state.requests
        del self._namespaces[name]
        self._deleted[name] = empty
        now = time.monotonic()
        self._sweep_deleted(now)
        self._deletions.append((now, name))
        listener = self._listeners.get(name)
        if listener is not None:
            listener.reset()

    async def compact(self, name: str, revision: int = 0) -> int:
        state = self._existing(name)
        floor = state.raise_floor(revision)
        await asyncio.shield(state.collect())  # what was begun is finished, whoever waits for it
        return floor

    async def retain(self, name: str, retention: Retention) -> int:
        now = time.monotonic()
        self._sweep_deleted(now)
        state = self._existing(name)
        state.requests.sweep(now)
        floor = state.due(retention, time.time_ns() // 1000)
        if floor > state.floor:
            state.raise_floor(floor)
        await state.collect()
        return floor

    def _find(self, name: str) -> Namespace:
        """A namespace, or the empty one that it would begin as."""
        found = self._namespaces.get(name) or self._deleted.get(name)
        return found or Namespace(name, self._limits, self._epoch, *self._counters.get(name, (0, 0)))

    def _existing(self, name: str) -> Namespace:
        state = self._namespaces.get(name)
        if state is None:
            raise NamespaceNotFound(name)
        return state

    def _sweep_deleted(self, now: float) -> None:
        """Of a deleted namespace the outcomes are remembered for the window, as of any other; the counter for good."""
        while self._deletions and self._deletions[0][0] + self._limits.request_window < now:
            _, name = self._deletions.popleft()
            gone = self._deleted.pop(name, None)
            if gone is not None:
                self._counters[name] = (gone.revision, gone.time)
