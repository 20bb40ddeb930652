"""A client of Comity, the gRPC state-coordination server.

async with comity.connect("localhost:7171", namespace="research", author="planner") as state:
    await state.put("plan", {"step": 1})
"""

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
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from .listing import HistoryListing, Listing
from .model import (
    Commit,
    DeleteResult,
    Entry,
    Event,
    EventCause,
    EventType,
    FailedCondition,
    GetResult,
    IncrementResult,
    ListResult,
    Namespace,
    OperationResult,
    PutResult,
    Resync,
    TransactionResult,
)
from .operations import Condition, Delete, Get, Increment, Key, List, Operation, Prefix, Put
from .request_ids import RequestId
from .transaction import Transaction
from .watch import Watch

__all__ = [
    "AlreadyExists",
    "Cell",
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
    "Entry",
    "Event",
    "EventCause",
    "EventType",
    "FailedCondition",
    "FailedPrecondition",
    "Get",
    "GetResult",
    "HistoryListing",
    "Increment",
    "IncrementResult",
    "Internal",
    "InvalidArgument",
    "Key",
    "List",
    "ListResult",
    "Listing",
    "Namespace",
    "NotFound",
    "Operation",
    "OperationResult",
    "OutOfRange",
    "PermissionDenied",
    "Prefix",
    "Put",
    "PutResult",
    "RequestId",
    "ResourceExhausted",
    "Resync",
    "Transaction",
    "TransactionResult",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Watch",
    "connect",
]
