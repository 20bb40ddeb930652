"""The words between services, committer, feed and stores: writes and their outcomes, commits, pages.

They cannot be changed once made. What is made with every write is a NamedTuple, which is cheap; entries are
`record.Record`, which is cheaper.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

from comity_server.record import CREATE_REVISION, KEY, LEASE_ID, MOD_REVISION, VALUE, VERSION, Record


class Test(IntEnum):
    """What a condition looks at. The values are the places in a record, where there is one."""

    __test__ = False  # not a class of tests, whatever pytest makes of the name

    VALUE = VALUE
    VERSION = VERSION
    CREATE_REVISION = CREATE_REVISION
    MOD_REVISION = MOD_REVISION
    LEASE_ID = LEASE_ID
    EXISTS = 100
    UNCHANGED_SINCE = 101


class Operator(IntEnum):
    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    LESS_OR_EQUAL = 4
    GREATER = 5
    GREATER_OR_EQUAL = 6


class Condition(NamedTuple):
    """A statement about one key, or (UNCHANGED_SINCE only) about all keys under a prefix."""

    target: str
    test: Test
    operand: int | bytes  # EXISTS: 0 or 1
    operator: Operator = Operator.EQUAL
    is_prefix: bool = False


class Get(NamedTuple):
    key: str


class List(NamedTuple):
    prefix: str
    limit: int
    keys_only: bool = False


class Put(NamedTuple):
    key: str
    value: bytes
    content_type: str = ""
    lease_id: int = 0
    return_previous: bool = False
    ttl: int = 0  # µs: of a lease that the key lives by alone; 0: of none


class Delete(NamedTuple):
    key: str
    return_previous: bool = False


class DeletePrefix(NamedTuple):
    prefix: str
    return_previous: bool = False


class Increment(NamedTuple):
    key: str
    delta: int


Operation = Get | List | Put | Delete | DeletePrefix | Increment


class RequestId(NamedTuple):
    """The name of a write: see RequestId in types.proto."""

    client: str
    sequence: int
    awaited: int = 0


class Guard(NamedTuple):
    """A lease that must live for a write to apply."""

    lease_id: int
    fence: int = 0  # 0: not checked


Ref = int | str | None
"""A revision, or the name of a checkpoint; None: the newest revision."""


class Transaction(NamedTuple):
    """Conditions and operations: what nearly every write is, a plain put as well."""

    conditions: Sequence[Condition] = ()
    then: Sequence[Operation] = ()
    otherwise: Sequence[Operation] = ()
    request_id: RequestId | None = None
    author: str = ""
    message: str = ""
    trace_parent: str = ""
    guard: Guard | None = None
    lease_owner: str | None = None
    """Leases by which keys come to live have to be this principal's; None: they may be anybody's."""

    def fingerprint(self) -> int:
        """Tells one request from another under the same request id; the same in every process. The owner of leases is
        no part of what is asked for: what a principal may do can be another by the time that it repeats a request."""
        crc = 0
        for target, test, operand, compare, is_prefix in self.conditions:
            crc = zlib.crc32(repr((target, int(test), operand, int(compare), is_prefix)).encode(), crc)
        for branch in (self.then, self.otherwise):
            crc = zlib.crc32(b"\0", crc)
            for operation in branch:
                asked: tuple[object, ...] = operation
                if isinstance(operation, Put):  # a value may be long, and its repr is longer
                    key, value, *rest = operation
                    crc = zlib.crc32(value, crc)
                    asked = (key, len(value), *rest)
                crc = zlib.crc32(repr((type(operation).__name__, *asked)).encode(), crc)  # a named tuple's is slow
        return crc

    def weight(self) -> int:
        """About how much memory it holds, in bytes."""
        weight = 200 + 100 * self.parts()
        for condition in self.conditions:
            operand = condition.operand
            weight += len(condition.target) + (len(operand) if isinstance(operand, bytes) else 0)
        for branch in (self.then, self.otherwise):
            weight += sum(len(operation[0]) for operation in branch)  # a key or a prefix
            weight += sum(len(operation.value) for operation in branch if isinstance(operation, Put))
        return weight

    def parts(self) -> int:
        """How many conditions and operations are inside of it."""
        return len(self.conditions) + len(self.then) + len(self.otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A write that is no transaction. It has its turn among those of the namespace that it changes."""

    request_id: RequestId | None = None
    author: str = ""
    message: str = ""
    trace_parent: str = ""
    guard: Guard | None = None

    def fingerprint(self) -> int:
        """As of a transaction."""
        asked = replace(self, request_id=None, author="", message="", trace_parent="", guard=None)
        return zlib.crc32(repr(asked).encode())

    def weight(self) -> int:
        """As of a transaction."""
        return 500

    def parts(self) -> int:
        """As of a transaction."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeCheckpoint(Action):
    """Name a revision; 0 is the newest."""

    name: str
    revision: int = 0
    labels: tuple[tuple[str, str], ...] = ()  # in the order of their keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCheckpoint(Action):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore(Action):
    """Make all keys under a prefix equal to what they were."""

    ref: Ref
    prefix: str = ""
    if_revision: int | None = None  # only if it is the newest
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Action):
    """Begin the namespace that this is committed to as another one was."""

    parent: str
    ref: Ref = None


class Strategy(IntEnum):
    """What a merge does with keys that both sides changed."""

    FAIL = 1
    OURS = 2
    THEIRS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Action):
    """Bring in what a fork changed."""

    fork: str
    strategy: Strategy = Strategy.FAIL
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Action):
    """Make a lease."""

    ttl: int  # µs


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Action):
    """End a lease, and delete its keys."""

    lease_id: int
    # The lease has to be this principal's; None: it may be anybody's. No part of the fingerprint, as of a transaction.
    principal: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire(Action):
    """End those of some leases that have run out. Its outcome has no result if none of them had."""

    lease_ids: tuple[int, ...]


Write = Transaction | Action


class GetResult(NamedTuple):
    entry: Record | None


class ListResult(NamedTuple):
    entries: Sequence[Record]
    more: bool


class PutResult(NamedTuple):
    version: int
    previous: Record | None
    lease_id: int = 0  # that the key lives by; 0: none


class DeleteResult(NamedTuple):
    deleted: int
    previous: Sequence[Record] = ()
    truncated: bool = False  # `previous` leaves some out for their size


class IncrementResult(NamedTuple):
    value: int
    version: int


class Checkpoint(NamedTuple):
    """A name for a revision; also what making one answers. `key_count` and `size_bytes` are of the state there."""

    name: str
    revision: int
    create_time: int  # µs since 1970
    author: str
    message: str
    labels: tuple[tuple[str, str], ...]
    key_count: int
    size_bytes: int


class Difference(NamedTuple):
    """A key whose value or content type differs between two states."""

    key: str
    before: Record | None
    after: Record | None


class Lease(NamedTuple):
    """What a grant made; also what it answers. It lives until its end is committed."""

    id: int  # its fence too: see `Draft.time`
    ttl: int  # µs
    author: str
    create_time: int  # µs since 1970
    ends_with_keys: bool = False  # it was made by a put, for its keys alone


class LeaseInfo(NamedTuple):
    lease: Lease
    remaining: int  # µs, from when it was asked for; 0: it is about to end
    key_count: int


class RestoreResult(NamedTuple):
    put: int
    deleted: int
    differences: Sequence[Difference] = ()  # of a dry run: the first DIFFERENCES of what would change


class MergeConflict(NamedTuple):
    """A key that both sides changed since the fork, to different ends."""

    key: str
    base: Record | None
    ours: Record | None
    theirs: Record | None
    values_omitted: bool = False  # of the three, since those of others came to CONFLICT_BYTES already


class MergeResult(NamedTuple):
    put: int
    deleted: int
    conflicts: Sequence[MergeConflict]  # the first DIFFERENCES of them
    conflict_count: int


class NamespaceInfo(NamedTuple):
    """What is known of a namespace; also what a fork answers. Sizes in bytes, times in µs since 1970."""

    name: str
    revision: int
    floor: int
    key_count: int
    size_bytes: int
    commit_count: int
    history_size_bytes: int
    create_time: int
    update_time: int
    epoch: str
    parent: str = ""  # that it was forked from; empty: it is no fork
    fork_revision: int = 0  # of the parent
    lease_count: int = 0  # that live; of a fork that has just begun none do


DIFFERENCES = 1000
CONFLICT_BYTES = 1024 * 1024  # of the values in a merge's conflicts

Result = (
    GetResult
    | ListResult
    | PutResult
    | DeleteResult
    | IncrementResult
    | Checkpoint
    | Lease
    | RestoreResult
    | NamespaceInfo
    | MergeResult
)


class FailedCondition(NamedTuple):
    position: int  # in the transaction's conditions, from 0
    current: Record | None  # of a key: what it holds; None: it is absent
    changed_revision: int  # of a prefix, and of UNCHANGED_SINCE: the newest revision that changed something there


class Outcome(NamedTuple):
    """How a write ended. `revision` is the one that it made, or the newest that it saw if it made none.

    An action has one result at the most. It is not `committed` where it was a dry run, or a merge met conflicts.
    `searched` is how many operations it counts for, beside its own, by what was looked through for it.
    `epoch` is said of transactions: that of the history which `revision` is of.
    """

    committed: bool
    revision: int
    results: Sequence[Result] = ()
    failed: Sequence[FailedCondition] = ()
    searched: int = 0
    epoch: str = ""


class Cause(IntEnum):
    CLIENT = 1
    LEASE_EXPIRY = 2


class Event(NamedTuple):
    """One change of one key. A delete is an entry of version 0."""

    entry: Record
    previous: Record | None
    cause: Cause = Cause.CLIENT

    @property
    def is_delete(self) -> bool:
        return self.entry[VERSION] == 0


class Commit(NamedTuple):
    revision: int
    time: int  # µs since 1970, never earlier than that of an earlier revision
    author: str
    message: str
    trace_parent: str
    events: Sequence[Event]


class Read(NamedTuple):
    """What a key held at a revision."""

    entry: Record | None
    revision: int
    epoch: str


class ReadAll(NamedTuple):
    """What several keys held at a revision, in the order in which they were asked for."""

    entries: Sequence[Record | None]
    revision: int


class Page(NamedTuple):
    """Entries in the order of their keys. `next_after` resumes behind the last key looked at; None: that was all."""

    entries: Sequence[Record]
    revision: int
    next_after: str | None
    epoch: str


class DiffPage(NamedTuple):
    """Differences in the order of their keys. `next_after` as of a Page, `searched` as of an Outcome."""

    differences: Sequence[Difference]
    base_revision: int
    target_revision: int
    next_after: str | None
    searched: int = 0


class Provenance(NamedTuple):
    """What a commit says of itself, and what is kept of it when compaction has taken the rest."""

    author: str
    message: str
    trace_parent: str


class CommitRange(NamedTuple):
    """Commits next to each other in the log, and the bounds of the log when they were read."""

    commits: Sequence[Commit]
    revision: int
    floor: int


class Position(NamedTuple):
    """Where a namespace stands. `epoch` changes whenever revisions may have been given out anew."""

    revision: int
    floor: int
    epoch: str


def within(key: str, target: str, is_prefix: bool) -> bool:
    """Whether a key is the target, or under it."""
    return key.startswith(target) if is_prefix else key == target


def events_within(commit: Commit, target: str, is_prefix: bool) -> Sequence[Event]:
    """The events of a commit that touch a key or a prefix."""
    return [event for event in commit.events if within(event.entry[KEY], target, is_prefix)]
