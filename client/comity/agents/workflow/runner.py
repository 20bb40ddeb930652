"""Does what a plan says, once for each run: what is done already is not done again."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from comity import codec
from comity.agents.awaited import Awaited
from comity.client import Client
from comity.errors import (
    ComityError,
    DeadlineExceeded,
    Internal,
    LeaseLost,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from comity.retry import Backoff
from comity.tasks import is_task_cancelled
from comity.transaction import Transaction

from .context import Results, RunContext, StepContext
from .errors import StepFailure
from .plan import Each, Node, OnFailure, Parallel, Plan, Serial, Step, When, steps_of
from .records import Layout, Progress, failure_of, failure_record, item_place

if TYPE_CHECKING:
    from comity.leases.lease import Lease

__all__ = ["Runner"]

LONGEST_BACKOFF = 60.0

# After these nobody knows what the store has, or nothing more can be written: the run ends where it is.
ABANDONED = (LeaseLost, Unavailable, DeadlineExceeded, RateLimited, Unauthenticated, Internal)

Scope = dict[str, bytes]  # the results that a step sees, as JSON
Branch = Callable[[], Coroutine[Any, Any, bool]]


class Runner:
    """One go at a run, under one lease. Each part of the plan answers whether it is done; if not, `failures` says why.

    Every write is guarded by the lease. Raises LeaseLost, and what the store answers where it cannot be reached.
    """

    def __init__(self, client: Client, plan: Plan, progress: Progress, lease: Lease, given: bytes) -> None:
        self._client = client
        self._awaited = Awaited(client, progress.layout.handoffs)
        self._plan = plan
        self._progress = progress
        self._layout: Layout = progress.layout
        self._lease = lease
        self._given = given
        self.failures: dict[str, StepFailure] = {}
        self.cause: BaseException | None = None  # of the first that failed
        self.reached: Scope = {}

    async def run(self) -> bool:
        """Whether the whole plan is done."""
        return await self._do(self._plan.root, {})

    async def _do(self, node: Node, scope: Scope) -> bool:
        match node:
            case Step():
                data = await self._settle(node, node.name, node.name, scope)
                return data is not None and self._reach(node.name, data, scope)
            case Serial(nodes):
                for each in nodes:
                    if not await self._do(each, scope):
                        return False
                return True
            case Parallel(nodes, on_failure):
                return await self._parallel(nodes, on_failure, scope)
            case When():
                return await self._when(node, scope)
            case Each():
                return await self._each(node, scope)

    async def _parallel(self, nodes: Sequence[Node], on_failure: OnFailure, scope: Scope) -> bool:
        scopes = [dict(scope) for _ in nodes]

        def branch(node: Node, own: Scope) -> Branch:
            return lambda: self._do(node, own)

        done = await _together(list(map(branch, nodes, scopes)), on_failure)
        for own in scopes:
            scope.update(own)
        return done

    async def _when(self, node: When, scope: Scope) -> bool:
        taken = self._progress.taken(node.name)
        if taken is None:
            try:
                taken = bool(await _asked(node.condition, self._context(scope)))
            except Exception as error:  # noqa: BLE001 - whatever the program's own function raises fails the run
                return self._fail(node.name, error)
            left = node.otherwise if taken else node.then
            skipped = [] if left is None else [step.name for step in steps_of(left)]
            await self._put(
                self._layout.decisions + node.name,
                {"taken": taken, "skipped": skipped},
                f"{node.name}: {'yes' if taken else 'no'}",
            )
        way = node.then if taken else node.otherwise
        return way is None or await self._do(way, scope)

    async def _each(self, node: Each, scope: Scope) -> bool:
        items = self._progress.items(node.name)
        if items is None:
            try:
                listed = await _asked(node.over, self._context(scope))
                items = codec.from_json(codec.to_json(_items(listed)), key=self._layout.items + node.name)
                await self._put(self._layout.items + node.name, {"items": items}, f"{node.name}: {len(items)} items")
            except ABANDONED:
                raise
            except Exception as error:  # noqa: BLE001 - as of a condition
                return self._fail(node.name, error)
        results: list[bytes | None] = [None] * len(items)
        room = asyncio.Semaphore(node.concurrency or len(items) or 1)

        def branch(index: int, item: Any) -> Branch:
            async def settle() -> bool:
                async with room:
                    name, place = f"{node.name}[{index}]", item_place(node.name, index)
                    results[index] = await self._settle(node.step, name, place, scope, item, index)
                return results[index] is not None

            return settle

        done = await _together([branch(index, item) for index, item in enumerate(items)], node.on_failure)
        if not done:
            return False
        return self._reach(node.name, b"[%s]" % b",".join(filter(None, results)), scope)

    def _reach(self, name: str, data: bytes, scope: Scope) -> bool:
        scope[name] = self.reached[name] = data
        return True

    def _fail(self, name: str, error: BaseException, failure: StepFailure | None = None) -> bool:
        self.failures[name] = failure or failure_of(error)
        self.cause = self.cause or error
        return False

    # A step

    async def _settle(
        self, step: Step, name: str, place: str, scope: Scope, item: Any = None, index: int | None = None
    ) -> bytes | None:
        """The result of a step as JSON; None if it has failed for good."""
        if self._progress.is_done(place):
            return codec.to_json(self._progress.result(place))
        backoff = Backoff(first=step.backoff, most=max(step.backoff, LONGEST_BACKOFF))
        attempt = self._progress.count(place)
        for left in range(step.retries, -1, -1):
            attempt += 1
            await self._put(
                self._layout.attempts + place,
                {"attempt": attempt, "fence": self._lease.fence},
                f"{name}: attempt {attempt}",
            )
            context = StepContext(
                self._client,
                self._layout,
                self._given,
                Results(dict(scope)),
                step=step.name,
                attempt=attempt,
                lease=self._lease,
                awaited=self._awaited,
                item=item,
                index=index,
            )
            failure: StepFailure | None = None
            clock = asyncio.timeout(step.timeout)
            try:
                async with clock:
                    result = await step.function(context)
                return await self._finish(context, name, place, result)
            except asyncio.CancelledError as cancelled:
                if is_task_cancelled():
                    raise
                error: BaseException = cancelled  # something that the step has waited for
            except _Abandoned as abandoned:
                raise abandoned.error from abandoned.error.__cause__
            except Exception as raised:  # noqa: BLE001 - whatever a step raises is its failure
                error = raised
                if clock.expired() and isinstance(raised, TimeoutError):
                    failure = StepFailure("TimeoutError", f"took longer than {step.timeout:g} s")
            finally:
                context._end()
            failure = failure or failure_of(error)
            await self._put(
                self._layout.outcomes + place,
                {"state": "failed", "attempts": attempt, "error": failure_record(failure)},
                f"{name}: attempt {attempt} failed",
            )
            if left:
                await asyncio.sleep(backoff.delay(math.inf) or 0.0)
        self._fail(name, error, failure)
        return None

    async def _finish(self, context: StepContext, name: str, place: str, result: object) -> bytes:
        """Have the store know the result, with all that the step wants to be written."""
        data = _json(result)
        effects = context._end()
        outcome = {
            "state": "done",
            "attempts": context.attempt,
            "result": codec.from_json(data, key=self._layout.outcomes + place),
        }

        async def settle(tx: Transaction) -> None:
            for effect in effects:
                written = effect(tx)
                if inspect.isawaitable(written):
                    await written
            tx.put(self._layout.outcomes + place, outcome)

        try:
            await self._client.transact(settle, guard=self._lease, message=f"{self._layout}: {name} done")
        except ABANDONED as error:
            raise _Abandoned(error) from error
        except ComityError as error:
            error.add_note(f"the result ({len(data):,} bytes of JSON), or what the step writes with it, was refused")
            raise
        return data

    def _context(self, scope: Scope) -> RunContext:
        return RunContext(self._client, self._layout, self._given, Results(dict(scope)))

    async def _put(self, key: str, record: dict[str, Any], message: str) -> None:
        await self._client.put(key, record, guard=self._lease, message=f"{self._layout}: {message}")


class _Abandoned(Exception):
    """The store could not be written to: no failure of the step."""

    def __init__(self, error: ComityError) -> None:
        super().__init__(error)
        self.error = error


async def _together(branches: Sequence[Branch], on_failure: OnFailure) -> bool:
    """Do all side by side, and tell whether all are done."""
    failed = False
    tasks: list[asyncio.Task[None]] = []

    async def do(branch: Branch) -> None:
        nonlocal failed
        if failed and on_failure == "cancel":
            return
        if not await branch():
            failed = True
            if on_failure == "cancel":
                for task in tasks:
                    if task is not asyncio.current_task():
                        task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend([group.create_task(do(branch)) for branch in branches])
    except BaseExceptionGroup as several:
        error: BaseException = several
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
    return not failed


async def _asked(function: Callable[[RunContext], Any], context: RunContext) -> Any:
    answer = function(context)
    return await answer if inspect.isawaitable(answer) else answer


def _items(listed: object) -> list[Any]:
    if isinstance(listed, (str, bytes, dict)) or not hasattr(listed, "__iter__"):
        raise TypeError(f"over must say a list, not {type(listed).__name__}")
    return list(listed)


def _json(result: object) -> bytes:
    try:
        return codec.to_json(result)
    except TypeError as error:
        raise TypeError(f"the result cannot be kept: {error}") from error
    except ValueError as error:
        raise ValueError(f"the result cannot be kept: {error}") from error
