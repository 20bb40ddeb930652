"""The words between services, committer, feed and stores: transactions and their outcomes, commits, pages.

They are NamedTuples: cheap to make, impossible to change. Entries are `record.Record`.
"""

import zlib
from collections.abc import Sequence
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


class Transaction(NamedTuple):
    """One unit of work for a store: every write is one, a plain put as well."""

    conditions: Sequence[Condition] = ()
    then: Sequence[Operation] = ()
    otherwise: Sequence[Operation] = ()
    request_id: RequestId | None = None
    author: str = ""
    message: str = ""
    trace_parent: str = ""

    def fingerprint(self) -> int:
        """Tells one request from another under the same request id; the same in every process."""
        crc = zlib.crc32(repr(self.conditions).encode())
        for branch in (self.then, self.otherwise):
            crc = zlib.crc32(b"\0", crc)
            for operation in branch:
                if isinstance(operation, Put):  # a value may be long, and its repr is longer
                    crc = zlib.crc32(operation.value, crc)
                    operation = operation._replace(value=b"%d" % len(operation.value))
                crc = zlib.crc32(repr(operation).encode(), crc)
        return crc

    def weight(self) -> int:
        """About how much memory it holds, in bytes."""
        weight = 200 + 100 * (len(self.conditions) + len(self.then) + len(self.otherwise))
        for condition in self.conditions:
            operand = condition.operand
            weight += len(condition.target) + (len(operand) if isinstance(operand, bytes) else 0)
        for branch in (self.then, self.otherwise):
            weight += sum(len(operation[0]) for operation in branch)  # a key or a prefix
            weight += sum(len(operation.value) for operation in branch if isinstance(operation, Put))
        return weight


class GetResult(NamedTuple):
    entry: Record | None


class ListResult(NamedTuple):
    entries: Sequence[Record]
    more: bool


class PutResult(NamedTuple):
    version: int
    previous: Record | None


class DeleteResult(NamedTuple):
    deleted: int
    previous: Sequence[Record] = ()
    truncated: bool = False  # `previous` leaves some out for their size


class IncrementResult(NamedTuple):
    value: int
    version: int


Result = GetResult | ListResult | PutResult | DeleteResult | IncrementResult


class FailedCondition(NamedTuple):
    position: int  # in the transaction's conditions, from 0
    current: Record | None  # of a key: what it holds; None: it is absent
    changed_revision: int  # of a prefix, and of UNCHANGED_SINCE: the newest revision that changed something there


class Outcome(NamedTuple):
    """How a transaction ended. `revision` is the one that it made, or the newest that it saw if it made none."""

    committed: bool
    revision: int
    results: Sequence[Result] = ()
    failed: Sequence[FailedCondition] = ()


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


class Page(NamedTuple):
    """Entries in the order of their keys. `next_after` resumes behind the last key looked at; None: that was all."""

    entries: Sequence[Record]
    revision: int
    next_after: str | None


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


class NamespaceInfo(NamedTuple):
    """What is known of a namespace. Sizes in bytes, times in µs since 1970."""

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


def within(key: str, target: str, is_prefix: bool) -> bool:
    """Whether a key is the target, or under it."""
    return key.startswith(target) if is_prefix else key == target


def events_within(commit: Commit, target: str, is_prefix: bool) -> Sequence[Event]:
    """The events of a commit that touch a key or a prefix."""
    return [event for event in commit.events if within(event.entry[KEY], target, is_prefix)]
