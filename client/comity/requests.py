"""From what a caller says to the messages of the wire contract. No I/O: any client can send them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from . import codec, operations
from .arguments import built, each_made
from .leases.guard import LeaseGuard
from .leases.ttl import duration, living_by
from .model import Checkpoint, EventType
from .request_ids import RequestId
from .v1 import state_pb2, types_pb2

__all__ = ["Ref", "delete", "history", "one_target", "options", "put", "ref", "transact", "watch"]

Ref = Checkpoint | str | int

NO_OPERATIONS: tuple[operations.Operation, ...] = ()


def options(
    request_id: RequestId | None, author: str, message: str, guard: LeaseGuard | None = None
) -> types_pb2.WriteOptions:
    made = built(types_pb2.WriteOptions, author=author, message=message)
    if guard is not None:
        made.guard.lease_id = guard.lease_id
        made.guard.fence = guard.fence
    if request_id is not None:
        try:
            made.request_id.client = request_id.client
            made.request_id.sequence = request_id.sequence
            made.request_id.awaited = request_id.awaited
        except AttributeError as error:
            raise TypeError(f"request_id must be a comity.RequestId, not {type(request_id).__name__}") from error
        except (TypeError, ValueError):
            built(types_pb2.RequestId, **dataclasses.asdict(request_id))  # says which of the fields it is
            raise
    return made


def one_target(key: str | None, prefix: str | None) -> None:
    """Raise TypeError unless exactly one of the two is given."""
    if (key is None) == (prefix is None):
        raise TypeError("give either a key or a prefix")


def put(
    namespace: str,
    key: str,
    value: object,
    *,
    content_type: str | None,
    if_version: int | None,
    if_revision: int | None,
    return_previous: bool,
    lease_id: int = 0,
    ttl: int = 0,
) -> state_pb2.PutRequest:
    """ttl: in µs; 0: none."""
    data, content_type = codec.encode(value, content_type)
    return built(
        state_pb2.PutRequest,
        namespace=namespace,
        key=key,
        value=data,
        content_type=content_type,
        if_version=if_version,
        if_revision=if_revision,
        return_previous=return_previous,
        lease_id=lease_id,
        ttl=duration(ttl),
    )


def delete(
    namespace: str,
    key: str | None,
    prefix: str | None,
    *,
    if_version: int | None,
    if_revision: int | None,
    return_previous: bool,
) -> state_pb2.DeleteRequest:
    one_target(key, prefix)
    return built(
        state_pb2.DeleteRequest,
        namespace=namespace,
        key=key,
        prefix=prefix,
        if_version=if_version,
        if_revision=if_revision,
        return_previous=return_previous,
    )


def transact(
    namespace: str,
    conditions: Sequence[operations.Condition],
    then: Sequence[operations.Operation],
    otherwise: Sequence[operations.Operation] = NO_OPERATIONS,
) -> state_pb2.TransactRequest:
    """A transaction in a namespace, which it does not name yet."""

    def made(stated: operations.Operation) -> state_pb2.Operation:
        return operation(stated, namespace)

    return built(
        state_pb2.TransactRequest,
        conditions=each_made("conditions", condition, conditions),
        then=each_made("then", made, then),
        otherwise=each_made("otherwise", made, otherwise),
    )


def condition(stated: operations.Condition) -> state_pb2.Condition:
    try:
        fields: dict[str, Any] = {
            "prefix" if stated.is_prefix else "key": stated.target,
            stated.test.value: stated.right,
            "operator": stated.operator.value,
        }
    except AttributeError as error:
        raise TypeError(f'it must be a condition, as Key("a").version == 3, not {type(stated).__name__}') from error
    return built(state_pb2.Condition, **fields)


def operation(stated: operations.Operation, namespace: str) -> state_pb2.Operation:
    match stated:
        case operations.Get(key):
            return state_pb2.Operation(get=built(state_pb2.GetOperation, key=key))
        case operations.List(prefix, limit, keys_only):
            return state_pb2.Operation(
                list=built(state_pb2.ListOperation, prefix=prefix, limit=limit, keys_only=keys_only)
            )
        case operations.Put(key, value, content_type, previous, lease, ttl):
            data, content_type = codec.encode(value, content_type)
            lease_id, micros = living_by(lease, ttl, namespace)
            return state_pb2.Operation(
                put=built(
                    state_pb2.PutOperation,
                    key=key,
                    value=data,
                    content_type=content_type,
                    return_previous=previous,
                    lease_id=lease_id,
                    ttl=duration(micros),
                )
            )
        case operations.Delete(key, prefix, previous):
            return state_pb2.Operation(
                delete=built(state_pb2.DeleteOperation, key=key, prefix=prefix, return_previous=previous)
            )
        case operations.Increment(key, by):
            return state_pb2.Operation(increment=built(state_pb2.IncrementOperation, key=key, delta=by))
        case _:
            raise TypeError(f"it must be a Get, List, Put, Delete or Increment, not {type(stated).__name__}")


def watch(
    namespace: str,
    target: str,
    *,
    is_prefix: bool,
    from_revision: int,
    epoch: str,
    types: Sequence[EventType],
    previous: bool,
    progress_interval: float,
) -> state_pb2.WatchRequest:
    fields: dict[str, Any] = {"prefix" if is_prefix else "key": target}
    made = built(
        state_pb2.WatchRequest,
        namespace=namespace,
        from_revision=from_revision,
        epoch=epoch,
        event_types=each_made("types", event_type, types),
        previous=previous,
        **fields,
    )
    made.progress_interval.FromNanoseconds(round(progress_interval * 1e9))
    return made


def event_type(kind: EventType) -> types_pb2.EventType:
    if not isinstance(kind, EventType):
        raise TypeError(f"it must be a comity.EventType, not {type(kind).__name__}")
    return cast("types_pb2.EventType", kind.value)


def history(
    namespace: str,
    prefix: str,
    *,
    author: str,
    from_revision: int,
    to_revision: int,
    newest_first: bool,
    page_size: int,
    keys_only: bool,
    previous: bool,
) -> state_pb2.HistoryRequest:
    order = state_pb2.HISTORY_ORDER_NEWEST_FIRST if newest_first else state_pb2.HISTORY_ORDER_OLDEST_FIRST
    return built(
        state_pb2.HistoryRequest,
        namespace=namespace,
        prefix=prefix,
        author=author,
        from_revision=from_revision,
        to_revision=to_revision,
        order=order,
        page_size=page_size,
        keys_only=keys_only,
        previous=previous,
    )


def ref(named: object) -> types_pb2.Ref:
    """A revision by its number, or by the name of a checkpoint, which is also what a Checkpoint stands for.

    Raises TypeError for what is no `Ref`.
    """
    if isinstance(named, Checkpoint):
        return types_pb2.Ref(checkpoint=named.name)
    if isinstance(named, str):
        return types_pb2.Ref(checkpoint=named)
    if isinstance(named, int) and not isinstance(named, bool):
        return types_pb2.Ref(revision=named)
    raise TypeError(f"name a revision by its number or a checkpoint, not by {type(named).__name__}")
