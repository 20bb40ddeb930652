"""The way of every write to the store: what arrives while a group is being committed makes up the next group.

Each namespace has a lane of its own, so that groups of one follow each other and those of several go side by side. A
group is taken only when the one before it is durable: under load groups grow, and each costs the store once.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from comity_server.errors import Draining, Overloaded, StateError, StoreUnavailable
from comity_server.model import Outcome, Write
from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)

GROUP_TRANSACTIONS: Final = 1000
GROUP_BYTES: Final = 4 * 1024 * 1024
PENDING_BYTES: Final = 256 * 1024 * 1024


class _Waiting:
    """A write whose caller waits."""

    __slots__ = ("answer", "size", "write")

    def __init__(self, write: Write, answer: asyncio.Future[Outcome]) -> None:
        self.write = write
        self.size = write.weight()
        self.answer = answer


class _Lane:
    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.task: asyncio.Task[None] | None = None


class Committer:
    """Groups writes by namespace and hands each group to the store. Use from one event loop.

    Args:
        store: where groups go.
        max_pending: writes that may wait for their group, of all namespaces; one more is Overloaded.
    """

    def __init__(self, store: Store, *, max_pending: int = 10_000) -> None:
        self._store = store
        self._max_pending = max_pending
        self._lanes: dict[str, _Lane] = {}
        self._pending = 0
        self._pending_bytes = 0
        self._draining = False

    async def submit(self, namespace: str, write: Write) -> Outcome:
        """Commit a write, and answer when it is as durable as the store promises.

        One that is cancelled while it waits is never begun; one that is under way is finished.

        Raises:
            StateError: the write failed; it changed nothing.
            Overloaded: too many are waiting; nothing was done.
            Draining: the server shuts down; nothing was done.
            StoreUnavailable: the store failed; what became of the write its request id tells.
        """
        if self._draining:
            raise Draining
        if self._pending >= self._max_pending or self._pending_bytes >= PENDING_BYTES:
            raise Overloaded
        loop = asyncio.get_running_loop()
        waiting = _Waiting(write, loop.create_future())
        lane = self._lanes.get(namespace)
        if lane is None:
            lane = self._lanes[namespace] = _Lane()
        lane.waiting.append(waiting)
        self._pending += 1
        self._pending_bytes += waiting.size
        if lane.task is None:  # begins when the loop has been through all that arrived at the same time
            lane.task = loop.create_task(self._run(namespace, lane))
        return await waiting.answer

    async def drain(self) -> None:
        """Take no more, and return when all that was taken has its answer."""
        self._draining = True
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)

    async def _run(self, namespace: str, lane: _Lane) -> None:
        while lane.waiting:
            group = self._take(lane)
            if group:
                await self._commit(namespace, group)
        del self._lanes[namespace]

    def _take(self, lane: _Lane) -> Sequence[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while lane.waiting and len(group) < GROUP_TRANSACTIONS and size < GROUP_BYTES:
            waiting = lane.waiting.popleft()
            self._pending -= 1
            self._pending_bytes -= waiting.size
            if not waiting.answer.done():  # else its caller is gone
                group.append(waiting)
                size += waiting.size
        return group

    async def _commit(self, namespace: str, group: Sequence[_Waiting]) -> None:
        outcomes: Sequence[Outcome | StateError]
        try:
            outcomes = await self._store.commit(namespace, [waiting.write for waiting in group])
            if len(outcomes) != len(group):
                raise AssertionError(f"{len(outcomes)} outcomes of {len(group)} writes")
        except StateError as error:
            outcomes = [error] * len(group)
        except Exception:  # whatever it is, each caller needs an answer and the lane has to go on
            log.exception("the store failed in an unforeseen way", namespace=namespace, writes=len(group))
            outcomes = [StoreUnavailable("the store failed; the log of the server says why")] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(outcome, StateError):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result(outcome)
