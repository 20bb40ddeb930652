"""Judges a write as if it were alone: its request id, its conditions, its operations, the quotas.

What comes of it is added to a Draft, which is applied as a whole afterwards; a store that is durable writes it down in
between. Each write sees what those before it in the draft did, and one that fails leaves nothing behind.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeGuard, TypeVar

from comity_server.errors import RequestIdForgotten, RequestIdReused, StateError
from comity_server.model import (
    Action,
    DeletePrefix,
    DropCheckpoint,
    Expire,
    FailedCondition,
    Grant,
    Lease,
    List,
    MakeCheckpoint,
    Outcome,
    RequestId,
    Result,
    Revoke,
    Transaction,
    Write,
)
from comity_server.stores.memory.checkpoints import drop_checkpoint, make_checkpoint
from comity_server.stores.memory.conditions import failed_conditions, find_changes
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.granting import expire, grant, revoke
from comity_server.stores.memory.operations import Work
from comity_server.turns import Pace

STEPS: Final = 100  # keys and commits to look through: about as long as an operation takes
_SEARCHES: Final = frozenset({List, DeletePrefix})

W = TypeVar("W", bound=Transaction | Action)

Quick = Transaction | MakeCheckpoint | DropCheckpoint | Grant
"""What is judged in one go, unless it `searches`."""
Paced = Transaction | Revoke | Expire
"""What lets others in between, but is judged in one group with what is quick."""


def judge(draft: Draft, write: Quick) -> Outcome | StateError:
    """How the write ends. What it changes is in the draft then."""
    request = write.request_id
    try:
        if request is None:
            return _apply(draft, write)
        fingerprint = write.fingerprint()
        outcome = _find(draft, request, fingerprint)
        if outcome is None:
            before = draft.changes
            outcome = _apply(draft, write)
            if draft.changes != before:
                draft.name(request, fingerprint, outcome)
    except StateError as error:
        return error
    return outcome


async def judge_paced(
    draft: Draft, write: W, perform: Callable[[Draft, W], Awaitable[Outcome]]
) -> Outcome | StateError:
    """The same, of a write that may take long."""
    request = write.request_id
    try:
        fingerprint = write.fingerprint()
        outcome = _find(draft, request, fingerprint) if request is not None else None
        if outcome is None:
            if write.guard is not None:
                draft.check_guard(write.guard)
            before = draft.changes
            draft.steps = 0
            outcome = await perform(draft, write)
            if request is not None and draft.changes != before:
                draft.name(request, fingerprint, outcome)
            outcome = outcome._replace(searched=draft.steps // STEPS)
    except StateError as error:
        return error
    return outcome


def is_paced(write: Write) -> TypeGuard[Paced]:
    """Whether it may take long, and is no action of its own kind as a restore is."""
    return searches(write) if write.__class__ is Transaction else isinstance(write, Revoke | Expire)


async def perform_paced(draft: Draft, write: Paced, pace: Pace) -> Outcome:
    match write:
        case Transaction():
            return await _transact_paced(draft, write, pace)
        case Revoke():
            return await revoke(draft, write, pace)
        case Expire():
            return await expire(draft, write, pace)


def searches(write: Transaction) -> bool:
    """Whether it may look through many keys or commits."""
    for branch in (write.then, write.otherwise):
        for operation in branch:
            if operation.__class__ in _SEARCHES:
                return True
    return any(condition.is_prefix for condition in write.conditions) if write.conditions else False


def recall(draft: Draft, write: Write) -> Outcome | StateError | None:
    """The outcome of a write that is a repeat, or why there is none; None: it is a new one."""
    try:
        return _find(draft, write.request_id, write.fingerprint()) if write.request_id is not None else None
    except StateError as error:
        return error


def _find(draft: Draft, request: RequestId, fingerprint: int) -> Outcome | None:
    outcome = draft.base.requests.find(request, fingerprint, draft.now)
    if outcome is not None:
        return outcome._replace(epoch=draft.base.epoch)  # which is not kept with it
    named = draft.named.get((request.client, request.sequence))
    if named is None:
        awaited = draft.awaited.get(request.client, 0)
        if request.sequence < awaited:
            raise RequestIdForgotten(request.sequence, awaited)
        return None
    if named.fingerprint != fingerprint:
        raise RequestIdReused(request.sequence)
    return named.outcome


def _apply(draft: Draft, write: Quick) -> Outcome:
    if write.guard is not None:
        draft.check_guard(write.guard)
    match write:
        case Transaction():
            return _transact(draft, write)
        case MakeCheckpoint():
            return make_checkpoint(draft, write)
        case DropCheckpoint():
            return drop_checkpoint(draft, write)
        case Grant():
            return grant(draft, write)


def _transact(draft: Draft, write: Transaction) -> Outcome:
    draft.steps = 0
    conditions = write.conditions
    failed = failed_conditions(draft, conditions) if conditions else ()
    operations = write.otherwise if failed else write.then
    if not operations:
        return Outcome(not failed, draft.revision, (), failed, epoch=draft.base.epoch)
    work = Work(draft, write.lease_owner)
    return _done(draft, write, failed, work, work.run(operations))


async def _transact_paced(draft: Draft, write: Transaction, pace: Pace) -> Outcome:
    """The same, of one that `searches`."""
    await find_changes(draft, write.conditions, pace)
    failed = failed_conditions(draft, write.conditions)
    operations = write.otherwise if failed else write.then
    if not operations:
        return Outcome(not failed, draft.revision, (), failed, epoch=draft.base.epoch)
    work = Work(draft, write.lease_owner)
    results = await work.run_paced(operations, pace)
    return _done(draft, write, failed, work, results)


def _done(
    draft: Draft, write: Transaction, failed: Sequence[FailedCondition], work: Work, results: Sequence[Result]
) -> Outcome:
    if work.events:
        work.check_quotas()
        lease = Lease(draft.time, work.ttl, write.author, draft.time, ends_with_keys=True) if work.ttl else None
        draft.add(write, work.events, keys=work.keys, size_bytes=work.size_bytes, lease=lease)
    return Outcome(not failed, draft.revision, results, failed, epoch=draft.base.epoch)
