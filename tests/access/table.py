"""What each call needs: a table of calls, and of principals who may do some of what is needed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import lease_pb2 as le
from comity.v1 import namespace_pb2 as n
from comity.v1 import server_pb2 as sv
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t

OK = grpc.StatusCode.OK
ABORTED = grpc.StatusCode.ABORTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED

TEAM, FORK, OTHER = "team", "team-fork", "other"

READ, WRITE, ADMIN = "read", "write", "admin"

# Who may do what: of each namespace, under which prefixes.
Grants = dict[str, dict[str, list[str]]]
PRINCIPALS: dict[str, Grants] = {
    "": {TEAM: {READ: ["public/"]}},  # nobody in particular
    "stranger": {},
    "reads-in": {TEAM: {READ: ["in/"]}},
    "writes-in": {TEAM: {WRITE: ["in/"]}},
    "works-in": {TEAM: {READ: ["in/"], WRITE: ["in/"]}},
    "splits-in": {TEAM: {READ: ["in/"], WRITE: ["out/"]}},
    "reads": {TEAM: {READ: [""]}},
    "writes": {TEAM: {WRITE: [""]}},
    "works": {TEAM: {READ: [""], WRITE: [""]}},
    "forks": {TEAM: {READ: [""]}, FORK: {WRITE: [""]}},
    "merges": {TEAM: {READ: [""], WRITE: [""]}, FORK: {READ: [""]}},
    "previews": {TEAM: {READ: [""]}, FORK: {READ: [""]}},
    "administers": {TEAM: {ADMIN: [""]}},
    "elsewhere": {OTHER: {READ: [""], WRITE: [""], ADMIN: [""]}},
    "operator": {"*": {ADMIN: [""]}},
}


class Need(NamedTuple):
    """What a principal needs: an access to the keys under a prefix."""

    access: str
    of: str
    """As the page says it."""
    prefix: str | None
    """None: to any keys."""
    namespace: str = TEAM


def key(access: str, key: str = "in/key") -> Need:
    return Need(access, "the key", key)


def prefix(access: str, prefix: str = "in/") -> Need:
    return Need(access, "the prefix", prefix)


def whole(access: str, of: str = "all keys", namespace: str = TEAM) -> Need:
    return Need(access, of, "", namespace)


def anything(access: str) -> Need:
    return Need(access, "anything", None)


class Row(NamedTuple):
    """A call, and what it needs."""

    title: str
    """As the page says it: it begins with the RPC."""
    needs: Sequence[Need]
    request: Any
    code: grpc.StatusCode = OK
    """What it is answered who may make it."""
    documented: bool = True
    """Whether the page has a line for it; else it is another case of one that has."""


class Operation(NamedTuple):
    """A write or read of keys, which may be a call of its own, or one of many."""

    title: str
    needs: Sequence[Need]
    call: Any = None
    """The request of its own call."""
    transact: dict[str, Any] | None = None
    """The same in a transaction."""
    pipeline: s.PipelineOperation | None = None
    """The same on a pipeline."""
    documented: bool = True


PUT, GET, DELETE = s.PIPELINE_KIND_PUT, s.PIPELINE_KIND_GET, s.PIPELINE_KIND_DELETE
LIST, INCREMENT, TRANSACT = s.PIPELINE_KIND_LIST, s.PIPELINE_KIND_INCREMENT, s.PIPELINE_KIND_TRANSACT
CREATE = s.PIPELINE_KIND_CREATE


def then(**operation: Any) -> dict[str, Any]:
    return {"then": [s.Operation(**operation)]}


def on(kind: Any, **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(id=1, kind=kind, **fields)


def of(**fields: Any) -> dict[str, Any]:
    return {"namespace": TEAM, **fields}


K: dict[str, Any] = {"key": "in/key"}
P: dict[str, Any] = {"prefix": "in/"}

OPERATIONS = [
    Operation("Get", [key(READ)], s.GetRequest(**of(**K)), then(get=s.GetOperation(**K)), on(GET, **K)),
    Operation("Get", [key(READ, "out/key")], s.GetRequest(**of(key="out/key")), documented=False),
    Operation("Get", [key(READ, "in")], s.GetRequest(**of(key="in")), documented=False),
    Operation("Get", [key(READ, "public/1")], s.GetRequest(**of(key="public/1")), documented=False),
    Operation(
        "Get", [key(READ)], s.GetRequest(**of(**K, revision=1)), None, on(GET, **K, revision=1), documented=False
    ),
    Operation(
        "List",
        [prefix(READ)],
        s.ListRequest(**of(**P)),
        then(list=s.ListOperation(**P)),
        on(LIST, list=s.ListRequest(**P)),
    ),
    Operation(
        "List",
        [prefix(READ, "")],
        s.ListRequest(**of(keys_only=True)),
        then(list=s.ListOperation(keys_only=True)),
        on(LIST, list=s.ListRequest()),
        documented=False,
    ),
    Operation(
        "List",
        [prefix(READ, "in")],
        s.ListRequest(**of(prefix="in")),
        then(list=s.ListOperation(prefix="in")),
        on(LIST, list=s.ListRequest(prefix="in")),
        documented=False,
    ),
    Operation(
        "Put",
        [key(WRITE)],
        s.PutRequest(**of(**K)),
        then(put=s.PutOperation(**K)),
        on(PUT, **K),
    ),
    Operation("Put", [key(WRITE)], s.PutRequest(**of(**K, if_revision=0)), None, on(PUT, **K, if_version=1), False),
    Operation("Put", [key(WRITE)], None, None, on(CREATE, **K), documented=False),
    Operation(
        "Put with `return_previous`",
        [key(READ), key(WRITE)],
        s.PutRequest(**of(**K, return_previous=True)),
        then(put=s.PutOperation(**K, return_previous=True)),
        on(PUT, **K, return_previous=True),
    ),
    Operation(
        "Delete of a key",
        [key(WRITE)],
        s.DeleteRequest(**of(**K)),
        then(delete=s.DeleteOperation(**K)),
        on(DELETE, **K),
    ),
    Operation(
        "Delete of a key with `return_previous`",
        [key(READ), key(WRITE)],
        s.DeleteRequest(**of(**K, return_previous=True)),
        then(delete=s.DeleteOperation(**K, return_previous=True)),
        on(DELETE, **K, return_previous=True),
    ),
    Operation(
        "Delete of a prefix",
        [prefix(WRITE)],
        s.DeleteRequest(**of(**P)),
        then(delete=s.DeleteOperation(**P)),
    ),
    Operation(
        "Delete of a prefix",
        [prefix(WRITE, "i")],
        s.DeleteRequest(**of(prefix="i")),
        then(delete=s.DeleteOperation(prefix="i")),
        documented=False,
    ),
    Operation(
        "Delete of a prefix with `return_previous`",
        [prefix(READ), prefix(WRITE)],
        s.DeleteRequest(**of(**P, return_previous=True)),
        then(delete=s.DeleteOperation(**P, return_previous=True)),
    ),
    Operation(
        "Transact: an increment",
        [key(READ, "in/number"), key(WRITE, "in/number")],
        None,
        then(increment=s.IncrementOperation(key="in/number", delta=1)),
        on(INCREMENT, key="in/number", delta=1),
    ),
    Operation(
        "Transact: a condition on a key",
        [key(READ)],
        None,
        {"conditions": [s.Condition(**K, exists=True)]},
    ),
    Operation(
        "Transact: a condition on a prefix",
        [prefix(READ)],
        None,
        {"conditions": [s.Condition(**P, unchanged_since=1)]},
    ),
    Operation(
        "Transact: other operations",
        [key(READ, "in/1"), key(WRITE, "in/2")],
        None,
        {
            "then": [s.Operation(get=s.GetOperation(key="in/1"))],
            "otherwise": [s.Operation(put=s.PutOperation(key="in/2"))],
        },
        documented=False,
    ),
    Operation(
        "Transact: other operations",
        [key(WRITE, "in/1"), key(WRITE, "out/1"), key(READ, "in/1")],
        None,
        {
            "conditions": [s.Condition(key="in/1", exists=True)],
            "then": [s.Operation(put=s.PutOperation(key="in/1"))],
            "otherwise": [s.Operation(put=s.PutOperation(key="out/1"))],
        },
        documented=False,
    ),
]

SECOND = Duration(seconds=60)
REF = t.Ref(revision=1)

ROWS = [
    *(
        Row(each.title, each.needs, each.call, documented=each.documented)
        for each in OPERATIONS
        if each.call is not None
    ),
    Row("Transact", [anything("read or write")], s.TransactRequest(**of())),
    Row("Watch of a key", [key(READ)], s.WatchRequest(**of(**K))),
    Row("Watch of a prefix", [prefix(READ)], s.WatchRequest(**of(**P))),
    Row("Watch of a prefix", [prefix(READ, "")], s.WatchRequest(**of(prefix="")), documented=False),
    Row("Watch of a prefix", [prefix(READ)], s.WatchRequest(**of(**P, from_revision=2)), documented=False),
    Row("Pipeline", [anything("read or write")], s.PipelineRequest(**of(operations=[on(GET, key="nowhere/1")]))),
    Row("History", [prefix(READ)], s.HistoryRequest(**of(**P))),
    Row("History", [prefix(READ, "")], s.HistoryRequest(**of(previous=True)), documented=False),
    Row("Blame", [prefix(READ)], s.BlameRequest(**of(**P))),
    Row("Blame", [prefix(READ, "")], s.BlameRequest(**of()), documented=False),
    Row("Checkpoint", [whole(WRITE)], c.CheckpointRequest(**of(name="mark")), ALREADY_EXISTS),
    Row("GetCheckpoint", [anything(READ)], c.GetCheckpointRequest(**of(name="mark"))),
    Row("GetCheckpoint", [anything(READ)], c.GetCheckpointRequest(**of(name="none")), NOT_FOUND, documented=False),
    Row("ListCheckpoints", [anything(READ)], c.ListCheckpointsRequest(**of())),
    Row("DeleteCheckpoint", [whole(WRITE)], c.DeleteCheckpointRequest(**of(name="none")), NOT_FOUND),
    Row("Restore", [prefix(READ), prefix(WRITE)], c.RestoreRequest(**of(**P, ref=REF, if_revision=1)), ABORTED),
    Row(
        "Restore", [prefix(READ, ""), prefix(WRITE, "")], c.RestoreRequest(**of(ref=REF, if_revision=1)), ABORTED, False
    ),
    Row("Restore with `dry_run`", [prefix(READ)], c.RestoreRequest(**of(**P, ref=REF, dry_run=True))),
    Row("Diff", [prefix(READ)], c.DiffRequest(**of(**P, base=REF))),
    Row("Diff", [prefix(READ, "")], c.DiffRequest(**of(base=t.Ref(checkpoint="none"))), NOT_FOUND, documented=False),
    Row("GetNamespace", [anything("read or write or admin")], n.GetNamespaceRequest(**of())),
    Row("ListNamespaces", [], n.ListNamespacesRequest()),
    Row("DeleteNamespace", [whole(ADMIN, "the namespace")], n.DeleteNamespaceRequest(**of(if_revision=1)), ABORTED),
    Row("Compact", [whole(ADMIN, "the namespace")], n.CompactRequest(**of(revision=1))),
    Row(
        "Fork",
        [whole(READ), whole(WRITE, "all keys of the new namespace", FORK)],
        n.ForkRequest(**of(fork=FORK)),
        ALREADY_EXISTS,
    ),
    Row(
        "Merge",
        [whole(READ), whole(WRITE), whole(READ, "all keys of the fork", FORK)],
        n.MergeRequest(**of(fork=FORK)),
    ),
    Row(
        "Merge with `dry_run`",
        [whole(READ), whole(READ, "all keys of the fork", FORK)],
        n.MergeRequest(**of(fork=FORK, dry_run=True)),
    ),
    Row("GrantLease", [anything(WRITE)], le.GrantLeaseRequest(**of(ttl=SECOND))),
    Row("KeepAlive", [anything(WRITE)], le.KeepAliveRequest(**of(lease_id=10**9))),
    Row("RevokeLease", [anything(WRITE)], le.RevokeLeaseRequest(**of(lease_id=10**9)), NOT_FOUND),
    Row("GetLease", [anything(READ)], le.GetLeaseRequest(**of(lease_id=10**9)), NOT_FOUND),
    Row("GetStatus", [whole(ADMIN, "every namespace", "*")], sv.GetStatusRequest()),
    Row("ListLeases", [anything(READ)], le.ListLeasesRequest(**of())),
]


def may(principal: str, needs: Sequence[Need]) -> bool:
    """Whether the grants of a principal are what is needed."""
    return all(has(principal, need) for need in needs)


def has(principal: str, need: Need) -> bool:
    """The same of one of them."""
    grants = PRINCIPALS[principal]
    granted = grants.get(need.namespace, {}) if "*" not in grants else grants["*"]
    prefixes = [each for access in need.access.split(" or ") for each in granted.get(access, [])]
    if need.prefix is None:
        return bool(prefixes)
    return any(need.prefix[: len(each)] == each for each in prefixes)
