"""Workflows: steps whose progress is in the store, so that a run can be killed at any moment, and run again.

@step(retries=2)
async def triage(ctx: StepContext) -> dict[str, Any]:
    return {"urgent": ctx.input["priority"] > 3}

flow = Workflow("report", triage, parallel(data, optimise), when(worth_it, report, otherwise=skip))
results = await flow.run(state, "2026-11", {"priority": 5})  # again: goes on where it was
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import AsyncGenerator
from typing import Any, Final

from comity import codec
from comity.agents.layout import check_name
from comity.agents.presence import Taken, take
from comity.checks import check_client
from comity.cleanup import clean_up
from comity.client import Client
from comity.leases.block import ends_with
from comity.leases.lease import Lease
from comity.model import Resync
from comity.operations import Delete, Key

from .errors import RunDiffers, RunIsHeld, StepFailure, WorkflowFailed
from .plan import Part, Plan
from .records import ROOT, Layout, Progress, failure_record, item_place
from .runner import Runner
from .status import RunStatus, status_of

__all__ = ["Workflow"]

RECORDED: Final[Any] = object()  # said by nobody: None may be an input


class Workflow:
    """A plan of steps under a name. Its runs are kept under `workflows/NAME/RUN/`, in the namespace of the client.

    Holds no state of runs: any number of runs, at once or not, of any clients.
    """

    def __init__(self, name: str, *parts: Part) -> None:
        """name: 1 to 63 of A-Z a-z 0-9 . _ - ; the first a letter or digit. Runs are found again by it.
        parts: what is to be done, one after another: async functions, and what `step`, `sequence`, `parallel`, `when`
        and `each` make.

        Raises TypeError and ValueError for what is no plan, and for names that come twice.
        """
        self.name = check_name("name", name)
        self.plan = Plan(*parts)

    def __repr__(self) -> str:
        return f"<comity.agents.Workflow {self.name!r}: {self.plan}>"

    async def run(
        self,
        state: Client,
        run_id: str,
        input: Any = RECORDED,
        *,
        ttl: float = 10.0,
        wait: float | None = None,
        allow_changed_plan: bool = False,
    ) -> dict[str, Any]:
        """Do what of a run is not done yet, and return the results of its steps by their names. Those that were skipped
        have none.

        Whoever runs it holds it by a lease. If the process is killed, run it again, there or elsewhere, as soon as the
        lease has run out: steps that are done are not done again, the one that was under way is. A run that has failed
        tries again what failed. One that is done returns its results.

        input: any JSON, for `ctx.input`. It is kept with the run, so that it need not be given again; None at first.
        ttl: seconds that the lease lives without being renewed: how long the run is held after its runner was killed,
            and how long its event loop may be blocked.
        wait: up to how many seconds to wait for another runner to let go of the run; None: for as long as it takes; 0:
            not at all.
        allow_changed_plan: go on although the plan has changed since the run was begun. What was done and decided
            stays as it is, by its name.

        Raises WorkflowFailed if steps fail; RunIsHeld; RunDiffers if the run was begun with another plan or input;
        LeaseLost if this runner has lost the run, after which it writes nothing more. What the store answers where it
        cannot be reached (Unavailable, DeadlineExceeded, RateLimited, Unauthenticated) ends the run where it is.
        """
        check_client(state)
        layout = Layout(self.name, run_id)
        given = None if input is RECORDED else codec.to_json(input)
        deadline = _deadline(wait)
        while True:
            progress = await Progress.read(state, layout)
            begun = self._check(progress, given, allow_changed_plan)
            if begun.get("state") == "done" and begun.get("plan") == str(self.plan):
                return self._results(progress)
            if progress.holder is not None:
                await _released(state, progress, deadline)
                continue
            place = {"host": socket.gethostname(), "pid": os.getpid()}
            try:
                lease = await take(state, layout.holder, place, ttl=ttl, wait=0.0, message=f"{layout}: held")
            except Taken:
                continue  # somebody was faster
            async with _ending(lease):
                progress = await Progress.read(state, layout)
                begun = self._check(progress, given, allow_changed_plan)
                record = {
                    "state": "running",
                    "plan": str(self.plan),
                    "input": begun.get("input") if given is None or begun else codec.from_json(given, key=layout.run),
                    "begun": int(begun.get("begun", 0)) + 1,
                }
                await state.put(layout.run, record, guard=lease, message=f"{layout}: begun")
                runner = Runner(state, self.plan, progress, lease, codec.to_json(record["input"]))
                done = await runner.run()
                failures = {name: failure_record(failure) for name, failure in runner.failures.items()}
                ended = {**record, "state": "done"} if done else {**record, "state": "failed", "failures": failures}
                await state.put(layout.run, ended, guard=lease, message=f"{layout}: {ended['state']}")
            results = {
                step.name: codec.from_json(runner.reached[step.name], key=layout.outcomes + step.name)
                for step in self.plan.steps
                if step.name in runner.reached
            }
            if not done:
                text = _said(layout, runner.failures)
                raise WorkflowFailed(
                    text, failures=runner.failures, results=results, metadata=layout.metadata
                ) from runner.cause
            return results

    async def status(self, state: Client, run_id: str) -> RunStatus:
        """How far a run is. Of one that nobody has begun: PENDING."""
        progress = await Progress.read(state, Layout(self.name, run_id))
        return status_of(self.plan, progress)

    async def observe(self, state: Client, run_id: str) -> AsyncGenerator[RunStatus]:
        """How far a run is, now and after each change, until it is done or has failed. It may be begun later."""
        layout = Layout(self.name, run_id)
        progress = Progress(layout)
        async with state.watch(layout.prefix, initial=True) as watch:
            async for change in watch.commits():
                if not progress.apply(change):
                    continue
                await progress.look(state, anew=isinstance(change, Resync))
                status = status_of(self.plan, progress)
                yield status
                if status.ended:
                    return

    async def runs(self, state: Client) -> AsyncGenerator[str]:
        """The ids of all runs that were begun, in their order."""
        prefix = f"{ROOT}{self.name}/"
        async for entry in state.list(prefix, keys_only=True):
            run_id, _, rest = entry.key.removeprefix(prefix).partition("/")
            if rest == "run":
                yield run_id

    async def delete_run(self, state: Client, run_id: str) -> bool:
        """Forget a run, with all that it has under its prefix. Returns whether there was one. Raises RunIsHeld."""
        layout = Layout(self.name, run_id)
        progress = await Progress.read(state, layout)
        if progress.holder is not None:
            raise _held(progress)
        found = progress.entry(layout.holder)
        result = await state.transact(
            conditions=[Key(layout.holder).mod_revision == (0 if found is None else found.mod_revision)],
            then=[Delete(prefix=layout.prefix), Delete(prefix=layout.handoffs)],
            message=f"{layout}: deleted",
        )
        if not result.committed:
            raise _held(await Progress.read(state, layout))
        return result.results[0].deleted > 0  # type: ignore[union-attr]  # of a Delete

    def _check(self, progress: Progress, given: bytes | None, allow_changed_plan: bool) -> dict[str, Any]:
        """The record of the run; empty if nobody has begun it."""
        layout = progress.layout
        begun = progress.record(layout.run)
        if not begun:
            return begun
        if given is not None and codec.from_json(given, key=layout.run) != begun.get("input"):
            raise RunDiffers(
                f"{layout} was begun with another input: leave it out, or take another run_id",
                reason="INPUT_CHANGED",
                metadata=layout.metadata,
            )
        if begun.get("plan") != str(self.plan) and not allow_changed_plan:
            raise RunDiffers(
                f"{layout} was begun with another plan: {begun.get('plan')} then, {self.plan} now."
                " Take another run_id, or allow_changed_plan=True",
                reason="PLAN_CHANGED",
                metadata=layout.metadata,
            )
        return begun

    def _results(self, progress: Progress) -> dict[str, Any]:
        """Those of a run that is done."""
        results: dict[str, Any] = {}
        skipped = progress.skipped()
        for name in (step.name for step in self.plan.steps if step.name not in skipped):
            if name in self.plan.eaches:
                count = len(progress.items(name) or ())
                results[name] = [progress.result(item_place(name, index)) for index in range(count)]
            else:
                results[name] = progress.result(name)
        return results


@contextlib.asynccontextmanager
async def _ending(lease: Lease) -> AsyncGenerator[None]:
    """A block that has a run: cancelled if the lease is lost, which ends with it."""
    try:
        with ends_with(lease):
            yield
    finally:
        await clean_up(lease.revoke())


async def _released(state: Client, progress: Progress, deadline: float) -> None:
    """Return when whoever holds the run does not any more. Raises RunIsHeld once the time is up."""
    layout = progress.layout
    known = [] if progress.holder is None else [progress.holder.mod_revision]
    left = deadline - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(None if left == math.inf else max(0.0, left)):
            async with state.watch(key=layout.holder, initial=True) as watch:
                async for change in watch:
                    if not isinstance(change, Resync) or [entry.mod_revision for entry in change.entries] != known:
                        return
    except TimeoutError:
        raise _held(progress) from None


def _held(progress: Progress) -> RunIsHeld:
    layout = progress.layout
    entry = progress.entry(layout.holder)
    by = {name: str(value) for name, value in progress.record(layout.holder).items()}
    return RunIsHeld(
        f"{layout} is held by a runner (process {by.get('pid')} on {by.get('host')}); if that one was killed, until its"
        " lease has run out",
        reason="RUN_HELD",
        metadata={**by, **layout.metadata, "lease_id": str(0 if entry is None else entry.lease_id)},
    )


def _deadline(wait: float | None) -> float:
    if wait is None:
        return math.inf
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(f"wait must be a number of seconds or None, not {type(wait).__name__}")
    if not wait >= 0:
        raise ValueError(f"wait must not be negative: {wait!r}")
    return asyncio.get_running_loop().time() + wait


def _said(layout: Layout, failures: dict[str, StepFailure]) -> str:
    name, failure = next(iter(failures.items()))
    more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"{layout} has failed: {name}: {failure}{more}"
