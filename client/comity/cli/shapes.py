"""The client's model as JSON objects, with the names of the protos."""

import datetime
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .values import to_json

if TYPE_CHECKING:
    from comity import model

__all__ = [
    "attribution",
    "checkpoint",
    "commit",
    "difference",
    "entry",
    "event",
    "failed",
    "lease",
    "merged",
    "namespace",
    "operation_result",
    "restored",
    "resync",
    "time",
]

Object = dict[str, Any]


def time(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def entry(of: "model.Entry", *, keys_only: bool = False) -> Object:
    shown: Object = {"key": of.key}
    if not keys_only:
        shown["value"] = to_json(of)
    return shown | {
        "content_type": of.content_type,
        "version": of.version,
        "create_revision": of.create_revision,
        "mod_revision": of.mod_revision,
        "lease_id": of.lease_id,
        "update_time": time(of.update_time),
    }


def change(of: "model.Event") -> Object:
    """An event as a commit has it."""
    shown: Object = {"type": f"EVENT_TYPE_{of.type.name}"}
    if of.is_delete:
        at = of.entry
        shown["entry"] = {"key": at.key, "mod_revision": at.mod_revision, "update_time": time(at.update_time)}
    else:
        shown["entry"] = entry(of.entry)
    if of.previous is not None:
        shown["previous"] = entry(of.previous)
    return shown | {"cause": f"EVENT_CAUSE_{of.cause.name}"}


def _made(of: "model.Event | model.Commit") -> Object:
    return {
        "revision": of.revision,
        "commit_time": time(of.time),
        "author": of.author,
        "message": of.message,
        "trace_parent": of.trace_parent,
    }


def event(of: "model.Event") -> Object:
    """An event on its own, with what is known of its commit."""
    return change(of) | _made(of)


def commit(of: "model.Commit") -> Object:
    return _made(of) | {"events": [change(each) for each in of.events]}


def resync(of: "model.Resync") -> Object:
    return {"resync": True, "revision": of.revision, "epoch": of.epoch, "entries": _entries(of.entries)}


def _entries(of: "Iterable[model.Entry]", *, keys_only: bool = False) -> list[Object]:
    return [entry(each, keys_only=keys_only) for each in of]


def failed(of: "model.FailedCondition") -> Object:
    shown: Object = {"index": of.index}
    if of.current is not None:
        shown["current"] = entry(of.current, keys_only=of.value_omitted)
    return shown | {"changed_revision": of.changed_revision, "value_omitted": of.value_omitted}


def operation_result(of: "model.OperationResult", *, keys_only: bool = False) -> Object:
    from comity import model

    match of:
        case model.GetResult(found):
            return {"get": {} if found is None else {"entry": entry(found)}}
        case model.ListResult(entries, more):
            return {"list": {"entries": _entries(entries, keys_only=keys_only), "more": more}}
        case model.PutResult(_, version, previous):
            put: Object = {"version": version} | ({} if previous is None else {"previous": entry(previous)})
            return {"put": put | ({"lease_id": of.lease_id} if of.lease_id else {})}
        case model.DeleteResult():
            shown = {"previous": _entries(of.previous), "previous_truncated": of.previous_truncated}
            return {"delete": {"deleted": of.deleted, **shown}}
        case model.IncrementResult(_, value, version):
            return {"increment": {"value": value, "version": version}}


def namespace(of: "model.Namespace") -> Object:
    return _named(of)


def checkpoint(of: "model.Checkpoint") -> Object:
    return _named(of)


def _named(of: "model.Namespace | model.Checkpoint | model.LeaseInfo") -> Object:
    named = {field.name: getattr(of, field.name) for field in fields(of)}
    return {name: time(at) if isinstance(at, datetime.datetime) else at for name, at in named.items()}


def lease(of: "model.LeaseInfo") -> Object:
    """Its durations are numbers of seconds."""
    return _named(of)


def difference(of: "model.Difference", *, keys_only: bool = False) -> Object:
    return {"key": of.key} | _sides(keys_only=keys_only, before=of.before, after=of.after)


def restored(of: "model.RestoreResult") -> Object:
    shown: Object = {"revision": of.revision, "put": of.put, "deleted": of.deleted}
    return shown | {"differences": [difference(each, keys_only=True) for each in of.differences]}


def merged(of: "model.MergeResult") -> Object:
    conflicts = [
        {"key": each.key}
        | _sides(base=each.base, ours=each.ours, theirs=each.theirs)
        | ({"values_omitted": True} if each.values_omitted else {})
        for each in of.conflicts
    ]
    shown: Object = {"merged": of.merged, "revision": of.revision, "put": of.put, "deleted": of.deleted}
    return shown | {"conflicts": conflicts, "conflict_count": of.conflict_count}


def _sides(*, keys_only: bool = False, **sides: "model.Entry | None") -> Object:
    """Entries under names; an absent one is left out."""
    return {name: entry(of, keys_only=keys_only) for name, of in sides.items() if of is not None}


def attribution(of: "model.Attribution") -> Object:
    return {
        "entry": entry(of.entry, keys_only=True),
        "author": of.author,
        "message": of.message,
        "trace_parent": of.trace_parent,
    }
