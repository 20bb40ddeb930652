"""From the messages of the wire contract to the client's model."""

import datetime
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from . import model
from .v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, types_pb2

__all__ = [
    "attribution",
    "checkpoint",
    "commit",
    "delete_result",
    "difference",
    "entries",
    "entry",
    "lease",
    "merge_result",
    "namespace",
    "put_result",
    "restore_result",
    "transaction_result",
]

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# What a day may be added to or taken from, as time zones do.
EARLIEST = datetime.datetime(1, 1, 2, tzinfo=datetime.UTC)
LATEST = datetime.datetime(9999, 12, 30, tzinfo=datetime.UTC)
CAUSES = {cause.value: cause for cause in model.EventCause}


def time(message: Timestamp) -> datetime.datetime:
    """The nearest that there is in Python."""
    try:
        at = EPOCH + datetime.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        return LATEST if message.seconds > 0 else EARLIEST
    return min(max(at, EARLIEST), LATEST)


def seconds(message: Duration) -> float:
    return message.seconds + message.nanos / 1e9


def entry(message: types_pb2.Entry) -> model.Entry:
    return model.Entry(
        message.key,
        message.value,
        message.content_type,
        message.version,
        message.create_revision,
        message.mod_revision,
        message.lease_id,
        time(message.update_time),
    )


def entries(messages: Iterable[types_pb2.Entry]) -> tuple[model.Entry, ...]:
    return tuple(map(entry, messages))


def commit(message: types_pb2.Commit) -> model.Commit:
    """A commit, or the part of it that the message has."""
    revision, author, text, trace_parent = message.revision, message.author, message.message, message.trace_parent
    at = time(message.commit_time)
    events = tuple(
        model.Event(
            model.EventType(event.type),
            entry(event.entry),
            entry(event.previous) if event.HasField("previous") else None,
            CAUSES.get(event.cause, model.EventCause.UNSPECIFIED),
            revision,
            at,
            author,
            text,
            trace_parent,
        )
        for event in message.events
    )
    return model.Commit(revision, at, author, text, trace_parent, events)


def put_result(message: state_pb2.PutResponse | state_pb2.PutResult, revision: int) -> model.PutResult:
    previous = entry(message.previous) if message.HasField("previous") else None
    return model.PutResult(revision, message.version, previous, message.lease_id)


def delete_result(message: state_pb2.DeleteResponse | state_pb2.DeleteResult, revision: int) -> model.DeleteResult:
    return model.DeleteResult(revision, message.deleted, entries(message.previous), message.previous_truncated)


def transaction_result(message: state_pb2.TransactResponse) -> model.TransactionResult:
    revision = message.revision
    return model.TransactionResult(
        message.committed,
        revision,
        tuple(_operation_result(result, revision) for result in message.results),
        tuple(
            model.FailedCondition(
                failed.index,
                entry(failed.current) if failed.HasField("current") else None,
                failed.changed_revision,
                failed.value_omitted,
            )
            for failed in message.failed
        ),
        message.epoch,
    )


def _operation_result(message: state_pb2.OperationResult, revision: int) -> model.OperationResult:
    match message.WhichOneof("result"):
        case "get":
            return model.GetResult(entry(message.get.entry) if message.get.HasField("entry") else None)
        case "list":
            return model.ListResult(entries(message.list.entries), message.list.more)
        case "put":
            return put_result(message.put, revision)
        case "delete":
            return delete_result(message.delete, revision)
        case "increment":
            return model.IncrementResult(revision, message.increment.value, message.increment.version)
        case other:
            raise ValueError(f"the server answered an operation with {other}, which this client does not know")


def namespace(message: namespace_pb2.Namespace) -> model.Namespace:
    return model.Namespace(
        message.name,
        message.revision,
        message.floor,
        message.key_count,
        message.size_bytes,
        message.commit_count,
        message.history_size_bytes,
        time(message.create_time),
        time(message.update_time),
        message.epoch,
        message.parent,
        message.fork_revision,
    )


def attribution(message: state_pb2.Attribution) -> model.Attribution:
    return model.Attribution(entry(message.entry), message.author, message.message, message.trace_parent)


def checkpoint(message: checkpoint_pb2.Checkpoint) -> model.Checkpoint:
    return model.Checkpoint(
        message.name,
        message.revision,
        time(message.create_time),
        message.author,
        message.message,
        dict(sorted(message.labels.items())),
        message.key_count,
        message.size_bytes,
    )


def lease(message: lease_pb2.Lease) -> model.LeaseInfo:
    return model.LeaseInfo(
        message.id,
        seconds(message.ttl),
        time(message.expire_time),
        message.author,
        message.key_count,
        message.fence,
        seconds(message.remaining),
        message.ends_with_keys,
    )


def difference(message: checkpoint_pb2.Difference) -> model.Difference:
    return model.Difference(
        message.key,
        entry(message.before) if message.HasField("before") else None,
        entry(message.after) if message.HasField("after") else None,
    )


def restore_result(message: checkpoint_pb2.RestoreResponse) -> model.RestoreResult:
    return model.RestoreResult(
        message.revision, message.put, message.deleted, tuple(map(difference, message.differences))
    )


def merge_result(message: namespace_pb2.MergeResponse) -> model.MergeResult:
    return model.MergeResult(
        message.merged,
        message.revision,
        message.put,
        message.deleted,
        tuple(
            model.MergeConflict(
                conflict.key,
                entry(conflict.base) if conflict.HasField("base") else None,
                entry(conflict.ours) if conflict.HasField("ours") else None,
                entry(conflict.theirs) if conflict.HasField("theirs") else None,
                conflict.values_omitted,
            )
            for conflict in message.conflicts
        ),
        message.conflict_count,
    )
