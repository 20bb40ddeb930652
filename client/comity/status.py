"""From a gRPC status and its trailer to an error of this client."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError as MalformedMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from . import errors
from .unreachable import explained
from .v1 import state_pb2

__all__ = ["error_from_call", "error_from_result", "error_from_status", "is_retriable", "is_transient"]

Trailer = Iterable[tuple[str, str | bytes]]
Detail = TypeVar("Detail", bound=Message)

DETAILS = "grpc-status-details-bin"
DOMAIN = "comity"
OUT_OF_TIME = "Deadline Exceeded"  # gRPC's own text for it

BY_CODE: dict[grpc.StatusCode, type[errors.ComityError]] = {
    # Of a call that nobody here cancelled: gRPC's server does so with what it has no room for.
    grpc.StatusCode.CANCELLED: errors.Unavailable,
} | {
    error.default_code: error
    for error in (
        errors.Conflict,
        errors.InvalidArgument,
        errors.NotFound,
        errors.AlreadyExists,
        errors.OutOfRange,
        errors.ResourceExhausted,
        errors.FailedPrecondition,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Unimplemented,
        errors.Internal,
    )
}
BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# Fields of an operation of a pipeline, as requests have them.
FIELDS = {
    "message": "options.message",
    "ttl_ms": "ttl",
    "guard_lease_id": "options.guard.lease_id",
    "guard_fence": "options.guard.fence",
}
BY_REASON: dict[str, type[errors.ComityError]] = {
    "COMPACTED": errors.Compacted,
    "EPOCH_CHANGED": errors.Compacted,
    "LEASE_LOST": errors.LeaseLost,
    "LEASE_NOT_FOUND": errors.LeaseNotFound,
}

# What gRPC says of a message that its reader does not take. Only newer ones say who that is.
TOO_LARGE = re.compile(r"(?:(SERVER|CLIENT): )?Received message larger than max \((\d+) vs\. (\d+)\)")

# What gRPC says of an answer that is HTTP, and not gRPC.
OF_HTTP = re.compile(r"Received http2 header with status: (\d+)")

# What gRPC says when a connection broke under a call, with a code that may mean other things too.
BROKEN_CODES = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
BROKEN_WORDS = (
    "rst_stream",
    "stream removed",
    "goaway",
    "socket closed",
    "connection reset",
    "broken pipe",
    "internal error from core",  # of a write to a stream that has ended, whose status it hides
)


def error_from_status(code: grpc.StatusCode, message: str | None, trailer: Trailer) -> errors.ComityError:
    """The error for a gRPC status. Details that are missing, malformed or of another domain are left out.

    A code that has no class of its own (UNKNOWN, DATA_LOSS) becomes Internal, with that code.
    """
    details = _details(trailer)
    info = _detail(details, error_details_pb2.ErrorInfo)
    if info is not None and info.domain != DOMAIN:
        info = None
    violations = _detail(details, error_details_pb2.BadRequest)
    retry = _detail(details, error_details_pb2.RetryInfo)
    request = _detail(details, error_details_pb2.RequestInfo)

    reason = "" if info is None else info.reason
    kind = BY_REASON.get(reason) or BY_CODE.get(code, errors.Internal)
    if retry is not None and kind is errors.ResourceExhausted:
        kind = errors.RateLimited
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason:
        message = _too_large(message or "")
    return kind(
        message or code.name,
        code=code,
        reason=reason,
        metadata=None if info is None else info.metadata,
        violations=()
        if violations is None
        else tuple(errors.Violation(found.field, found.description) for found in violations.field_violations),
        retry_delay=None if retry is None else retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9,
        request_id="" if request is None else request.request_id,
    )


def error_from_call(error: grpc.aio.AioRpcError, address: str) -> errors.ComityError:
    """The error for what a call of grpc.aio to this address raised."""
    made = error_from_status(error.code(), error.details(), error.trailing_metadata() or ())
    if isinstance(made, errors.Unavailable) and not made.reason:
        why = explained(made.message, address)
        if why is not None:
            return errors.Unavailable(why.message, reason=why.reason)
    if not made.reason and (answered := OF_HTTP.search(made.message)):
        return type(made)(
            f"what answers at {address} is no gRPC server, or a proxy that does not reach one: HTTP {answered[1]}",
            code=made.code,
        )
    if isinstance(made, errors.DeadlineExceeded) and made.message == OUT_OF_TIME:
        return errors.DeadlineExceeded(f"no answer from {address} in time")
    return made


def error_from_result(result: state_pb2.PipelineResult, request_id: str) -> errors.ComityError:
    """The error for what a pipeline says of an operation: the one that a call by itself would raise.

    request_id: of the pipeline.
    """
    said = result.error
    code = BY_NUMBER.get(result.code, grpc.StatusCode.UNKNOWN)
    kind = BY_REASON.get(said.reason) or BY_CODE.get(code, errors.Internal)
    if said.HasField("retry_delay") and kind is errors.ResourceExhausted:
        kind = errors.RateLimited
    message = said.message or code.name
    for field in FIELDS.keys() & said.violations.keys():
        message = message.replace(f"{field}: {said.violations[field]}", f"{FIELDS[field]}: {said.violations[field]}")
    return kind(
        message,
        code=code,
        reason=said.reason,
        metadata=said.metadata,
        violations=tuple(
            errors.Violation(FIELDS.get(field, field), description)
            for field, description in sorted(said.violations.items())
        ),
        retry_delay=said.retry_delay.seconds + said.retry_delay.nanos / 1e9 if said.HasField("retry_delay") else None,
        request_id=request_id,
    )


def is_transient(error: errors.ComityError) -> bool:
    """Whether the same request may well succeed a little later: the server was away, or the connection broke."""
    if isinstance(error, errors.Unavailable):
        return True
    if error.code not in BROKEN_CODES or error.reason:
        return False
    message = error.message.lower()
    return any(word in message for word in BROKEN_WORDS)


def is_retriable(error: errors.ComityError) -> bool:
    """The same, or the server had no room for it just then."""
    return is_transient(error) or isinstance(error, errors.RateLimited)


def _too_large(message: str) -> str:
    """In plain words that a message is too large, if that is what gRPC says."""
    found = TOO_LARGE.fullmatch(message)
    if found is None:
        return message
    reader, size, most = found.groups()
    whose = {"SERVER": "the request", "CLIENT": "the answer"}.get(reader, "a message")
    by = {"SERVER": "the server", "CLIENT": "this client"}.get(reader, "its reader")
    return f"{whose} has {size} bytes, and {by} takes no more than {most} in one message"


def _details(trailer: Trailer) -> Sequence[Any]:
    for name, value in trailer:
        if name == DETAILS and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except MalformedMessage:
                return ()
    return ()


def _detail(details: Sequence[Any], kind: type[Detail]) -> Detail | None:
    for packed in details:
        detail = kind()
        try:
            if packed.Unpack(detail):
                return detail
        except MalformedMessage:
            return None
    return None
