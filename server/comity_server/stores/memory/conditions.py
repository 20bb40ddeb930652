"""Judges the conditions of a transaction."""

import operator
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from comity_server.errors import (
    Compacted,
    RevisionInFuture,
)
from comity_server.model import (
    Condition,
    FailedCondition,
    Operator,
    Test,
)
from comity_server.record import (
    KEY,
    MOD_REVISION,
    VERSION,
)
from comity_server.stores.memory.draft import Draft, Found
from comity_server.turns import Pace

_CHUNK: Final = 500  # keys that are looked at in one go

_COMPARE: Final[dict[Operator, Callable[[int | bytes, int | bytes], bool]]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


def failed_conditions(draft: Draft, conditions: Sequence[Condition]) -> Sequence[FailedCondition]:
    """The conditions that do not hold. Those on prefixes were looked at by `find_changes`. Raises Compacted or
    RevisionInFuture where one cannot be judged, TransactionTooCostly."""
    failed = []
    for position, condition in enumerate(conditions):
        found = _check(draft, position, condition)
        if found is not None:
            failed.append(found)
    return failed


def _check(draft: Draft, position: int, condition: Condition) -> FailedCondition | None:
    """None if the condition holds."""
    target, test, operand, compare, is_prefix = condition
    if test is Test.UNCHANGED_SINCE:
        return _check_unchanged(draft, position, target, int(operand), is_prefix)
    head = draft.head(target)
    live = head if head is not None and head[VERSION] else None
    found: int | bytes
    if test is Test.EXISTS:
        found = int(live is not None)
    elif live is not None:
        found = live[test.value]  # type: ignore[assignment]  # the places that tests name hold numbers or bytes
    elif test is Test.VALUE:
        return FailedCondition(position, None, 0)
    else:
        found = 0
    return None if _COMPARE[compare](found, operand) else FailedCondition(position, live, 0)


def _check_unchanged(draft: Draft, position: int, target: str, since: int, is_prefix: bool) -> FailedCondition | None:
    if since < draft.base.floor:
        raise Compacted(since, draft.base.floor, draft.revision)
    if since > draft.revision:
        raise RevisionInFuture(since, draft.base.floor, draft.revision)
    if is_prefix:
        draft.begin_search()
        changed, steps = draft.found[target, since]
        draft.steps += steps
        current = None
    else:
        head = draft.head(target)
        changed = head[MOD_REVISION] if head else 0
        current = head if head and head[VERSION] else None
    return FailedCondition(position, current, changed) if changed > since else None


async def find_changes(draft: Draft, conditions: Sequence[Condition], pace: Pace) -> None:
    """Look through what the conditions on prefixes are about, for `failed_conditions`, and let others in meanwhile. It
    goes no further than a transaction may."""
    draft.found = found = {}
    steps = 0
    for target, test, operand, _, is_prefix in conditions:
        if test is not Test.UNCHANGED_SINCE or not is_prefix or steps > draft.limits.transaction_steps:
            continue
        since = int(operand)
        if draft.base.floor <= since <= draft.revision:
            if (target, since) not in found:
                found[target, since] = await _search(draft, target, since, pace)
            steps += found[target, since].steps


async def _search(draft: Draft, prefix: str, since: int, pace: Pace) -> Found:
    """What changed under a prefix after a revision that is not below the floor: by the shorter of two ways."""
    steps = 0
    for commit in reversed(draft.commits[max(0, since - draft.base.revision) :]):
        steps += len(commit.events)
        await pace.step(len(commit.events))
        if any(event.entry[KEY].startswith(prefix) for event in commit.events):
            return Found(commit.revision, steps)
    versions = draft.base.versions
    known = versions.count_own(prefix)  # what only the base of a fork has changed before
    walked = 0
    if not known:
        return Found(0, steps)
    for some in versions.changed_since_by(min(known + 1, _CHUNK), since):
        for head in some:
            walked += 1
            if head[KEY].startswith(prefix):
                return Found(head[MOD_REVISION], steps + walked)
        await pace.step(len(some))
        if walked > known:
            break
    else:
        return Found(0, steps + walked)
    newest, after = 0, ""
    while keys := list(islice(versions.own_under(prefix, after), _CHUNK)):
        after = keys[-1]
        newest = max(newest, *(found[MOD_REVISION] for key in keys if (found := versions.head(key)) is not None))
        await pace.step(len(keys))
    return Found(newest if newest > since else 0, steps + walked + known)
