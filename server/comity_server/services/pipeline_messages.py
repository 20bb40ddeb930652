"""The operations of a pipeline, from their flat messages to the words of `comity_server.model`, and what they answer.

Each field is read once, and only those that the kind of the operation names.
"""

from typing import Any, Final, NamedTuple

from comity.v1 import state_pb2
from comity_server.access.rights import EVERYTHING, READ_WRITE, WRITE
from comity_server.errors import Conflict, InvalidRequest, RequestIdReused, StateError
from comity_server.model import (
    Condition,
    Delete,
    DeleteResult,
    Get,
    GetResult,
    Guard,
    Increment,
    IncrementResult,
    ListResult,
    Operator,
    Outcome,
    Put,
    PutResult,
    RequestId,
    Test,
    Transaction,
)
from comity_server.record import LARGEST_INTEGER, Record, shown_size
from comity_server.services import owners, requests, status, wire
from comity_server.services.conflicts import conflict
from comity_server.services.pipeline_failures import Failures
from comity_server.services.validate import MESSAGE_BYTES, Checks

GET: Final = state_pb2.PIPELINE_KIND_GET
PUT: Final = state_pb2.PIPELINE_KIND_PUT
CREATE: Final = state_pb2.PIPELINE_KIND_CREATE
DELETE: Final = state_pb2.PIPELINE_KIND_DELETE
INCREMENT: Final = state_pb2.PIPELINE_KIND_INCREMENT
LIST: Final = state_pb2.PIPELINE_KIND_LIST
TRANSACT: Final = state_pb2.PIPELINE_KIND_TRANSACT

# What an operation is answered with: its id, its kind, and of which sort the rest is.
#   a write, or a read among the writes: the transaction, and its Outcome or StateError
#   another read (STORED): the entry or None, and the revision
#   a list: the page, and its size in bytes
#   what failed before it was begun, of a kind that need not be known (0 or more): None, and the StateError
Result = tuple[int, int, Any, Any]

STORED: Final = -1  # in place of the kind: a get that was answered from the store

PARTS: Final = 1000  # operations, conditions and results that are gone through in one go: about 3 ms
RESULT_BYTES: Final = 48  # about what a result takes beside entries
ENTRY_BYTES: Final = 130  # about what an entry takes in memory beside what it shows
_ABSENT: Final = (Test.VERSION, 0, Operator.EQUAL, False)
_NO_CONDITIONS: Final = ()


class Writer(NamedTuple):
    """What holds for all writes of a stream."""

    client: str
    author: str
    message: str
    trace_parent: str


def write(
    operation: state_pb2.PipelineOperation, kind: int, id: int, awaited: int, writer: Writer, checks: Checks
) -> Transaction:
    """What an operation of a kind that writes asks for."""
    if kind == TRANSACT:
        transact = operation.transact
        if transact.namespace or transact.HasField("options"):
            checks.wrong("transact", "must have neither namespace nor options here")
        asked = requests.transaction(transact, (), checks)
        conditions, then, otherwise, owner = asked.conditions, asked.then, asked.otherwise, asked.lease_owner
    else:
        key = operation.key
        if (  # as nearly none is
            not key
            or len(key) > checks.limits.key_bytes
            or not key.isascii()
            or "\0" in key
            or checks.rights is not EVERYTHING
        ):
            checks.key("key", key, READ_WRITE if kind == INCREMENT or operation.return_previous else WRITE)
        otherwise = ()
        if kind in (PUT, CREATE):
            then = (_put(operation, key, checks),)
        elif kind == DELETE:
            then = (Delete(key, operation.return_previous),)
        else:
            delta = operation.delta
            if abs(delta) > LARGEST_INTEGER:
                checks.wrong("delta", f"must be from -{LARGEST_INTEGER} to {LARGEST_INTEGER}")
            then = (Increment(key, delta),)
        conditions = _conditions(operation, kind, key, checks) if kind != INCREMENT else _NO_CONDITIONS
        owner = owners.of_keys(then, checks)
    client, author, message, trace_parent = writer
    said = operation.message
    if said:
        checks.text("message", said, MESSAGE_BYTES)
        message = said
    parent = operation.trace_parent
    if parent and requests.TRACE_PARENT.fullmatch(parent):
        trace_parent = parent
    guard = None
    if guard_lease_id := operation.guard_lease_id:
        guard_fence = operation.guard_fence
        checks.lease_id("guard_lease_id", guard_lease_id)
        checks.count("guard_fence", guard_fence)
        guard = Guard(guard_lease_id, guard_fence)
    checks.finish()
    request_id = RequestId(client, id, awaited) if client else None
    return Transaction(conditions, then, otherwise, request_id, author, message, trace_parent, guard, owner)


def read(key: str) -> Transaction:
    """A get that has its turn among the writes."""
    return Transaction((), (Get(key),))


def _put(operation: state_pb2.PipelineOperation, key: str, checks: Checks) -> Put:
    value, content_type, lease_id = operation.value, operation.content_type, operation.lease_id
    if len(value) > checks.limits.value_bytes:
        checks.value("value", value)
    if content_type:
        checks.content_type("content_type", content_type)
    if lease_id:
        checks.lease_id("lease_id", lease_id)
    ttl = operation.ttl_ms
    if ttl:
        ttl = checks.lease_micros("ttl_ms", ttl * 1000)
        if lease_id:
            checks.wrong("ttl_ms", "must not be set together with lease_id")
    return Put(key, value, content_type, lease_id, operation.return_previous, ttl)


def _conditions(operation: state_pb2.PipelineOperation, kind: int, key: str, checks: Checks) -> tuple[Condition, ...]:
    if kind == CREATE:
        return (Condition(key, *_ABSENT),)
    version, revision = operation.if_version, operation.if_revision
    if not version and not revision:
        return _NO_CONDITIONS
    checks.count("if_version", version)
    checks.count("if_revision", revision)
    conditions = []
    if version:
        conditions.append(Condition(key, Test.VERSION, version))
    if revision:
        conditions.append(Condition(key, Test.MOD_REVISION, revision))
    return tuple(conditions)


def entry_bytes(outcome: Outcome | StateError) -> int:
    """About how much memory the entries hold that it answers with."""
    if isinstance(outcome, StateError):
        return 0
    total = 0
    for result in outcome.results:
        match result:
            case PutResult(previous=entry) | GetResult(entry):
                if entry is not None:
                    total += ENTRY_BYTES + shown_size(entry)
            case ListResult(entries) | DeleteResult(_, entries):
                total += sum(map(shown_size, entries), ENTRY_BYTES * len(entries))
            case _:
                pass
    if outcome.failed:
        total += sum(shown_size(failed.current) for failed in outcome.failed if failed.current is not None)
    return total


def fill_read(result: state_pb2.PipelineResult, entry: Record | None, revision: int) -> int:
    """Set what a get answers. Returns about how many bytes it takes, as the others do."""
    result.revision = revision
    if entry is None:
        return RESULT_BYTES
    wire.fill_entry(result.entry, entry)
    return RESULT_BYTES + shown_size(entry)


def fill_outcome(
    result: state_pb2.PipelineResult,
    kind: int,
    transaction: Transaction,
    outcome: Outcome | StateError,
    failures: Failures,
) -> int:
    """Set what an operation answers that the committer had."""
    if isinstance(outcome, StateError):
        return fill_error(result, kind, outcome, failures)
    if kind == TRANSACT:
        wire.fill_transact(result.transact, outcome)
        result.revision = outcome.revision
        return result.ByteSize()
    if outcome.failed:
        return fill_error(result, kind, conflict(transaction, outcome), failures)
    result.revision = outcome.revision
    answer = outcome.results[0]
    match answer:
        case PutResult(version, previous, lease_id):
            result.version = version
            result.lease_id = lease_id
        case GetResult(previous):
            pass
        case IncrementResult(value, version):
            result.version = version
            result.value = value
            return RESULT_BYTES
        case DeleteResult(deleted, shown):
            result.version = deleted
            previous = shown[0] if shown else None
        case _:
            raise AssertionError(f"{type(answer).__name__} of an operation of kind {kind}")
    if previous is None:
        return RESULT_BYTES
    wire.fill_entry(result.entry, previous)
    return RESULT_BYTES + shown_size(previous)


def fill_error(result: state_pb2.PipelineResult, kind: int, error: StateError, failures: Failures) -> int:
    """Set why an operation failed, as a trailer says it of a call. `failures` are told."""
    failures.add(kind, error)
    if isinstance(error, RequestIdReused):
        error = RequestIdReused(error.sequence, "id")
    result.code = status.code(error).value[0]
    filled = result.error
    filled.reason = error.reason
    filled.message = status.cut(error.message, status.MESSAGE_BYTES)
    for name, value in error.metadata.items():
        filled.metadata[name] = status.cut(value, status.METADATA_BYTES)
    if isinstance(error, InvalidRequest):
        for field, description in error.violations[: status.VIOLATIONS]:
            filled.violations[status.cut(field, status.FIELD_BYTES)] = status.cut(description, status.DESCRIPTION_BYTES)
    elif (delay := status.retry_delay(error)) is not None:
        filled.retry_delay.FromMilliseconds(delay)
    elif isinstance(error, Conflict):
        result.revision = int(error.metadata.get("mod_revision", 0))
        result.version = int(error.metadata.get("version", 0))
    return RESULT_BYTES + filled.ByteSize()
