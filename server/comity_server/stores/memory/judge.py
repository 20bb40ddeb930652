"""Judges a write as if it were alone: its request id, its conditions, its operations, the quotas.

What comes of it is added to a Draft, which is applied as a whole afterwards; a store that is durable writes it down in
between. Each write sees what those before it in the draft did, and one that fails leaves nothing behind.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from comity_server.errors import RequestIdForgotten, RequestIdReused, StateError
from comity_server.model import (
    Action,
    DropCheckpoint,
    Expire,
    Grant,
    Lease,
    MakeCheckpoint,
    Outcome,
    RequestId,
    Revoke,
    Transaction,
    Write,
)
from comity_server.stores.memory.checkpoints import drop_checkpoint, make_checkpoint
from comity_server.stores.memory.conditions import failed_conditions
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.granting import expire, grant, revoke
from comity_server.stores.memory.operations import Work

A = TypeVar("A", bound=Action)

Quick = Transaction | MakeCheckpoint | DropCheckpoint | Grant | Revoke | Expire
"""What is judged in one go. What else there is may take long, and lets others in between."""


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


async def judge_action(
    draft: Draft, action: A, perform: Callable[[Draft, A], Awaitable[Outcome]]
) -> Outcome | StateError:
    """The same, of an action that may take long, and of a draft that has nothing else in it."""
    request = action.request_id
    try:
        fingerprint = action.fingerprint()
        outcome = _find(draft, request, fingerprint) if request is not None else None
        if outcome is None:
            if action.guard is not None:
                draft.check_guard(action.guard)
            outcome = await perform(draft, action)
            if request is not None and draft.changes:
                draft.name(request, fingerprint, outcome)
    except StateError as error:
        return error
    return outcome


def recall(draft: Draft, write: Write) -> Outcome | StateError | None:
    """The outcome of a write that is a repeat, or why there is none; None: it is a new one."""
    try:
        return _find(draft, write.request_id, write.fingerprint()) if write.request_id is not None else None
    except StateError as error:
        return error


def _find(draft: Draft, request: RequestId, fingerprint: int) -> Outcome | None:
    outcome = draft.base.requests.find(request, fingerprint, draft.now)
    if outcome is not None:
        return outcome
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
        case Revoke():
            return revoke(draft, write)
        case Expire():
            return expire(draft, write)


def _transact(draft: Draft, write: Transaction) -> Outcome:
    draft.steps = 0
    conditions = write.conditions
    failed = failed_conditions(draft, conditions) if conditions else ()
    operations = write.otherwise if failed else write.then
    if not operations:
        return Outcome(not failed, draft.revision, (), failed)
    work = Work(draft)
    results = work.run(operations)
    if work.events:
        work.check_quotas()
        lease = Lease(draft.revision + 1, work.ttl, write.author, draft.time, ends_with_keys=True) if work.ttl else None
        draft.add(write, work.events, keys=work.keys, size_bytes=work.size_bytes, lease=lease)
    return Outcome(not failed, draft.revision, results, failed)
