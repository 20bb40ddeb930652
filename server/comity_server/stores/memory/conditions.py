"""Judges the conditions of a transaction."""

import operator
from collections.abc import Callable, Sequence
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
from comity_server.stores.memory.draft import Draft

_COMPARE: Final[dict[Operator, Callable[[int | bytes, int | bytes], bool]]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


def failed_conditions(draft: Draft, conditions: Sequence[Condition]) -> Sequence[FailedCondition]:
    """The conditions that do not hold. Raises Compacted or RevisionInFuture where one cannot be judged."""
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
        changed, current = _changed_under(draft, target, since), None
    else:
        head = draft.head(target)
        changed = head[MOD_REVISION] if head else 0
        current = head if head and head[VERSION] else None
    return FailedCondition(position, current, changed) if changed > since else None


def _changed_under(draft: Draft, prefix: str, since: int) -> int:
    """The newest revision after `since` that changed something under a prefix, or 0: by the shorter of two ways."""
    draft.begin_search()
    for commit in reversed(draft.commits[max(0, since - draft.base.revision) :]):
        draft.steps += len(commit.events)
        if any(event.entry[KEY].startswith(prefix) for event in commit.events):
            return commit.revision
    versions = draft.base.versions
    known = versions.count_known(prefix)
    for looked_at, head in enumerate(versions.changed_since(since)):
        if looked_at > known:
            break
        draft.steps += 1
        if head[KEY].startswith(prefix):
            return head[MOD_REVISION]
    else:
        return 0
    draft.steps += known
    newest = max((head[MOD_REVISION] for head in map(versions.head, versions.known_keys(prefix)) if head), default=0)
    return newest if newest > since else 0
