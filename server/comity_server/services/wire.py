"""From the words of `comity_server.model` to messages."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, types_pb2
from comity_server.model import (
    Cause,
    Checkpoint,
    Commit,
    DeleteResult,
    Difference,
    Event,
    FailedCondition,
    GetResult,
    IncrementResult,
    LeaseInfo,
    ListResult,
    MergeConflict,
    NamespaceInfo,
    Outcome,
    PutResult,
    Result,
)
from comity_server.record import VALUE, VERSION, Record, shown_size, size, without_value

FRAGMENT_BYTES: Final = 1024 * 1024  # of a commit in one message of a watch stream
ANSWER_BYTES: Final = 3_500_000  # of what a list in an answer may take, since clients read up to 4 MiB
FAILED_VALUE_BYTES: Final = 1024 * 1024  # of an answer whose conditions failed
FAILED_BYTES: Final = 4_000_000  # of the whole of it, since clients read up to 4 MiB
NUMBERS_BYTES: Final = 96  # about what a failed condition takes without key, value and content type
EVENT_OVERHEAD: Final = 16  # about what an event takes beside its entries, in bytes

CAUSES: Final = {
    Cause.CLIENT: types_pb2.EVENT_CAUSE_CLIENT,
    Cause.LEASE_EXPIRY: types_pb2.EVENT_CAUSE_LEASE_EXPIRY,
}


def fill_time(timestamp: Timestamp, time: int) -> None:
    """Set a timestamp from µs since 1970."""
    seconds, micros = divmod(time, 1_000_000)
    timestamp.seconds = seconds
    timestamp.nanos = micros * 1000


def fill_duration(duration: Duration, micros: int) -> None:
    """Set a duration from µs, from 0 on."""
    seconds, micros = divmod(micros, 1_000_000)
    duration.seconds = seconds
    duration.nanos = micros * 1000


def fill_lease(message: lease_pb2.Lease, info: LeaseInfo, now: int) -> None:
    """Set a lease, given the time of the store, in µs since 1970."""
    lease, remaining, key_count = info
    message.id = message.fence = lease.id
    fill_duration(message.ttl, lease.ttl)
    fill_time(message.expire_time, now + remaining)
    if lease.author:
        message.author = lease.author
    message.key_count = key_count
    fill_duration(message.remaining, remaining)
    message.ends_with_keys = lease.ends_with_keys


def fill_entry(entry: types_pb2.Entry, record: Record, keys_only: bool = False) -> None:
    """Set an entry. That of a delete has a key, a revision and a time, and nothing else."""
    key, value, content_type, version, create_revision, mod_revision, lease_id, update_time = record
    entry.key = key
    if value and not keys_only:
        entry.value = value
    if content_type:
        entry.content_type = content_type
    if version:
        entry.version = version
        entry.create_revision = create_revision
    entry.mod_revision = mod_revision
    if lease_id:
        entry.lease_id = lease_id
    fill_time(entry.update_time, update_time)


def event_size(event: Event, previous: bool, keys_only: bool = False) -> int:
    """About how long an event is on the wire, in bytes."""
    size = EVENT_OVERHEAD
    for record in (event.entry, event.previous if previous else None):
        if record is not None:
            size += shown_size(record) - (len(record[VALUE]) if keys_only else 0)
    return size


def fill_commit(
    message: types_pb2.Commit, commit: Commit, events: Sequence[Event], previous: bool, keys_only: bool = False
) -> None:
    """Set a commit with some of its events."""
    message.revision = commit.revision
    fill_time(message.commit_time, commit.time)
    if commit.author:
        message.author = commit.author
    if commit.message:
        message.message = commit.message
    if commit.trace_parent:
        message.trace_parent = commit.trace_parent
    add = message.events.add
    for event in events:
        entry = event.entry
        filled = add()
        filled.type = types_pb2.EVENT_TYPE_PUT if entry[VERSION] else types_pb2.EVENT_TYPE_DELETE
        fill_entry(filled.entry, entry, keys_only)
        if previous and event.previous is not None:
            fill_entry(filled.previous, event.previous, keys_only)
        filled.cause = CAUSES[event.cause]


def events_that_fit(
    events: Sequence[Event], start: int, max_bytes: int, previous: bool, keys_only: bool = False
) -> int:
    """The end of the events from `start` on that fit into so many bytes; `start` itself if not one does."""
    size = 0
    for end in range(start, len(events)):
        size += event_size(events[end], previous, keys_only)
        if size > max_bytes:
            return end
    return len(events)


def watch_fragment(commit: Commit, events: Sequence[Event], start: int, previous: bool) -> tuple[bytes, int]:
    """Serialise a commit, from one of its events on, as a part of a WatchResponse; with the place where it ends.

    Parts joined to each other and to those of other commits are one message. Of a commit above FRAGMENT_BYTES all parts
    but the last are marked partial.
    """
    end = max(events_that_fit(events, start, FRAGMENT_BYTES, previous), start + 1)
    response = state_pb2.WatchResponse()
    message = response.commits.add()
    fill_commit(message, commit, events[start:end] if start or end < len(events) else events, previous)
    if end < len(events):
        message.partial = True
    return response.SerializeToString(), end


def fill_transact(response: state_pb2.TransactResponse, outcome: Outcome) -> None:
    """Set how a transaction ended."""
    response.committed = outcome.committed
    response.revision = outcome.revision
    response.epoch = outcome.epoch
    values = 0
    for result in outcome.results:
        values += _fill_result(response.results.add(), result)
    if outcome.failed:
        room = FAILED_BYTES - response.ByteSize() - NUMBERS_BYTES * len(outcome.failed)
        for failed in outcome.failed:
            shown = _shown(failed, FAILED_VALUE_BYTES - values, room)
            _fill_failed(response.failed.add(), failed, shown)
            if shown is not None:
                values += len(shown[VALUE])
                room -= size(shown)


def _fill_result(message: state_pb2.OperationResult, result: Result) -> int:
    """Set a result, and return the bytes of the values in it."""
    values = 0
    match result:
        case PutResult(version, previous, lease_id):
            message.put.version = version
            message.put.lease_id = lease_id
            if previous is not None:
                fill_entry(message.put.previous, previous)
                values = len(previous[VALUE])
        case GetResult(entry):
            message.get.SetInParent()
            if entry is not None:
                fill_entry(message.get.entry, entry)
                values = len(entry[VALUE])
        case IncrementResult(value, version):
            message.increment.value = value
            message.increment.version = version
        case DeleteResult(deleted, gone, truncated):
            message.delete.deleted = deleted
            message.delete.previous_truncated = truncated
            for record in gone:
                fill_entry(message.delete.previous.add(), record)
                values += len(record[VALUE])
        case ListResult(entries, more):
            message.list.more = more
            for record in entries:
                fill_entry(message.list.entries.add(), record)
                values += len(record[VALUE])
    return values


def _shown(failed: FailedCondition, value_room: int, room: int) -> Record | None:
    """What there is room for of a failed condition's entry: without the value, or else the numbers alone."""
    current = failed.current
    if current is None or (len(current[VALUE]) <= max(0, value_room) and size(current) <= room):
        return current
    bare = without_value(current)
    return bare if size(bare) <= room else ("", b"", "", *bare[VERSION:])


def _fill_failed(message: state_pb2.FailedCondition, failed: FailedCondition, shown: Record | None) -> None:
    """Set a failed condition with what is to be shown of its entry."""
    message.index = failed.position
    message.changed_revision = failed.changed_revision
    if shown is not None:
        fill_entry(message.current, shown)
        message.value_omitted = shown is not failed.current


def fill_namespace(message: namespace_pb2.Namespace, info: NamespaceInfo) -> None:
    """Set what is known of a namespace."""
    message.name = info.name
    message.revision = info.revision
    message.floor = info.floor
    message.key_count = info.key_count
    message.size_bytes = info.size_bytes
    message.commit_count = info.commit_count
    message.history_size_bytes = info.history_size_bytes
    fill_time(message.create_time, info.create_time)
    fill_time(message.update_time, info.update_time)
    message.epoch = info.epoch
    message.parent = info.parent
    message.fork_revision = info.fork_revision


def fill_checkpoint(message: checkpoint_pb2.Checkpoint, checkpoint: Checkpoint) -> None:
    """Set a checkpoint."""
    message.name = checkpoint.name
    message.revision = checkpoint.revision
    fill_time(message.create_time, checkpoint.create_time)
    message.author = checkpoint.author
    message.message = checkpoint.message
    message.labels.update(checkpoint.labels)
    message.key_count = checkpoint.key_count
    message.size_bytes = checkpoint.size_bytes


def fill_difference(message: checkpoint_pb2.Difference, difference: Difference, keys_only: bool) -> None:
    """Set a key that differs."""
    key, before, after = difference
    message.key = key
    if before is not None:
        fill_entry(message.before, before, keys_only)
    if after is not None:
        fill_entry(message.after, after, keys_only)


def fill_preview(response: checkpoint_pb2.RestoreResponse, differences: Sequence[Difference]) -> None:
    """Set what a restore would change, without values, as far as there is room."""
    room = ANSWER_BYTES
    for difference in differences:
        message = response.differences.add()
        fill_difference(message, difference, keys_only=True)
        room -= message.ByteSize()
        if room < 0:
            del response.differences[-1]
            return


def fill_conflicts(response: namespace_pb2.MergeResponse, conflicts: Sequence[MergeConflict]) -> None:
    """Set the keys that both sides changed, as far as there is room."""
    room = ANSWER_BYTES
    for key, base, ours, theirs, omitted in conflicts:
        message = response.conflicts.add()
        message.key = key
        message.values_omitted = omitted
        if base is not None:
            fill_entry(message.base, base)
        if ours is not None:
            fill_entry(message.ours, ours)
        if theirs is not None:
            fill_entry(message.theirs, theirs)
        room -= message.ByteSize()
        if room < 0:
            del response.conflicts[-1]
            return
