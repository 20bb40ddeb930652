"""What namespaces should do, told as naively as can be: one dict of entries for each revision, and all of them kept.

Times are left out: every entry has 0 there.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from comity_server.errors import (
    CheckpointExists,
    CheckpointNotFound,
    Compacted,
    Conflict,
    InvalidRequest,
    LeaseLost,
    LeaseNotFound,
    NamespaceExists,
    NamespaceNotFound,
    NotAFork,
    NotANumber,
    RequestIdForgotten,
    RequestIdReused,
    RevisionInFuture,
    StateError,
)
from comity_server.model import (
    Action,
    Cause,
    Checkpoint,
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    Difference,
    DropCheckpoint,
    Event,
    Expire,
    FailedCondition,
    Fork,
    Get,
    GetResult,
    Grant,
    Increment,
    IncrementResult,
    Lease,
    List,
    ListResult,
    MakeCheckpoint,
    Merge,
    MergeConflict,
    MergeResult,
    NamespaceInfo,
    Operation,
    Operator,
    Outcome,
    Put,
    PutResult,
    Ref,
    RequestId,
    Restore,
    RestoreResult,
    Result,
    Revoke,
    Strategy,
    Test,
    Transaction,
    Write,
    events_within,
)
from comity_server.record import (
    CONTENT_TYPE,
    CREATE_REVISION,
    KEY,
    LEASE_ID,
    VALUE,
    VERSION,
    Record,
    same_content,
    size,
    tombstone,
    without_value,
)

State = dict[str, Record]

COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


BRIEF = 1_000  # µs: leases that live so long have run out whenever they are to expire, and no others have


class Reference:
    """One namespace. Where a store would answer with an error, it answers with the class of that error.

    Args:
        family: the namespaces that there are.
        name: its own.
        begin: the revision before its first.
        before: what had this name earlier.
        parent: what it is a fork of, and at which revision.
    """

    def __init__(
        self,
        family: "dict[str, Reference]",
        name: str,
        begin: int = 0,
        before: "Reference | None" = None,
        parent: "tuple[Reference, int] | None" = None,
    ) -> None:
        self.family = family
        self.name = name
        self.begin = begin
        self.parent = parent
        self.forks: list[Reference] = []
        self.deleted = False
        self.states: list[State] = [dict(parent[0].state(parent[1])) if parent else {}]  # from `begin` on
        self.log: list[Commit] = []  # from the one after `begin` on
        self.floor = begin
        self.checkpoints: dict[str, Checkpoint] = {}
        self.leases: dict[int, Lease] = {}
        known = parent[0] if parent else before
        self.granted: list[int] = list(known.granted) if known else []  # the ids of all that there ever were
        self.told = 0  # the id of the lease that the present write grants
        self.ttl = 0  # of the puts of the present transaction
        self.remembered: dict[tuple[str, int], tuple[Write, Outcome]] = before.remembered if before else {}
        self.awaited: dict[str, int] = before.awaited if before else {}

    @property
    def revision(self) -> int:
        return self.begin + len(self.log)

    @property
    def exists(self) -> bool:
        return bool(self.log)

    def state(self, revision: int) -> State:
        return self.states[revision - self.begin] if revision else {}

    def commits(self, first: int, last: int) -> list[Commit]:
        return self.log[max(0, first - self.begin - 1) : max(0, last - self.begin)]

    def origin(self, revision: int) -> Commit:
        """The commit that wrote an entry."""
        if self.parent is not None and revision <= self.parent[1]:
            return self.parent[0].origin(revision)
        return self.log[revision - self.begin - 1]

    def leased(self, id: int) -> list[str]:
        """The keys that live by a lease, in order."""
        return [record[KEY] for record in _under(self.states[-1], "") if record[LEASE_ID] == id]

    def under(self, prefix: str, revision: int) -> list[Record]:
        """The entries under a prefix, in the order of their keys."""
        return _under(self.state(revision), prefix)

    def pinned(self) -> set[int]:
        """The revisions that can be read although the floor has passed them."""
        shared = {fork.parent[1] for fork in self.forks if fork.parent}
        return shared | {checkpoint.revision for checkpoint in self.checkpoints.values()}

    def readable(self) -> list[int]:
        above = set(range(self.floor, self.revision + 1))
        return sorted((self.pinned() | above) - {0})

    def unreadable(self, revision: int) -> type[StateError] | None:
        """Why a revision cannot be read."""
        if revision > self.revision:
            return RevisionInFuture
        return Compacted if revision < self.floor and revision not in self.pinned() else None

    def resolve(self, ref: Ref) -> int | type[StateError]:
        if isinstance(ref, str):
            return self.checkpoints[ref].revision if ref in self.checkpoints else CheckpointNotFound
        if ref == 0:
            return Compacted if self.floor else 0
        return self.revision if ref is None else self.unreadable(ref) or ref

    def size_bytes(self) -> int:
        return sum(map(size, self.states[-1].values()))

    def differences(self, base: int, target: int, prefix: str) -> list[Difference]:
        before, after = self.state(base), self.state(target)
        keys = sorted(key for key in {**before, **after} if key.startswith(prefix))
        every = (Difference(key, before.get(key), after.get(key)) for key in keys)
        return [one for one in every if not same_content(one.before, one.after)]

    def commit(self, write: Write, lease: int) -> Outcome | type[StateError]:
        """How a write ends, given the id of the lease that the store says to have granted for it; 0: none."""
        self.told = lease
        request = write.request_id
        if request is None:
            return self._perform(write)
        self.awaited[request.client] = awaited = max(request.awaited, self.awaited.get(request.client, 0))
        if request.sequence < awaited:
            return RequestIdForgotten
        name = (request.client, request.sequence)
        if name in self.remembered:
            first, outcome = self.remembered[name]
            return outcome if _same(first, write) else RequestIdReused
        before = self.revision, dict(self.checkpoints), dict(self.leases)
        outcome_or_error = self._perform(write)
        now = self.family.get(self.name, self)
        if isinstance(outcome_or_error, Outcome) and (now.revision, now.checkpoints, now.leases) != before:
            self.remembered[name] = (write, outcome_or_error)
        return outcome_or_error

    def delete(self) -> "Reference":
        """What is in its place then."""
        self.deleted = True
        gone: Reference | None = self
        while gone is not None and gone.deleted and not gone.forks and gone.parent is not None:
            gone.parent[0].forks.remove(gone)
            gone = gone.parent[0]
        return Reference(self.family, self.name, self.revision + 1, self)

    def _perform(self, write: Write) -> Outcome | type[StateError]:
        if write.guard is not None:
            id, fence = write.guard
            if id not in self.leases or fence not in (0, id):
                return LeaseLost
        match write:
            case Transaction():
                return self._apply(write)
            case Fork():
                return self._fork(write)
            case MakeCheckpoint():
                return self._make_checkpoint(write)
            case DropCheckpoint(name=name):
                return Outcome(True, self.revision) if self.checkpoints.pop(name, None) else CheckpointNotFound
            case Restore():
                return self._restore(write)
            case Merge():
                return self._merge(write)
            case Grant(ttl=ttl):
                lease = Lease(self.told, ttl, write.author, 0)
                self._add(dict(self.states[-1]), [], write.author, write.message or f"grant lease {lease.id}", "")
                self._grant(lease)
                return Outcome(True, self.revision, (lease,))
            case Revoke(lease_id=id):
                if id not in self.leases:
                    return LeaseNotFound
                deleted = self._end(id, write, f"revoke lease {id}", Cause.CLIENT)
                return Outcome(True, self.revision, (DeleteResult(deleted),))
            case Expire():
                due = [self.leases[id] for id in write.lease_ids if id in self.leases]
                due = [lease for lease in due if lease.ttl == BRIEF]
                deleted = 0
                for lease in due:
                    of = f" of {lease.author}" if lease.author else ""
                    deleted += self._end(lease.id, write, f"lease {lease.id}{of} expired", Cause.LEASE_EXPIRY)
                return Outcome(True, self.revision, (DeleteResult(deleted),) if due else ())
        raise AssertionError(write)

    def _grant(self, lease: Lease) -> None:
        assert lease.id > max(self.granted, default=0)
        self.leases[lease.id] = lease
        self.granted.append(lease.id)

    def _end(self, id: int, action: Action, message: str, cause: Cause) -> int:
        """Returns how many keys were deleted."""
        after = dict(self.states[-1])
        events = [Event(tombstone(key, self.revision + 1, 0), after.pop(key), cause) for key in self.leased(id)]
        del self.leases[id]
        if events:
            self._add(after, events, action.author, action.message or message, "")
        return len(events)

    def _make_checkpoint(self, make: MakeCheckpoint) -> Outcome | type[StateError]:
        if not self.exists:
            return NamespaceNotFound
        if make.name in self.checkpoints:
            return CheckpointExists
        revision = make.revision or self.revision
        if error := self.unreadable(revision):
            return error
        entries = self.state(revision).values()
        made = Checkpoint(
            make.name, revision, 0, make.author, make.message, make.labels, len(entries), sum(map(size, entries))
        )
        self.checkpoints[make.name] = made
        return Outcome(True, self.revision, (made,))

    def _restore(self, restore: Restore) -> Outcome | type[StateError]:
        if not self.exists:
            return NamespaceNotFound
        revision = self.resolve(restore.ref)
        if isinstance(revision, type):
            return revision
        if restore.if_revision not in (None, self.revision):
            return Conflict
        changes = self.differences(self.revision, revision, restore.prefix)
        deleted = sum(change.after is None for change in changes)
        shown = [
            Difference(key, before and without_value(before), after and without_value(after))
            for key, before, after in changes
        ]
        if not restore.dry_run:
            what = f"{restore.ref} (revision {revision})" if isinstance(restore.ref, str) else f"revision {revision}"
            what = f"restore {restore.prefix!r} to {what}" if restore.prefix else f"restore to {what}"
            self._make_equal({change.key: change.after for change in changes}, restore, what)
        result = RestoreResult(len(changes) - deleted, deleted, shown if restore.dry_run else [])
        return Outcome(not restore.dry_run, self.revision, (result,))

    def _fork(self, fork: Fork) -> Outcome | type[StateError]:
        if self.exists:
            return NamespaceExists
        parent = self.family.get(fork.parent)
        if parent is None or not parent.exists:
            return NamespaceNotFound
        revision = parent.resolve(fork.ref)
        if isinstance(revision, type):
            return revision
        made = Reference(self.family, self.name, max(self.begin, revision), self, (parent, revision))
        parent.forks.append(made)
        self.family[self.name] = made
        of = fork.parent + (f"@{fork.ref}" if isinstance(fork.ref, str) else "")
        made._make_equal({}, fork, f"fork {of} (revision {revision})", even_nothing=True)
        figures = (made.revision, made.floor, len(made.under("", made.revision)), made.size_bytes(), 1)
        begun = NamespaceInfo(made.name, *figures, 0, 0, 0, "", fork.parent, revision)
        return Outcome(True, made.revision, (begun,))

    def _merge(self, merge: Merge) -> Outcome | type[StateError]:
        fork = self.family.get(merge.fork)
        if fork is None or not fork.exists or not self.exists:
            return NamespaceNotFound
        if fork.parent is None or fork.parent[0] is not self:
            return NotAFork
        changes: dict[str, Record | None] = {}
        conflicts: list[MergeConflict] = []
        base, ours, theirs = self.state(fork.parent[1]), self.states[-1], fork.states[-1]
        for key in sorted({**base, **theirs}):
            was, own, other = base.get(key), ours.get(key), theirs.get(key)
            if same_content(other, was) or same_content(other, own):
                continue
            if not same_content(own, was):
                conflicts.append(MergeConflict(key, was, own, other))
                if merge.strategy is not Strategy.THEIRS:
                    continue
            changes[key] = other
        merged = not merge.dry_run and not (conflicts and merge.strategy is Strategy.FAIL)
        if merged:
            self._make_equal(changes, merge, f"merge {merge.fork} (revision {fork.revision})")
        deleted = sum(wanted is None for wanted in changes.values())
        result = MergeResult(len(changes) - deleted, deleted, conflicts, len(conflicts))
        return Outcome(merged, self.revision, (result,))

    def _make_equal(
        self, changes: dict[str, Record | None], action: Action, message: str, *, even_nothing: bool = False
    ) -> None:
        """Give keys the contents of other entries, or delete them, in one commit."""
        after = dict(self.states[-1])
        events: list[Event] = []
        for key, wanted in changes.items():
            if wanted is None:
                events.append(Event(tombstone(key, self.revision + 1, 0), after.pop(key)))
            else:
                self._write(after, events, key, wanted[VALUE], wanted[CONTENT_TYPE])
        if events or even_nothing:
            self._add(after, events, action.author, action.message or message, action.trace_parent)

    def _add(self, after: State, events: list[Event], *said: str) -> None:
        author, message, trace_parent = said
        self.log.append(Commit(self.revision + 1, 0, author, message, trace_parent, events))
        self.states.append(after)
        for lease in list(self.leases.values()):
            if lease.ends_with_keys and not self.leased(lease.id):
                del self.leases[lease.id]

    def _apply(self, transaction: Transaction) -> Outcome | type[StateError]:
        for condition in transaction.conditions:
            if condition.test is Test.UNCHANGED_SINCE:  # which looks at commits: it is no help that a state is kept
                if int(condition.operand) > self.revision:
                    return RevisionInFuture
                if int(condition.operand) < self.floor:
                    return Compacted
        failed = list(self._failed(transaction.conditions))
        after = dict(self.states[-1])
        events: list[Event] = []
        results: list[Result] = []
        self.ttl = 0
        for step in transaction.otherwise if failed else transaction.then:
            result = self._run(step, after, events)
            if isinstance(result, type):
                return result
            results.append(result)
        if events:
            self._add(after, events, transaction.author, transaction.message, transaction.trace_parent)
        if self.ttl:
            self._grant(Lease(self.told, self.ttl, transaction.author, 0, ends_with_keys=True))
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
                lease = step.lease_id
                if lease and lease not in self.leases:
                    return LeaseNotFound
                if not lease and step.ttl:
                    if self.ttl not in (0, step.ttl):
                        return InvalidRequest
                    lease, self.ttl = self.told, step.ttl
                old = state.get(step.key)
                new = self._write(state, events, step.key, step.value, step.content_type, lease)
                return PutResult(new[VERSION], old if step.return_previous else None, lease)
            case Increment(key, delta):
                total = _number(state.get(key))
                if total is None or abs(total + delta) >= 2**53:
                    return NotANumber
                lease = state[key][LEASE_ID] if key in state else 0
                kept = lease if lease in self.leases else 0
                new = self._write(state, events, key, str(total + delta).encode(), "application/json", kept)
                return IncrementResult(total + delta, new[VERSION])
            case Delete(key, return_previous):
                gone = [state[key]] if key in state else []
            case DeletePrefix(prefix, return_previous):
                gone = _under(state, prefix)
        for record in gone:
            del state[record[KEY]]
            events.append(Event(tombstone(record[KEY], self.revision + 1, 0), record))
        return DeleteResult(len(gone), gone if return_previous else [])

    def _write(
        self, state: State, events: list[Event], key: str, value: bytes, content_type: str, lease_id: int = 0
    ) -> Record:
        old, revision = state.get(key), self.revision + 1
        version, created = (old[VERSION] + 1, old[CREATE_REVISION]) if old else (1, revision)
        state[key] = (key, value, content_type, version, created, revision, lease_id, 0)
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


def _same(one: Write, other: Write) -> bool:
    nobody = RequestId("", 0)
    if isinstance(one, Transaction):
        return isinstance(other, Transaction) and one._replace(request_id=nobody) == other._replace(request_id=nobody)
    return isinstance(other, Action) and replace(one, request_id=nobody) == replace(other, request_id=nobody)
