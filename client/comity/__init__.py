"""A client of Comity, the gRPC state-coordination server.

async with comity.connect("localhost:7171", namespace="research", author="planner") as state:
    await state.put("plan", {"step": 1})
"""

from typing import TYPE_CHECKING

from . import quiet as _quiet  # noqa: F401 - before anything imports gRPC

# What there is is imported when it is asked for, here as for type checkers: the server, the command line and the agents
# of a supervisor import a part of this package, and none should take its time for all of it.
if TYPE_CHECKING:
    from . import sync
    from .cell import Cell
    from .client import Client
    from .connecting import connect
    from .errors import (
        AlreadyExists,
        ComityError,
        Compacted,
        Conflict,
        DeadlineExceeded,
        DecodeError,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        LeaseLost,
        LeaseNotFound,
        NotFound,
        OutOfRange,
        PermissionDenied,
        RateLimited,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
    )
    from .leases.block import Leasing
    from .leases.guard import LeaseGuard
    from .leases.lease import Lease
    from .listing import BlameListing, DiffListing, HistoryListing, Listing
    from .model import (
        Attribution,
        Checkpoint,
        Commit,
        DeleteResult,
        Difference,
        Entry,
        Event,
        EventCause,
        EventType,
        FailedCondition,
        GetResult,
        IncrementResult,
        LeaseInfo,
        ListResult,
        MergeConflict,
        MergeResult,
        MergeStrategy,
        Namespace,
        OperationResult,
        PutResult,
        RestoreResult,
        Resync,
        TransactionResult,
    )
    from .operations import Condition, Delete, Get, Increment, Key, List, Operation, Prefix, Put
    from .request_ids import RequestId
    from .server_status import Histogram, MethodStats, NamespaceStats, ServerStatus
    from .tls import TLS
    from .tokens import TokenFile
    from .transaction import Entries, Transaction
    from .watch import Watch

    __version__: str
else:
    _WHERE = {
        "cell": "Cell",
        "client": "Client",
        "connecting": "connect",
        "errors": (
            "AlreadyExists ComityError Compacted Conflict DeadlineExceeded DecodeError FailedPrecondition "
            "Internal InvalidArgument LeaseLost LeaseNotFound NotFound OutOfRange PermissionDenied RateLimited "
            "ResourceExhausted Unauthenticated Unavailable Unimplemented Violation"
        ),
        "leases.block": "Leasing",
        "leases.guard": "LeaseGuard",
        "leases.lease": "Lease",
        "listing": "BlameListing DiffListing HistoryListing Listing",
        "model": (
            "Attribution Checkpoint Commit DeleteResult Difference Entry Event EventCause EventType "
            "FailedCondition GetResult IncrementResult LeaseInfo ListResult MergeConflict MergeResult "
            "MergeStrategy Namespace OperationResult PutResult RestoreResult Resync TransactionResult"
        ),
        "operations": "Condition Delete Get Increment Key List Operation Prefix Put",
        "request_ids": "RequestId",
        "server_status": "Histogram MethodStats NamespaceStats ServerStatus",
        "tls": "TLS",
        "tokens": "TokenFile",
        "transaction": "Entries Transaction",
        "watch": "Watch",
    }
    _MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            value = version("comity")
        elif name in _MODULES:
            value = getattr(import_module(f"comity.{_MODULES[name]}"), name)
        elif name in _WHERE or name == "sync":
            value = import_module(f"comity.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "TLS",
    "AlreadyExists",
    "Attribution",
    "BlameListing",
    "Cell",
    "Checkpoint",
    "Client",
    "ComityError",
    "Commit",
    "Compacted",
    "Condition",
    "Conflict",
    "DeadlineExceeded",
    "DecodeError",
    "Delete",
    "DeleteResult",
    "DiffListing",
    "Difference",
    "Entries",
    "Entry",
    "Event",
    "EventCause",
    "EventType",
    "FailedCondition",
    "FailedPrecondition",
    "Get",
    "GetResult",
    "Histogram",
    "HistoryListing",
    "Increment",
    "IncrementResult",
    "Internal",
    "InvalidArgument",
    "Key",
    "Lease",
    "LeaseGuard",
    "LeaseInfo",
    "LeaseLost",
    "LeaseNotFound",
    "Leasing",
    "List",
    "ListResult",
    "Listing",
    "MergeConflict",
    "MergeResult",
    "MergeStrategy",
    "MethodStats",
    "Namespace",
    "NamespaceStats",
    "NotFound",
    "Operation",
    "OperationResult",
    "OutOfRange",
    "PermissionDenied",
    "Prefix",
    "Put",
    "PutResult",
    "RateLimited",
    "RequestId",
    "ResourceExhausted",
    "RestoreResult",
    "Resync",
    "ServerStatus",
    "TokenFile",
    "Transaction",
    "TransactionResult",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Watch",
    "connect",
    "sync",
]
