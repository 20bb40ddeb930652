"""A client of Comity, the gRPC state-coordination server.

async with comity.connect("localhost:7171", namespace="research", author="planner") as state:
    await state.put("plan", {"step": 1})
"""

from typing import TYPE_CHECKING

from . import quiet as _quiet  # noqa: F401 - before anything imports gRPC
from .cell import Cell
from .client import Client
from .connect import connect
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

if TYPE_CHECKING:
    from . import sync

    __version__: str
else:

    def __getattr__(name: str) -> object:
        # Looked up when asked for: few ask, and it takes as long as many an import.
        if name == "sync":
            from importlib import import_module

            return import_module("comity.sync")
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("comity")


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
