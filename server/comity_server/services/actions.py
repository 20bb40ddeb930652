"""What a client asks for that is no transaction, from messages to the model: checkpoints, restores, forks, merges,
leases."""

from typing import Any

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, types_pb2
from comity_server.access.rights import READ, READ_WRITE, WRITE
from comity_server.model import (
    DropCheckpoint,
    Fork,
    Grant,
    MakeCheckpoint,
    Merge,
    Ref,
    Restore,
    Revoke,
    Strategy,
)
from comity_server.services import owners
from comity_server.services.requests import Metadata, write_options
from comity_server.services.validate import Checks


def make_checkpoint(request: checkpoint_pb2.CheckpointRequest, metadata: Metadata, checks: Checks) -> MakeCheckpoint:
    """A name for a revision."""
    name, revision = request.name, request.revision
    checks.checkpoint("name", name)
    checks.everywhere(WRITE)
    checks.count("revision", revision)
    labels = checks.labels("labels", request.labels)
    return MakeCheckpoint(name=name, revision=revision, labels=labels, **_said(request, metadata, checks))


def drop_checkpoint(
    request: checkpoint_pb2.DeleteCheckpointRequest, metadata: Metadata, checks: Checks
) -> DropCheckpoint:
    """The end of a checkpoint."""
    name = request.name
    checks.checkpoint("name", name)
    checks.everywhere(WRITE)
    return DropCheckpoint(name=name, **_said(request, metadata, checks))


def restore(request: checkpoint_pb2.RestoreRequest, metadata: Metadata, checks: Checks) -> Restore:
    """A return to an earlier state."""
    prefix = request.prefix
    checked = ref(request, "ref", checks, required=True)
    checks.prefix("prefix", prefix, READ if request.dry_run else READ_WRITE)
    if_revision = request.if_revision if request.HasField("if_revision") else None
    checks.count("if_revision", if_revision or 0)
    return Restore(
        ref=checked,
        prefix=prefix,
        if_revision=if_revision,
        dry_run=request.dry_run,
        **_said(request, metadata, checks),
    )


def fork(request: namespace_pb2.ForkRequest, metadata: Metadata, checks: Checks) -> Fork:
    """The beginning of a namespace as another one was."""
    checks.everywhere(WRITE)
    parent = request.namespace
    checks.namespace("namespace", parent)
    checks.everywhere(READ)
    checked = ref(request, "ref", checks)
    if request.options.HasField("guard"):
        checks.wrong("options.guard", "must not be set: the fork has no leases yet")
    return Fork(parent=parent, ref=checked, **_said(request, metadata, checks))


def merge(request: namespace_pb2.MergeRequest, metadata: Metadata, checks: Checks) -> Merge:
    """The bringing in of what a fork changed."""
    name, strategy = request.fork, request.strategy
    checks.everywhere(READ if request.dry_run else READ_WRITE)
    checks.namespace("fork", name)
    checks.everywhere(READ)
    if strategy not in namespace_pb2.MergeStrategy.values():
        checks.wrong("strategy", "is not a strategy")
        strategy = namespace_pb2.MERGE_STRATEGY_FAIL
    return Merge(
        fork=name,
        strategy=Strategy(strategy or namespace_pb2.MERGE_STRATEGY_FAIL),
        dry_run=request.dry_run,
        **_said(request, metadata, checks),
    )


def grant(request: lease_pb2.GrantLeaseRequest, metadata: Metadata, checks: Checks) -> Grant:
    """A lease."""
    checks.somewhere(WRITE)
    ttl = 0
    if request.HasField("ttl"):
        ttl = checks.ttl("ttl", request.ttl)
    else:
        checks.wrong("ttl", "is required")
    return Grant(ttl=ttl, **_said(request, metadata, checks))


def revoke(request: lease_pb2.RevokeLeaseRequest, metadata: Metadata, checks: Checks) -> Revoke:
    """The end of a lease."""
    lease_id = request.lease_id
    checks.lease_id("lease_id", lease_id)
    checks.somewhere(WRITE)
    principal = owners.required(checks.caller, request.namespace)
    return Revoke(lease_id=lease_id, principal=principal, **_said(request, metadata, checks))


def ref(request: Any, field: str, checks: Checks, *, required: bool = False) -> Ref:
    """A revision or the name of a checkpoint; the newest revision where neither is said."""
    message: types_pb2.Ref = getattr(request, field)
    match message.WhichOneof("ref"):
        case "revision":
            checks.count(f"{field}.revision", message.revision)
            return message.revision
        case "checkpoint":
            checks.checkpoint(f"{field}.checkpoint", message.checkpoint)
            return message.checkpoint
        case None if required:
            checks.wrong(field, "is required: a revision or a checkpoint")
    return None


def _said(request: Any, metadata: Metadata, checks: Checks) -> dict[str, Any]:
    return write_options(request, metadata, checks)._asdict()
