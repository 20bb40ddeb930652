"""What the client answers with: entries, events, commits, results. Immutable, and free of protobuf."""

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import codec

__all__ = [
    "Attribution",
    "Checkpoint",
    "Commit",
    "DeleteResult",
    "Difference",
    "Entry",
    "Event",
    "EventCause",
    "EventType",
    "FailedCondition",
    "GetResult",
    "IncrementResult",
    "LeaseInfo",
    "ListResult",
    "MergeConflict",
    "MergeResult",
    "MergeStrategy",
    "Namespace",
    "OperationResult",
    "PutResult",
    "RestoreResult",
    "Resync",
    "TransactionResult",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a key, as one revision has it."""

    key: str
    data: bytes  # the value as it is stored; empty where only keys were asked for
    content_type: str  # empty: not said
    version: int  # 1 at creation, one more with each overwrite, 1 again after a delete
    create_revision: int
    mod_revision: int  # the revision that wrote this value
    lease_id: int  # 0: lives by no lease
    update_time: datetime.datetime  # UTC, by the clock of the store

    @property
    def value(self) -> Any:
        """The value by its content type: JSON is parsed, text becomes str, all else is bytes.

        Raises DecodeError, which names the key, if the bytes are not what the content type says.
        """
        return codec.decode(self.data, self.content_type, key=self.key)


class EventType(enum.Enum):
    """What happened to a key. The values are the numbers of the wire contract."""

    PUT = 1
    DELETE = 2


class EventCause(enum.Enum):
    """Who brought a change about. The values are the numbers of the wire contract."""

    UNSPECIFIED = 0
    CLIENT = 1
    LEASE_EXPIRY = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one key, with what is known of the commit that made it."""

    type: EventType
    entry: Entry  # of a delete: the key, mod_revision and update_time; all else is empty
    previous: Entry | None  # only on request, and where there was one
    cause: EventCause
    revision: int  # of the commit
    time: datetime.datetime  # of the commit, UTC, by the clock of the store
    author: str  # empty: not said
    message: str  # empty: not said
    trace_parent: str  # the W3C traceparent of the writer; empty: none

    @property
    def key(self) -> str:
        return self.entry.key

    @property
    def is_put(self) -> bool:
        """The key was created or overwritten."""
        return self.type is EventType.PUT

    @property
    def is_create(self) -> bool:
        """The key was put, and did not exist before."""
        return self.type is EventType.PUT and self.entry.version == 1

    @property
    def is_delete(self) -> bool:
        return self.type is EventType.DELETE


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction that changed something: the step from one revision to the next."""

    revision: int
    time: datetime.datetime  # UTC, by the clock of the store
    author: str  # empty: not said
    message: str  # empty: not said
    trace_parent: str  # empty: none
    events: tuple[Event, ...]  # those that pass the filters; at most one a key


@dataclass(frozen=True, slots=True)
class Resync:
    """The whole present state of what a watch watches; it goes on from there.

    Comes where the watch could not go on where it was, and at its start if that was asked for. A key that is not among
    the entries does not exist.
    """

    revision: int
    entries: tuple[Entry, ...]  # in the order of keys
    epoch: str = ""  # of the history that `revision` is of


@dataclass(frozen=True, slots=True)
class GetResult:
    """What a Get in a transaction read."""

    entry: Entry | None  # None: the key was absent


@dataclass(frozen=True, slots=True)
class ListResult:
    """What a List in a transaction read."""

    entries: tuple[Entry, ...]  # in the order of keys
    more: bool  # there are more than the limit let through


@dataclass(frozen=True, slots=True)
class PutResult:
    """What a put did."""

    revision: int  # that the write made
    version: int  # that the key has now
    previous: Entry | None  # only on request, and where there was one
    lease_id: int = 0  # that the key lives by: of a put with a ttl its own; 0: none


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """What a delete did."""

    revision: int  # that the delete made, or the newest one if there was nothing to delete
    deleted: int  # how many keys
    previous: tuple[Entry, ...]  # only on request, in the order of keys
    previous_truncated: bool  # some are left out of `previous` for their size


@dataclass(frozen=True, slots=True)
class IncrementResult:
    """What an increment did."""

    revision: int  # that the write made
    value: int  # the sum
    version: int  # that the key has now


OperationResult = GetResult | ListResult | PutResult | DeleteResult | IncrementResult


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """A condition that did not hold, with what was found instead."""

    index: int  # its place in the conditions, from 0
    current: Entry | None  # of a key: its entry; None if it is absent, or the condition is on a prefix
    changed_revision: int  # of a prefix or of unchanged_since: the newest revision that changed something there
    value_omitted: bool  # `current` has no value, for its size; in an answer near 4 MB no key and content type either


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """How a transaction of conditions and operations ended."""

    committed: bool  # True: all conditions held, and `then` was applied; False: `otherwise` was
    revision: int  # that it made, or the newest one that it saw if it changed nothing
    results: tuple[OperationResult, ...]  # one for each operation that was applied, in order
    failed: tuple[FailedCondition, ...]  # the conditions that did not hold
    epoch: str = ""  # of the history that `revision` is of; for a watch that goes on from there


@dataclass(frozen=True, slots=True)
class Namespace:
    """What is known of a namespace."""

    name: str
    revision: int  # the newest
    floor: int  # the oldest revision that can be read; commits above it are kept
    key_count: int
    size_bytes: int  # keys, values and content types of the newest state
    commit_count: int  # how many commits are kept
    history_size_bytes: int  # what is kept beside the newest state
    create_time: datetime.datetime  # UTC
    update_time: datetime.datetime  # UTC; when the newest revision was made
    epoch: str  # another one whenever revisions may have been given out anew
    parent: str  # the namespace that it was forked from; empty: none
    fork_revision: int  # the revision of the parent that it was forked at


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """What the server knows of a lease."""

    id: int  # the revision that granted it
    ttl: float  # seconds that it lives after each renewal
    expire_time: datetime.datetime  # UTC, by the clock of the store; when it ends unless renewed
    author: str  # who was given it; empty: not said
    key_count: int  # how many keys live by it
    fence: int  # its fencing token: greater than that of every lease of the namespace before it
    remaining: float  # seconds that it lived unless renewed, when it was read; 0: it is about to end
    ends_with_keys: bool  # it was made by a put with a ttl, and ends also when no key lives by it any more


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who wrote a key last, and why."""

    entry: Entry  # without its value
    author: str  # empty: not said
    message: str  # empty: not said
    trace_parent: str  # the W3C traceparent of the writer; empty: none


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A name for a revision, which keeps it readable. Wherever a revision is asked for, it stands for its name."""

    name: str
    revision: int
    create_time: datetime.datetime  # UTC, by the clock of the store
    author: str  # empty: not said
    message: str  # empty: not said
    labels: Mapping[str, str]
    key_count: int  # how many keys there are at the revision
    size_bytes: int  # keys, values and content types at the revision


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that differs between two revisions in its value or content type, or in being there at all."""

    key: str
    before: Entry | None  # at the older revision; None: it was absent
    after: Entry | None  # at the newer one; None: it is absent


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did, or would do."""

    revision: int  # that it made, or the newest one if there was nothing to change or it was a dry run
    put: int  # how many keys were put back
    deleted: int  # how many keys were deleted
    differences: tuple[Difference, ...]  # of a dry run: what would change, up to 1,000 keys, without values


class MergeStrategy(enum.StrEnum):
    """What a merge does with a key that both sides changed to different ends."""

    FAIL = "fail"  # change nothing at all, and answer with the conflicts
    OURS = "ours"  # keep what the namespace has
    THEIRS = "theirs"  # take what the fork has


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """A key that both sides changed since the fork, to different ends. None: it is, or was, absent there."""

    key: str
    base: Entry | None  # at the fork
    ours: Entry | None  # in the namespace
    theirs: Entry | None  # in the fork
    values_omitted: bool  # the values of the three were left out for their size


@dataclass(frozen=True, slots=True)
class MergeResult:
    """How a merge ended, or would end."""

    merged: bool  # it was applied, or there was nothing to apply; False: there were conflicts, or it was a dry run
    revision: int  # that it made, or the newest one if it changed nothing
    put: int  # how many keys were put, or would be
    deleted: int  # how many keys were deleted, or would be
    conflicts: tuple[MergeConflict, ...]  # in the order of keys, up to 1,000; values are left out past 1 MiB
    conflict_count: int  # how many there are
