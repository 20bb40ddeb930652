"""What a namespace should do, told as naively as can be: one dict of entries for each revision, and all of them kept.

Times are left out: every entry has 0 there.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from comity_server.errors import (
    Compacted,
    NotANumber,
    RequestIdForgotten,
    RequestIdReused,
    RevisionInFuture,
    StateError,
)
from comity_server.model import (
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    Event,
    FailedCondition,
    Get,
    GetResult,
    Increment,
    IncrementResult,
    List,
    ListResult,
    Operation,
    Operator,
    Outcome,
    Put,
    PutResult,
    RequestId,
    Result,
    Test,
    Transaction,
    events_within,
)
from comity_server.record import CREATE_REVISION, KEY, VALUE, VERSION, Record, size, tombstone, without_value

State = dict[str, Record]

COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


class Reference:
    """One namespace. Where a store would answer with an error, it answers with the class of that error."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]  # by revision
        self.log: list[Commit] = []  # the one of revision R is at R - 1
        self.floor = 0
        self.remembered: dict[tuple[str, int], tuple[Transaction, Outcome]] = {}
        self.awaited: dict[str, int] = {}

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def under(self, prefix: str, revision: int) -> list[Record]:
        """The entries under a prefix, in the order of their keys."""
        return _under(self.states[revision], prefix)

    def unreadable(self, revision: int) -> type[StateError] | None:
        """Why a revision cannot be read."""
        if revision > self.revision:
            return RevisionInFuture
        return Compacted if revision < self.floor else None

    def size_bytes(self) -> int:
        return sum(map(size, self.states[-1].values()))

    def commit(self, transaction: Transaction) -> Outcome | type[StateError]:
        request = transaction.request_id
        if request is None:
            return self._apply(transaction)
        self.awaited[request.client] = awaited = max(request.awaited, self.awaited.get(request.client, 0))
        if request.sequence < awaited:
            return RequestIdForgotten
        name = (request.client, request.sequence)
        if name in self.remembered:
            first, outcome = self.remembered[name]
            return outcome if _same(first, transaction) else RequestIdReused
        before = self.revision
        outcome_or_error = self._apply(transaction)
        if self.revision > before and isinstance(outcome_or_error, Outcome):
            self.remembered[name] = (transaction, outcome_or_error)
        return outcome_or_error

    def _apply(self, transaction: Transaction) -> Outcome | type[StateError]:
        for condition in transaction.conditions:
            if condition.test is Test.UNCHANGED_SINCE and (error := self.unreadable(int(condition.operand))):
                return error
        failed = list(self._failed(transaction.conditions))
        after = dict(self.states[-1])
        events: list[Event] = []
        results: list[Result] = []
        for step in transaction.otherwise if failed else transaction.then:
            result = self._run(step, after, events)
            if isinstance(result, type):
                return result
            results.append(result)
        if events:
            self.states.append(after)
            said = transaction.author, transaction.message, transaction.trace_parent
            self.log.append(Commit(self.revision, 0, *said, events))
        return Outcome(not failed, self.revision, results, failed)

    def _failed(self, conditions: Sequence[Condition]) -> Iterator[FailedCondition]:
        for position, condition in enumerate(conditions):
            current = None if condition.is_prefix else self.states[-1].get(condition.target)
            changed = 0
            match condition.test:
                case Test.UNCHANGED_SINCE:
                    changed = self._changed(condition.target, condition.is_prefix)
                    holds = changed <= int(condition.operand)
                case Test.EXISTS:
                    holds = (current is not None) == condition.operand
                case Test.VALUE if current is None:
                    holds = False
                case place:
                    holds = COMPARE[condition.operator](current[place] if current else 0, condition.operand)
            if not holds:
                yield FailedCondition(position, current, changed)

    def _changed(self, target: str, is_prefix: bool) -> int:
        """The newest revision that put or deleted something there."""
        touching = (commit.revision for commit in self.log if events_within(commit, target, is_prefix))
        return max(touching, default=0)

    def _run(self, step: Operation, state: State, events: list[Event]) -> Result | type[StateError]:
        match step:
            case Get(key):
                return GetResult(state.get(key))
            case List(prefix, limit, keys_only):
                found = _under(state, prefix)
                shown = [without_value(record) if keys_only else record for record in found[:limit]]
                return ListResult(shown, more=len(found) > limit)
            case Put():
                old = state.get(step.key)
                new = self._write(state, events, step.key, step.value, step.content_type)
                return PutResult(new[VERSION], old if step.return_previous else None)
            case Increment(key, delta):
                total = _number(state.get(key))
                if total is None or abs(total + delta) >= 2**53:
                    return NotANumber
                new = self._write(state, events, key, str(total + delta).encode(), "application/json")
                return IncrementResult(total + delta, new[VERSION])
            case Delete(key, return_previous):
                gone = [state[key]] if key in state else []
            case DeletePrefix(prefix, return_previous):
                gone = _under(state, prefix)
        for record in gone:
            del state[record[KEY]]
            events.append(Event(tombstone(record[KEY], self.revision + 1, 0), record))
        return DeleteResult(len(gone), gone if return_previous else [])

    def _write(self, state: State, events: list[Event], key: str, value: bytes, content_type: str) -> Record:
        old, revision = state.get(key), self.revision + 1
        version, created = (old[VERSION] + 1, old[CREATE_REVISION]) if old else (1, revision)
        state[key] = (key, value, content_type, version, created, revision, 0, 0)
        events.append(Event(state[key], old))
        return state[key]


def _under(state: State, prefix: str) -> list[Record]:
    return sorted((r for key, r in state.items() if key.startswith(prefix)), key=lambda record: record[KEY].encode())


def _number(record: Record | None) -> int | None:
    """None: it is not one."""
    if record is None:
        return 0
    text = record[VALUE].decode()
    return int(text) if text.removeprefix("-").isdecimal() else None


def _same(one: Transaction, other: Transaction) -> bool:
    nobody = RequestId("", 0)
    return one._replace(request_id=nobody) == other._replace(request_id=nobody)
