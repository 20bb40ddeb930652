"""Every error that a caller can be told of, as one tree. services/status.py gives each its gRPC code, in one table.

StateError
├── InvalidRequest          a field is wrong; names each such field
│   └── RequestIdReused     the request id was another request's
├── Conflict                a condition on a key or prefix does not hold: somebody was faster
├── LeaseLost               the lease that guards the write has ended, or has another fence
├── RequestIdForgotten      the request id is below the lowest that its client awaits
├── NotANumber              an increment met something else than a whole number
├── NotAFork                a merge of what was not forked from there
├── NotFound
│   ├── NamespaceNotFound
│   ├── CheckpointNotFound
│   └── LeaseNotFound       it has ended, or there never was one
├── AlreadyExists
│   ├── NamespaceExists
│   └── CheckpointExists
├── OutsideHistory          a revision that cannot be read
│   ├── Compacted           below the floor
│   ├── RevisionInFuture    above the newest
│   └── EpochChanged        of another history
├── Exhausted               a limit of the server
│   ├── QuotaExceeded       keys or bytes of a namespace, leases, namespaces
│   ├── CommitTooLarge      a prefix delete, a restore or a merge of too much
│   ├── ResultTooLarge      a transaction that reads too much
│   ├── TransactionTooCostly  one that looks through too much
│   ├── ForkTooDeep         a fork of a fork of a fork …
│   ├── TooManyPipelines    of one connection
│   ├── TooManyCalls        open at a time; nothing was done
│   ├── RateLimited         operations or bytes in a time; nothing was done
│   └── StoreFull           the disk; nothing was done
├── Unavailable             nothing was done, or the request id tells; try again
│   ├── Overloaded
│   ├── RequestTimeout
│   ├── Draining
│   └── StoreUnavailable
├── DeadlinePassed          nothing was done
├── DeadlineReached         the server's own; what became of a write the request id tells
├── Unauthenticated         it is not known who calls
├── PermissionDenied        who calls may not do it
│   └── AuthorNotPrincipal  nor write in the name of another
└── NotImplementedYet       part of the contract, but not of this server
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from comity_server.words import figure


class Violation(NamedTuple):
    """What is wrong with one field, named by its path: `then[2].put.key`."""

    field: str
    description: str


class StateError(Exception):
    """The base of all. `message` is for people, `reason` and `metadata` are for programs."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {name: str(value) for name, value in metadata.items()}


class InvalidRequest(StateError):
    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{field}: {description}" for field, description in violations))
        self.violations: Sequence[Violation] = violations


class RequestIdReused(InvalidRequest):
    """`sequence` was that of another request of its client. `field` is where it stands in a request."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, sequence: int, field: str = "options.request_id.sequence") -> None:
        super().__init__(Violation(field, f"{sequence} was the sequence of another request of this client"))
        self.sequence = sequence


class Conflict(StateError):
    reason = "CONFLICT"


class LeaseLost(StateError):
    """`fence` is what a lease that lives does not have; 0: it has ended."""

    reason = "LEASE_LOST"

    def __init__(self, lease_id: int, fence: int = 0) -> None:
        said = f"does not have the fence {fence}" if fence else "has ended"
        super().__init__(f"lease {lease_id}, which guards the write, {said}; nothing was done", lease_id=lease_id)


class RequestIdForgotten(StateError):
    """`sequence` is below `awaited`, the lowest that is remembered of its client."""

    reason = "REQUEST_ID_FORGOTTEN"

    def __init__(self, sequence: int, awaited: int) -> None:
        super().__init__(
            f"request id {sequence} is below {awaited}, the lowest that is remembered of its client",
            sequence=sequence,
            awaited=awaited,
        )


class NotANumber(StateError):
    reason = "NOT_A_NUMBER"


class NotAFork(StateError):
    reason = "NOT_A_FORK"

    def __init__(self, namespace: str, parent: str) -> None:
        super().__init__(
            f"namespace {namespace} was not forked from namespace {parent} as it exists now",
            namespace=namespace,
            parent=parent,
        )


class NotFound(StateError):
    reason = "NOT_FOUND"


class NamespaceNotFound(NotFound):
    reason = "NAMESPACE_NOT_FOUND"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace} does not exist", namespace=namespace)


class CheckpointNotFound(NotFound):
    reason = "CHECKPOINT_NOT_FOUND"

    def __init__(self, checkpoint: str, namespace: str) -> None:
        super().__init__(
            f"there is no checkpoint {checkpoint} in namespace {namespace}", checkpoint=checkpoint, namespace=namespace
        )


class LeaseNotFound(NotFound):
    reason = "LEASE_NOT_FOUND"

    def __init__(self, lease_id: int, namespace: str) -> None:
        super().__init__(
            f"there is no lease {lease_id} in namespace {namespace}: it has ended, or there never was one",
            lease_id=lease_id,
            namespace=namespace,
        )


class AlreadyExists(StateError):
    reason = "ALREADY_EXISTS"


class NamespaceExists(AlreadyExists):
    reason = "NAMESPACE_EXISTS"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace} exists already", namespace=namespace)


class CheckpointExists(AlreadyExists):
    reason = "CHECKPOINT_EXISTS"

    def __init__(self, checkpoint: str, revision: int) -> None:
        super().__init__(
            f"checkpoint {checkpoint} exists already, of revision {revision}", checkpoint=checkpoint, revision=revision
        )


class OutsideHistory(StateError):
    reason = "OUTSIDE_HISTORY"


class Compacted(OutsideHistory):
    """`asked` is the revision that cannot be read, `revision` the newest one."""

    reason = "COMPACTED"

    def __init__(self, asked: int, floor: int, revision: int) -> None:
        super().__init__(
            f"revision {asked} was compacted: the state is kept from revision {floor}, commits after it",
            floor=floor,
            revision=revision,
        )


class RevisionInFuture(OutsideHistory):
    """`asked` is the revision that cannot be read, `revision` the newest one."""

    reason = "REVISION_IN_FUTURE"

    def __init__(self, asked: int, floor: int, revision: int) -> None:
        super().__init__(f"revision {asked} is in the future: the newest is {revision}", floor=floor, revision=revision)


class EpochChanged(OutsideHistory):
    """`epoch`, `floor` and `revision`, the newest one, are those of the history that there is now."""

    reason = "EPOCH_CHANGED"

    def __init__(self, epoch: str, floor: int, revision: int) -> None:
        super().__init__(
            "the namespace's history is another one than the one named: its state was lost, set back or copied since",
            epoch=epoch,
            floor=floor,
            revision=revision,
        )


class Exhausted(StateError):
    reason = "EXHAUSTED"


class QuotaExceeded(Exhausted):
    """`quota` is what there would be more of than `limit`, such as keys or bytes of a namespace; if it is of namespaces
    whose names begin alike, `prefix` is how."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, quota: str, limit: int, prefix: str = "") -> None:
        super().__init__(
            f"the quota of {limit} {quota}{f' {prefix}*' if prefix else ''} would be passed",
            quota=quota,
            limit=limit,
            **({"prefix": prefix} if prefix else {}),
        )


class CommitTooLarge(Exhausted):
    """`limit` is the most keys that it may change."""

    reason = "COMMIT_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the commit would change more than {limit} keys", limit=limit)


class ResultTooLarge(Exhausted):
    """`limit` is the most bytes that it may read."""

    reason = "RESULT_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the transaction's answer would be larger than {limit} bytes", limit=limit)


class TransactionTooCostly(Exhausted):
    """`limit` is the most keys and commits that it may look through."""

    reason = "TRANSACTION_TOO_COSTLY"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the transaction would look through more than {limit} keys and commits", limit=limit)


class ForkTooDeep(Exhausted):
    reason = "FORK_TOO_DEEP"

    def __init__(self, limit: int) -> None:
        super().__init__(f"a fork of a fork and so on may not be more than {limit} deep", limit=limit)


class TooManyPipelines(Exhausted):
    reason = "TOO_MANY_PIPELINES"

    def __init__(self, limit: int) -> None:
        super().__init__(f"a connection may have up to {limit} pipelines", limit=limit)


class TooManyCalls(Exhausted):
    """`limit` is the bound, as the settings call it, and `of` who has so many open; empty: all together."""

    reason = "TOO_MANY_CALLS"
    UNITS: ClassVar = {
        "max_calls": "calls open",
        "max_principal_calls": "calls open",
        "max_principal_streams": "streams open",
        "anybody_calls": "calls open that need no identity",
        "anybody_bytes": "bytes of calls in memory that need no identity",
        "max_bytes": "bytes of requests and answers in memory",
    }

    def __init__(self, limit: str, of: str, most: int) -> None:
        super().__init__(
            f"{of or 'the server'} has {most} {self.UNITS[limit]}, which is the most; nothing was done",
            limit=limit,
            of=of,
            most=most,
        )


class RateLimited(Exhausted):
    """`limit` is the bound, as the settings call it, and `of` the principal, address or namespace that it is on.
    `seconds` is when enough will be there."""

    reason = "RATE_LIMITED"
    seconds = 0.0

    def __init__(self, limit: str, of: str, rate: float, unit: str, seconds: float) -> None:
        super().__init__(
            f"{limit.removeprefix('rate_')} {of} has {figure(rate)} {unit} a second; nothing was done, and it may be"
            f" tried again in {figure(seconds, 3)} s",
            limit=limit,
            of=of,
            rate=figure(rate),
            unit=unit,
        )
        self.seconds = seconds


class StoreFull(Exhausted):
    reason = "STORE_FULL"


class Unavailable(StateError):
    reason = "UNAVAILABLE"


class Overloaded(Unavailable):
    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("too many writes are waiting; nothing was done")


class RequestTimeout(Unavailable):
    reason = "REQUEST_TIMEOUT"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request did not come within {figure(seconds)} s; nothing was done")


class Draining(Unavailable):
    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class StoreUnavailable(Unavailable):
    reason = "STORE_UNAVAILABLE"


class DeadlinePassed(StateError):
    reason = "DEADLINE_PASSED"

    def __init__(self) -> None:
        super().__init__("the time was up before the operation was begun; nothing was done")


class DeadlineReached(StateError):
    reason = "DEADLINE_REACHED"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the call took longer than {figure(seconds)} s, which is the most that one may; what became of a write its"
            " request id tells",
            seconds=figure(seconds),
        )


class NotImplementedYet(StateError):
    reason = "UNIMPLEMENTED"


class Unauthenticated(StateError):
    """Nobody has been shown to make the call, or somebody who is not known.

    Args:
        problem: with what was shown: missing, malformed, unknown or expired.
        why: the same for people, without anything of what was shown.
    """

    reason = "UNAUTHENTICATED"

    def __init__(self, problem: str, why: str) -> None:
        super().__init__(why, problem=problem)
        self.problem = problem


class PermissionDenied(StateError):
    """A principal lacks an access, READ, WRITE or ADMIN, to a key, to all keys under a prefix, or to the namespace."""

    reason = "PERMISSION_DENIED"

    def __init__(self, principal: str, access: str, namespace: str, **where: str) -> None:
        super().__init__(
            f"{principal or 'anonymous'} lacks {access} in namespace {namespace}"
            + "".join(f", {name} {value!r}" for name, value in where.items()),
            principal=principal,
            access=access,
            namespace=namespace,
            **where,
        )


class AuthorNotPrincipal(PermissionDenied):
    """Who writes says that another does."""

    reason = "AUTHOR_NOT_PRINCIPAL"

    def __init__(self, principal: str, author: str) -> None:
        StateError.__init__(
            self,
            f"{principal} cannot write as {author!r}: an author has to be {principal}, or {principal}/ and more",
            principal=principal,
            author=author,
        )
