"""The way of every write to the store: what arrives while a group is being committed makes up the next group.

Each namespace has a lane of its own, so that groups of one follow each other and those of several go side by side. A
group is taken only when the one before it is durable: under load groups grow, and each costs the store once.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from comity_server.errors import DeadlinePassed, Draining, Overloaded, StateError, StoreUnavailable
from comity_server.model import Outcome, Write
from comity_server.stores.protocol import Store
from comity_server.tasks import is_cancelled
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import CURRENT

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from comity_server.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

GROUP_TRANSACTIONS: Final = 1000
GROUP_BYTES: Final = 4 * 1024 * 1024
GROUP_PARTS: Final = 10_000  # conditions and operations of its transactions
PENDING_BYTES: Final = 256 * 1024 * 1024

Answer = asyncio.Future[Sequence[Outcome | StateError]]


class _Waiting:
    """Writes that stay together, since one caller waits for all of them."""

    __slots__ = ("answer", "deadline", "parts", "size", "span", "timer", "writes")

    def __init__(self, writes: Sequence[Write], size: int, parts: int, answer: Answer) -> None:
        self.writes = writes
        self.size = size
        self.parts = parts
        self.answer = answer
        self.deadline = 0.0
        self.span: Any = None  # of the call, if it is traced
        self.timer: asyncio.TimerHandle | None = None  # if there is a deadline

    def expire(self) -> None:
        """The time was up before they were taken."""
        if not self.answer.done():
            self.answer.set_result([DeadlinePassed()] * len(self.writes))


class _Lane:
    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.task: asyncio.Task[None] | None = None


class Committer:
    """Groups writes by namespace and hands each group to the store. Use from one event loop.

    Args:
        store: where groups go.
        tally: where groups and their ends are counted.
        max_pending: writes that may wait for their group, of all namespaces; one more is Overloaded.
        tracing: makes the spans of groups; None: they have none.
    """

    def __init__(
        self, store: Store, tally: Tally, *, max_pending: int = 10_000, tracing: "Tracing | None" = None
    ) -> None:
        self._store = store
        self._tracing = tracing
        self._context = contextvars.copy_context()  # in which lanes run, which are of no call
        self._tally = tally
        self._max_pending = max_pending
        self._lanes: dict[str, _Lane] = {}
        self._pending = 0
        self._pending_bytes = 0
        self._hopeful: dict[asyncio.Future[None], None] = {}  # who waits for room
        self._draining = False

    @property
    def pending(self) -> int:
        """Writes that wait for their group."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        """About how much memory these take."""
        return self._pending_bytes

    async def submit(self, namespace: str, write: Write, *, deadline: float | None = None) -> Outcome:
        """Commit a write, and answer when it is as durable as the store promises.

        One that is cancelled while it waits is never begun; one that is under way is finished.

        Args:
            deadline: the time of the loop by which it has to be begun, for a caller that waits no longer.

        Raises:
            StateError: the write failed; it changed nothing.
            DeadlinePassed: it was not begun in time; nothing was done.
            Overloaded: too many are waiting; nothing was done.
            Draining: the server shuts down; nothing was done.
            StoreUnavailable: the store failed; what became of the write its request id tells.
        """
        if self._is_full():
            raise Draining if self._draining else Overloaded
        timeout = None if deadline is None else deadline - asyncio.get_running_loop().time()
        [outcome] = await self.submit_all(namespace, (write,), write.weight(), write.parts(), timeout=timeout)
        if isinstance(outcome, StateError):
            raise outcome
        return outcome

    def submit_all(
        self,
        namespace: str,
        writes: Sequence[Write],
        size: int,
        parts: int = 0,
        *,
        timeout: float | None = None,
        ahead: bool = False,
    ) -> Answer:
        """Commit writes, each as if alone, in their order and next to each other. Come here as soon as there is `room`.

        If the future is cancelled before they are begun they never are.

        Args:
            size: about how much memory they take, in bytes.
            parts: conditions and operations inside of those that have several.
            timeout: seconds within which they have to be begun; else each is answered with DeadlinePassed.
            ahead: they are not the next but the first to be begun.

        Returns:
            A future of an outcome or an error for each; see `submit` for which.

        Raises:
            Draining: the server shuts down; nothing was done.
        """
        if self._draining:
            raise Draining
        loop = asyncio.get_running_loop()
        waiting = _Waiting(writes, size, parts, loop.create_future())
        if self._tracing is not None and (trail := CURRENT.get()) is not None:
            waiting.span = trail.span
        if timeout is not None:
            waiting.deadline = loop.time() + timeout
            waiting.timer = loop.call_later(timeout, waiting.expire)
        lane = self._lanes.get(namespace)
        if lane is None:
            lane = self._lanes[namespace] = _Lane()
        if ahead:
            lane.waiting.appendleft(waiting)
        else:
            lane.waiting.append(waiting)
        self._pending += len(writes)
        self._pending_bytes += size
        if lane.task is None:  # begins when the loop has been through all that arrived at the same time
            lane.task = loop.create_task(self._run(namespace, lane), context=self._context)
        return waiting.answer

    async def room(self) -> None:
        """Return when more may wait. Raises Draining.

        Who waits here leaves half of the room to those who would be refused: else they would never find any.
        """
        while self._is_full(2):
            if self._draining:
                raise Draining
            turn = asyncio.get_running_loop().create_future()
            self._hopeful[turn] = None
            try:
                await turn
            finally:
                self._hopeful.pop(turn, None)

    def _is_full(self, part: int = 1) -> bool:
        """Whether as much waits as may in all, or in such a part of it."""
        return (
            self._draining or self._pending * part >= self._max_pending or self._pending_bytes * part >= PENDING_BYTES
        )

    async def drain(self) -> None:
        """Take no more, and return when all that was taken has its answer."""
        self._draining = True
        self._make_room()
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)

    async def _run(self, namespace: str, lane: _Lane) -> None:
        while lane.waiting:
            group = self._take(lane)
            if group:
                await self._commit(namespace, group)
            if lane.waiting:
                await asyncio.sleep(0)  # not every store leaves the loop to others
        del self._lanes[namespace]

    def _take(self, lane: _Lane) -> Sequence[_Waiting]:
        group: list[_Waiting] = []
        count = size = parts = 0
        now = asyncio.get_running_loop().time()
        while lane.waiting and count < GROUP_TRANSACTIONS and size < GROUP_BYTES:
            waiting = lane.waiting[0]
            if group and parts + waiting.parts > GROUP_PARTS:  # each takes time that others of the loop do not have
                break
            lane.waiting.popleft()
            self._pending -= len(waiting.writes)
            self._pending_bytes -= waiting.size
            if waiting.timer is not None:
                waiting.timer.cancel()
                if waiting.deadline <= now:  # the loop was too busy to say so
                    waiting.expire()
            if not waiting.answer.done():  # else its caller is gone, or its time was up
                group.append(waiting)
                count += len(waiting.writes)
                size += waiting.size
                parts += waiting.parts
        self._make_room()
        return group

    def _make_room(self) -> None:
        if self._hopeful and (self._draining or not self._is_full(2)):
            hopeful, self._hopeful = self._hopeful, {}
            for turn in hopeful:
                if not turn.done():
                    turn.set_result(None)

    async def _commit(self, namespace: str, group: Sequence[_Waiting]) -> None:
        writes = group[0].writes if len(group) == 1 else [write for waiting in group for write in waiting.writes]
        outcomes: Sequence[Outcome | StateError]
        span = self._span(namespace, group, writes) if self._tracing is not None else None
        begun = time.perf_counter()
        try:
            outcomes = await self._store.commit(namespace, writes)
            if len(outcomes) != len(writes):
                raise AssertionError(f"{len(outcomes)} outcomes of {len(writes)} writes")
        except StateError as error:
            outcomes = [error] * len(writes)
        except (Exception, asyncio.CancelledError) as error:
            # Whatever it is, each caller needs an answer and the lane has to go on.
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            log.exception("the store failed in an unforeseen way", namespace=namespace, writes=len(writes))
            outcomes = [StoreUnavailable("the store failed; the log of the server says why")] * len(writes)
        finally:
            if span is not None:
                span.end()
        self._count(namespace, outcomes, time.perf_counter() - begun)
        end = 0
        for waiting in group:
            start, end = end, end + len(waiting.writes)
            if not waiting.answer.done():
                waiting.answer.set_result(outcomes[start:end])

    def _span(self, namespace: str, group: Sequence[_Waiting], writes: Sequence[Write]) -> "Span | None":
        assert self._tracing is not None
        calls = list({id(waiting.span): waiting.span for waiting in group if waiting.span is not None}.values())
        parents = dict.fromkeys(write.trace_parent for write in writes if write.trace_parent)
        return self._tracing.commit(namespace, len(writes), calls, parents)

    def _count(self, namespace: str, outcomes: Sequence[Outcome | StateError], seconds: float) -> None:
        committed = [outcome[0] for outcome in outcomes if outcome.__class__ is Outcome]
        commits = sum(committed)
        self._tally.wrote(namespace, len(outcomes), seconds, commits, len(committed) - commits)
