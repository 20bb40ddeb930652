"""How far a run of a workflow is."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comity.model import Entry

from .errors import StepFailure
from .plan import Plan
from .records import Progress, item_place

__all__ = ["RunState", "RunStatus", "StepState", "StepStatus", "status_of"]


class StepState(enum.StrEnum):
    """How far a step is."""

    PENDING = "pending"  # not begun; or begun by a runner that is gone
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # its last attempt; it may be tried again
    SKIPPED = "skipped"  # it is on the way that was not taken


class RunState(enum.StrEnum):
    """How far a run is."""

    PENDING = "pending"  # nobody has begun it
    RUNNING = "running"  # a runner has it
    INTERRUPTED = "interrupted"  # no runner has it, and it has not ended: run it again
    DONE = "done"
    FAILED = "failed"  # run it again to try again what failed


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How far a step is, or an item of an `each`."""

    name: str
    state: StepState
    attempts: int  # that were begun
    result: Any  # of one that is done; None of others, and of an `each`, whose items have theirs
    error: StepFailure | None  # of the last attempt that failed, if none has succeeded since
    started_revision: int  # of the last attempt; 0: none was begun
    started: datetime.datetime | None  # the last attempt, UTC, by the clock of the store
    ended_revision: int  # of the last attempt; 0: none has ended, or another one was begun since
    ended: datetime.datetime | None
    items: tuple[StepStatus, ...] = ()  # of an `each`


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is."""

    workflow: str
    run_id: str
    state: RunState
    revision: int  # that it shows
    input: Any
    holder: Mapping[str, Any] | None  # who has it: `host`, `pid`, `lease_id`; None: nobody
    failures: Mapping[str, StepFailure]  # of a run that has failed
    steps: Mapping[str, StepStatus]  # of all steps of the plan, in its order

    @property
    def ended(self) -> bool:
        """Whether the run is done or has failed."""
        return self.state in (RunState.DONE, RunState.FAILED)


def status_of(plan: Plan, progress: Progress) -> RunStatus:
    """The status by what is known."""
    layout = progress.layout
    run = progress.record(layout.run)
    held = progress.holder
    skipped = progress.skipped()
    steps = {
        step.name: (_each if step.name in plan.eaches else _step)(progress, step.name, held, step.name in skipped)
        for step in plan.steps
    }
    ended = run.get("state") in ("done", "failed")
    if not run:
        state = RunState.PENDING
    elif ended:
        state = RunState(run["state"])
    else:
        state = RunState.RUNNING if held else RunState.INTERRUPTED
    holder = None if held is None else {**progress.record(layout.holder), "lease_id": held.lease_id}
    failures = {str(name): _failure(error) for name, error in run.get("failures", {}).items()}
    return RunStatus(
        layout.workflow, layout.run_id, state, progress.revision, run.get("input"), holder, failures, steps
    )


def _step(progress: Progress, place: str, held: Entry | None, skipped: bool) -> StepStatus:
    layout = progress.layout
    begun = progress.entry(layout.attempts + place)
    settled = progress.entry(layout.outcomes + place)
    outcome = progress.record(layout.outcomes + place)
    attempts = progress.count(place)
    started_revision, started = (0, None) if begun is None else (begun.mod_revision, begun.update_time)
    if settled is not None and settled.mod_revision < started_revision:
        settled = None  # of an attempt before
    ended_revision, ended = (0, None) if settled is None else (settled.mod_revision, settled.update_time)
    if settled is not None:
        state = StepState.DONE if progress.is_done(place) else StepState.FAILED
    elif skipped:
        state = StepState.SKIPPED
    elif held is not None and progress.record(layout.attempts + place).get("fence") == held.lease_id:
        state = StepState.RUNNING
    else:
        state = StepState.PENDING
    error = _failure(outcome["error"]) if outcome.get("state") == "failed" else None
    result = outcome.get("result")
    return StepStatus(place, state, attempts, result, error, started_revision, started, ended_revision, ended)


def _each(progress: Progress, name: str, held: Entry | None, skipped: bool) -> StepStatus:
    known = progress.items(name)
    items = tuple(
        _step(progress, item_place(name, index), held, skipped) for index in range(0 if known is None else len(known))
    )
    states = {item.state for item in items}
    if skipped:
        state = StepState.SKIPPED
    elif known is not None and states <= {StepState.DONE}:
        state = StepState.DONE
    elif StepState.RUNNING in states or (held is not None and StepState.PENDING in states and len(states) > 1):
        state = StepState.RUNNING
    elif StepState.FAILED in states:
        state = StepState.FAILED
    else:
        state = StepState.PENDING
    last = max((item for item in items if item.error), key=lambda item: item.ended_revision, default=None)
    begun = min((item for item in items if item.started), key=lambda item: item.started_revision, default=None)
    ended = max(items, key=lambda item: item.ended_revision, default=None) if state is StepState.DONE else None
    return StepStatus(
        name,
        state,
        sum(item.attempts for item in items),
        None,
        None if last is None else last.error,
        0 if begun is None else begun.started_revision,
        None if begun is None else begun.started,
        0 if ended is None else ended.ended_revision,
        None if ended is None else ended.ended,
        items,
    )


def _failure(record: Any) -> StepFailure:
    return StepFailure(str(record.get("type", "")), str(record.get("message", "")))
