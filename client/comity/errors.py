"""Every error that this client raises, as one tree.

ComityError
├── Conflict             somebody was faster: a condition of the write did not hold
├── InvalidArgument      the request is wrong; names the fields at fault
├── NotFound             the namespace or the checkpoint does not exist, or a cell holds nothing
│   └── LeaseNotFound    the lease has ended, or there never was one
├── AlreadyExists        the name of a checkpoint or a fork is taken
├── OutOfRange           a revision that cannot be read
│   └── Compacted        ... since it is below the floor, or of a history that is gone
├── ResourceExhausted    a quota or a limit of the server
│   └── RateLimited      ... of calls at a time or a second: a little later there is room again
├── FailedPrecondition   the state does not allow it, such as an increment of what is no number
│   └── LeaseLost        a lease that is held, or that guards a write, has ended
├── Unauthenticated      the server does not know who asks: no token or certificate, or none that it takes
├── PermissionDenied     the server knows who asks, and does not allow it
├── Unavailable          no server could be reached, or it is not serving now
├── DeadlineExceeded     the time was up; a write may or may not have been applied
├── Unimplemented
├── Internal             the server failed; its log has the rest under metadata["error_id"]
└── DecodeError          a stored value is not what its content type or the cell's type says

Cancellation is no error of this tree: it stays asyncio.CancelledError.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import grpc

__all__ = [
    "AlreadyExists",
    "ComityError",
    "Compacted",
    "Conflict",
    "DeadlineExceeded",
    "DecodeError",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "LeaseLost",
    "LeaseNotFound",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "RateLimited",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
]


class Violation(NamedTuple):
    """What is wrong with one field of a request, named by its path: `then[2].put.key`."""

    field: str
    description: str


class ComityError(Exception):
    """The base of all errors of this client.

    `message` is for people. `code` (the gRPC status), `reason` (UPPER_SNAKE_CASE; empty where gRPC says none) and
    `metadata` are for programs. `retry_delay` is how many seconds the server asked to wait before the next try; None if
    it said nothing. `request_id` is by which the server's log knows the call that it answered so; empty where the error
    is not of its making. Calls that share a stream share that of the stream. What gRPC said is in the `__cause__`.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_delay: float | None = None,
        request_id: str = "",
    ) -> None:
        # Only `message` goes to Exception: pickle calls the class with it, and brings the rest by __dict__.
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_delay = retry_delay
        self.request_id = request_id

    def _number(self, name: str) -> int | None:
        text = self.metadata.get(name)
        return None if text is None else int(text)


class Conflict(ComityError):
    """A condition of the write did not hold: somebody was faster. Nothing was written.

    Also raised when a transaction function was re-run until its time was up, and lost every time.
    """

    default_code = grpc.StatusCode.ABORTED

    @property
    def key(self) -> str | None:
        """The key that the condition was on; None if it was on a prefix or a namespace."""
        return self.metadata.get("key")

    @property
    def version(self) -> int | None:
        """The version that the key has (0: it does not exist)."""
        return self._number("version")

    @property
    def mod_revision(self) -> int | None:
        """The revision of the key's last write (0: it does not exist)."""
        return self._number("mod_revision")

    @property
    def prefix(self) -> str | None:
        """The prefix that the condition was on; None if it was on a key or a namespace."""
        return self.metadata.get("prefix")

    @property
    def changed_revision(self) -> int | None:
        """The newest revision that changed something under the prefix."""
        return self._number("changed_revision")

    @property
    def revision(self) -> int | None:
        """The namespace's newest revision when the condition was judged."""
        return self._number("revision")


class InvalidArgument(ComityError):
    """The request is wrong, whatever the state is. `violations` names the fields at fault."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ComityError):
    """The namespace or the checkpoint does not exist, or a cell without a default holds nothing."""

    default_code = grpc.StatusCode.NOT_FOUND


class LeaseNotFound(NotFound):
    """The lease has ended, or there never was one."""

    @property
    def lease_id(self) -> int | None:
        """Which one."""
        return self._number("lease_id")


class AlreadyExists(ComityError):
    """The name of a checkpoint or a fork is taken."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class OutOfRange(ComityError):
    """The revision cannot be read. Reason REVISION_IN_FUTURE: it is above the newest one."""

    default_code = grpc.StatusCode.OUT_OF_RANGE

    @property
    def floor(self) -> int | None:
        """The oldest revision that can be read."""
        return self._number("floor")

    @property
    def revision(self) -> int | None:
        """The newest revision."""
        return self._number("revision")


class Compacted(OutOfRange):
    """The revision cannot be read any more: it is below the floor (reason COMPACTED), or of a history that is gone,
    as after a new start of a server that keeps its state in memory (reason EPOCH_CHANGED)."""


class ResourceExhausted(ComityError):
    """A quota of the namespace or a limit of the server would be passed, or a message is larger than gRPC may carry."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class RateLimited(ResourceExhausted):
    """Too many calls at a time or a second, by this caller or by all.

    The client has tried again by itself, for as long as the timeout lasts. Nothing was done: where a try before had no
    answer, DeadlineExceeded is raised instead.
    """

    @property
    def retry_after(self) -> float:
        """Seconds after which there is room again, as the server says."""
        return self.retry_delay or 0.0


class FailedPrecondition(ComityError):
    """The state does not allow this, such as an increment of what is no number (reason NOT_A_NUMBER), or a merge of
    what is no fork of the namespace (reason NOT_A_FORK)."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class LeaseLost(FailedPrecondition):
    """A lease has ended that is held, or that a write needs to live (or it has another fence than the write needs);
    nothing was written. Or it must be taken for lost, since nothing was heard of it for as long as it lives."""

    @property
    def lease_id(self) -> int | None:
        """Which one."""
        return self._number("lease_id")


class Unauthenticated(ComityError):
    """The server does not know who asks: a token or a client certificate is missing, or is none that it takes."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ComityError):
    """The server knows who asks, and does not allow this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED

    @property
    def principal(self) -> str | None:
        """Who asks, as the server knows it."""
        return self.metadata.get("principal")

    @property
    def namespace(self) -> str | None:
        """Where it was asked for."""
        return self.metadata.get("namespace")


class Unavailable(ComityError):
    """No server could be reached (reason UNREACHABLE; TLS_FAILED where it was, and no connection by TLS could be made),
    or none that serves, until the time was up.

    A write may have been applied anyway.
    """

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ComityError):
    """The time was up before an answer came. A write may have been applied all the same, or be applied yet, unless the
    reason is DEADLINE_PASSED. What failed another try of the same call is the `__cause__`, and in the message."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(ComityError):
    """The server does not know this call or this option."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class Internal(ComityError):
    """The server failed, or something between it and the client did."""

    default_code = grpc.StatusCode.INTERNAL


class DecodeError(ComityError, ValueError):
    """A stored value is not what its content type, or the type of the cell, says that it is. The key is in the message
    and in metadata["key"]."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
