"""Which gRPC code each error has, and what its trailer says."""

import math
from typing import NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from comity_server import errors

DOMAIN = "comity"
DETAILS_KEY = "grpc-status-details-bin"
DEFECT = "INTERNAL"  # the reason of what is no error of the tree

# Trailers are limited to 8 KiB in all. A message is in them twice, once with up to three bytes for each of its bytes,
# and the details are sent as base64: at the most this comes to 7 KiB.
MESSAGE_BYTES = 384
METADATA_BYTES = 1024
FIELD_BYTES = 96
DESCRIPTION_BYTES = 128
VIOLATIONS = 16  # of one request

# An error has the code of the nearest class above it that stands here.
CODES: dict[type[errors.StateError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.LeaseLost: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RequestIdForgotten: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotANumber: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotAFork: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.OutsideHistory: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineReached: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotImplementedYet: grpc.StatusCode.UNIMPLEMENTED,
}

# How long a client had better wait, in ms, before it tries again.
RETRY_DELAYS: dict[type[errors.StateError], int] = {
    errors.Overloaded: 100,
    errors.Draining: 500,
    errors.StoreUnavailable: 500,
    errors.TooManyCalls: 250,
}
RETRY_DELAY = 250
RETRY_DELAY_MOST = 24 * 3600 * 1000


class Answer(NamedTuple):
    """What a failed call is answered with; the arguments of `context.abort`."""

    code: grpc.StatusCode
    message: str
    trailer: tuple[tuple[str, bytes], ...]


def answer(error: errors.StateError, request_id: str = "") -> Answer:
    """What the client is told of an error, and by which id the log knows the call."""
    details: list[Message] = [
        ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={name: cut(value, METADATA_BYTES) for name, value in error.metadata.items()},
        )
    ]
    if isinstance(error, errors.InvalidRequest):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=cut(field, FIELD_BYTES), description=cut(description, DESCRIPTION_BYTES)
                    )
                    for field, description in error.violations[:VIOLATIONS]
                ]
            )
        )
    elif (milliseconds := retry_delay(error)) is not None:
        delay = Duration()
        delay.FromMilliseconds(milliseconds)
        details.append(RetryInfo(retry_delay=delay))
    return _pack(code(error), cut(error.message, MESSAGE_BYTES), details, request_id)


def code(error: errors.StateError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def limit(error: errors.StateError) -> str | None:
    """The setting that bounds what was too much, if that is the error."""
    return error.metadata["limit"] if isinstance(error, errors.TooManyCalls | errors.RateLimited) else None


def retry_delay(error: errors.StateError) -> int | None:
    """How long a client had better wait before it tries again, in ms. None: that alone would not help."""
    if isinstance(error, errors.RateLimited):
        return min(math.ceil(error.seconds * 1000), RETRY_DELAY_MOST)
    return RETRY_DELAYS.get(type(error), RETRY_DELAY if isinstance(error, errors.Unavailable) else None)


def internal(request_id: str) -> Answer:
    """What the client is told of a defect: where to look for it in the log, and nothing else."""
    info = ErrorInfo(reason=DEFECT, domain=DOMAIN, metadata={"error_id": request_id})
    return _pack(grpc.StatusCode.INTERNAL, f"internal error {request_id}", [info], request_id)


def cut(text: str, max_bytes: int) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if len(text) * 4 <= max_bytes:
        return text
    data = text.encode()
    if len(data) <= max_bytes:
        return text
    return data[: max_bytes - 3].decode(errors="ignore") + "\N{HORIZONTAL ELLIPSIS}"


def _pack(code: grpc.StatusCode, message: str, details: list[Message], request_id: str) -> Answer:
    if request_id:
        details.append(RequestInfo(request_id=request_id))
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return Answer(code, message, ((DETAILS_KEY, status.SerializeToString()),))
