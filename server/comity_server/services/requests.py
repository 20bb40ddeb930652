"""What a client asks to write, from messages to the words of `comity_server.model`, checked on the way.

A field is read once: that, and not parsing, is what a message costs.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from comity.v1 import state_pb2, types_pb2
from comity_server.access.rights import READ, READ_WRITE, WRITE
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    Get,
    Guard,
    Increment,
    List,
    Operation,
    Operator,
    Put,
    RequestId,
    Test,
    Transaction,
)
from comity_server.record import LARGEST_INTEGER, utf8_length
from comity_server.services import owners
from comity_server.services.validate import AUTHOR_BYTES, CLIENT_BYTES, MESSAGE_BYTES, Checks

TRACE_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

NUMBER_TESTS: Final = {
    "version": Test.VERSION,
    "mod_revision": Test.MOD_REVISION,
    "create_revision": Test.CREATE_REVISION,
    "lease_id": Test.LEASE_ID,
    "unchanged_since": Test.UNCHANGED_SINCE,
}
OPERATORS: Final = {0: Operator.EQUAL} | {operator.value: operator for operator in Operator}
EQUALITY: Final = (Operator.EQUAL,)
OPERATORS_OF: Final = {
    "exists": EQUALITY,
    "unchanged_since": EQUALITY,
    "lease_id": (Operator.EQUAL, Operator.NOT_EQUAL),
}

Metadata = Iterable[tuple[str, str | bytes]]


class Options(NamedTuple):
    """What may be said with any write."""

    request_id: RequestId | None
    author: str
    message: str
    trace_parent: str
    guard: Guard | None


def put(request: state_pb2.PutRequest, metadata: Metadata, checks: Checks) -> Transaction:
    """A put of one key, with its conditions."""
    key = request.key
    operation = _put(request, key, "", checks)
    conditions = _expectations(request, key, checks)
    options = write_options(request, metadata, checks)
    return Transaction(conditions, (operation,), (), *options, owners.of_keys((operation,), checks))


def delete(request: state_pb2.DeleteRequest, metadata: Metadata, checks: Checks) -> Transaction:
    """A delete of one key or of all under a prefix, with its conditions."""
    conditions: Sequence[Condition] = ()
    operation = _delete(request, "", checks)
    if isinstance(operation, Delete):
        conditions = _expectations(request, operation.key, checks)
    else:
        if request.HasField("if_version"):
            checks.wrong("if_version", "must not be set together with prefix")
        if request.HasField("if_revision"):
            revision = request.if_revision
            checks.count("if_revision", revision)
            conditions = (Condition(operation.prefix, Test.UNCHANGED_SINCE, revision, is_prefix=True),)
    options = write_options(request, metadata, checks)
    return Transaction(conditions, (operation,), (), *options)


def transaction(request: state_pb2.TransactRequest, metadata: Metadata, checks: Checks) -> Transaction:
    """Conditions and two lists of operations."""
    checks.somewhere(READ_WRITE)
    conditions = [
        _condition(condition, f"conditions[{index}]", checks)
        for index, condition in enumerate(_bounded(request.conditions, "conditions", checks))
    ]
    then = _branch(request.then, "then", checks)
    otherwise = _branch(request.otherwise, "otherwise", checks)
    size = sum(map(_condition_size, conditions)) + sum(map(_size, then)) + sum(map(_size, otherwise))
    if size > checks.limits.transaction_bytes:
        checks.wrong("then", f"the transaction must not be larger than {checks.limits.transaction_bytes} bytes")
    options = write_options(request, metadata, checks)
    return Transaction(conditions, then, otherwise, *options, owners.of_keys((*then, *otherwise), checks))


def write_options(request: Any, metadata: Metadata, checks: Checks) -> Options:
    """What the request's `options` say, or else the call's metadata."""
    request_id = guard = None
    author = message = ""
    if request.HasField("options"):
        options: types_pb2.WriteOptions = request.options
        author = options.author
        message = options.message
        if author:
            checks.text("options.author", author, AUTHOR_BYTES)
        if message:
            checks.text("options.message", message, MESSAGE_BYTES)
        if options.HasField("request_id"):
            request_id = _request_id(options.request_id, checks)
        if options.HasField("guard"):
            guard = _guard(options.guard, checks)
    return Options(request_id, *said(author, message, metadata, checks), guard)


def said(author: str, message: str, metadata: Metadata, checks: Checks) -> tuple[str, str, str]:
    """Author, message and traceparent of a write: the metadata says what the request does not."""
    trace_parent = ""
    for name, value in metadata:
        if name == "traceparent":
            trace_parent = value if isinstance(value, str) and TRACE_PARENT.fullmatch(value) else ""
        elif not name.startswith("comity-"):
            continue
        elif not author and name in ("comity-author", "comity-author-bin"):
            author = _text(name, value, AUTHOR_BYTES, checks)
        elif not message and name in ("comity-message", "comity-message-bin"):
            message = _text(name, value, MESSAGE_BYTES, checks)
    return checks.author(author), message, trace_parent


def _request_id(request_id: types_pb2.RequestId, checks: Checks) -> RequestId:
    client, sequence, awaited = request_id.client, request_id.sequence, request_id.awaited
    if not client:
        checks.wrong("options.request_id.client", "is required")
    checks.text("options.request_id.client", client, CLIENT_BYTES)
    if sequence < 1:
        checks.wrong("options.request_id.sequence", "must be 1 or more")
    checks.count("options.request_id.awaited", awaited)
    return RequestId(checks.caller.client(client), sequence, awaited)


def _guard(guard: types_pb2.LeaseGuard, checks: Checks) -> Guard:
    lease_id, fence = guard.lease_id, guard.fence
    checks.lease_id("options.guard.lease_id", lease_id)
    checks.count("options.guard.fence", fence)
    return Guard(lease_id, fence)


def _text(name: str, value: str | bytes, max_bytes: int, checks: Checks) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            checks.wrong(name, "is not UTF-8")
            return ""
    checks.text(name, value, max_bytes)
    return value


def _expectations(request: Any, key: str, checks: Checks) -> Sequence[Condition]:
    """The conditions of a plain put or delete on its own key. An absent key has the version and the revision 0."""
    conditions = []
    if request.HasField("if_version"):
        version = request.if_version
        checks.count("if_version", version)
        conditions.append(Condition(key, Test.VERSION, version))
    if request.HasField("if_revision"):
        revision = request.if_revision
        checks.count("if_revision", revision)
        conditions.append(Condition(key, Test.MOD_REVISION, revision))
    return conditions


def _condition(condition: state_pb2.Condition, path: str, checks: Checks) -> Condition:
    target = condition.WhichOneof("target")
    test = condition.WhichOneof("test")
    operator = OPERATORS.get(condition.operator)
    key = ""
    if target == "key":
        key = condition.key
        checks.key(f"{path}.key", key, READ)
    elif target == "prefix":
        key = condition.prefix
        checks.prefix(f"{path}.prefix", key, READ)
        if test is not None and test != "unchanged_since":
            checks.wrong(f"{path}.{test}", "a prefix takes only unchanged_since")
    else:
        checks.wrong(f"{path}.key", "a key or a prefix is required")
    if operator is None:
        checks.wrong(f"{path}.operator", "is not an operator")
        operator = Operator.EQUAL
    elif test is not None and operator not in OPERATORS_OF.get(test, OPERATORS.values()):
        checks.wrong(f"{path}.operator", f"{test} does not take it")
    match test:
        case None:
            checks.wrong(f"{path}.exists", "a test is required")
            return Condition(key, Test.EXISTS, 0)
        case "exists":
            return Condition(key, Test.EXISTS, int(condition.exists))
        case "value":
            return Condition(key, Test.VALUE, condition.value, operator)
        case _:
            number: int = getattr(condition, test)
            checks.count(f"{path}.{test}", number)
            return Condition(key, NUMBER_TESTS[test], number, operator, target == "prefix")


def _branch(operations: Sequence[state_pb2.Operation], path: str, checks: Checks) -> list[Operation]:
    """One list of operations. That a key is written twice is found here."""
    branch: list[Operation] = []
    written: dict[str, tuple[int, str]] = {}  # where, and by what
    deleted: set[str] = set()
    prefixes: list[tuple[str, int]] = []
    ttl = 0
    for index, message in enumerate(_bounded(operations, path, checks)):
        case = message.WhichOneof("operation")
        if case is None:
            checks.wrong(f"{path}[{index}].get", "an operation is required")
            continue
        within = f"{path}[{index}].{case}."
        operation = _operation(getattr(message, case), case, within, checks)
        branch.append(operation)
        if isinstance(operation, Put | Increment):
            key = operation.key
            if key in written or key in deleted:
                checks.wrong(f"{within}key", "is written by another operation, too")
            written[key] = index, case
            if isinstance(operation, Put) and operation.ttl:
                if ttl not in (0, operation.ttl):
                    checks.wrong(f"{within}ttl", "must be that of the other keys: they share one lease")
                ttl = operation.ttl
        elif isinstance(operation, Delete):
            deleted.add(operation.key)
            if operation.key in written:
                checks.wrong(f"{within}key", "is written by another operation, too")
        elif isinstance(operation, DeletePrefix):
            prefixes.append((operation.prefix, index))
    if prefixes and written:
        keys = sorted(written)
        for prefix, index in prefixes:
            place = bisect_left(keys, prefix)
            if place < len(keys) and keys[place].startswith(prefix):
                other, kind = written[keys[place]]
                if other < index:
                    checks.wrong(f"{path}[{index}].delete.prefix", "another operation writes a key under it")
                else:
                    checks.wrong(f"{path}[{other}].{kind}.key", "another operation deletes it by its prefix")
    return branch


def _operation(message: Any, case: str, path: str, checks: Checks) -> Operation:
    match case:
        case "put":
            return _put(message, message.key, path, checks)
        case "get":
            key = message.key
            checks.key(f"{path}key", key, READ)
            return Get(key)
        case "delete":
            return _delete(message, path, checks)
        case "increment":
            key, delta = message.key, message.delta
            checks.key(f"{path}key", key, READ_WRITE)  # it answers the value
            if abs(delta) > LARGEST_INTEGER:
                checks.wrong(f"{path}delta", f"must be from -{LARGEST_INTEGER} to {LARGEST_INTEGER}")
            return Increment(key, delta)
        case _:
            return _list(message, path, checks)


def _put(message: Any, key: str, path: str, checks: Checks) -> Put:
    value, content_type, lease_id = message.value, message.content_type, message.lease_id
    previous = message.return_previous
    checks.key(f"{path}key", key, READ_WRITE if previous else WRITE)
    if len(value) > checks.limits.value_bytes:
        checks.value(f"{path}value", value)
    if content_type:
        checks.content_type(f"{path}content_type", content_type)
    if lease_id:
        checks.lease_id(f"{path}lease_id", lease_id)
    ttl = 0
    if message.HasField("ttl"):
        ttl = checks.ttl(f"{path}ttl", message.ttl)
        if lease_id:
            checks.wrong(f"{path}ttl", "must not be set together with lease_id")
    return Put(key, value, content_type, lease_id, previous, ttl)


def _delete(message: Any, path: str, checks: Checks) -> Delete | DeletePrefix:
    target = message.WhichOneof("target")
    previous = message.return_previous
    access = READ_WRITE if previous else WRITE
    if target == "prefix":
        prefix = message.prefix
        checks.prefix(f"{path}prefix", prefix, access)
        return DeletePrefix(prefix, previous)
    key = message.key
    if target is None:
        checks.wrong(f"{path}key", "a key or a prefix is required")
    else:
        checks.key(f"{path}key", key, access)
    return Delete(key, previous)


def _list(message: state_pb2.ListOperation, path: str, checks: Checks) -> List:
    prefix, limit = message.prefix, message.limit
    checks.prefix(f"{path}prefix", prefix, READ)
    if not 0 <= limit <= checks.limits.page_entries:
        checks.wrong(f"{path}limit", f"must be from 0 to {checks.limits.page_entries}")
    return List(prefix, limit or checks.limits.page_entries, message.keys_only)


def _bounded(messages: Sequence[Any], path: str, checks: Checks) -> Sequence[Any]:
    most = checks.limits.transaction_operations
    if len(messages) > most:
        checks.wrong(path, f"must not have more than {most} elements")
        return ()
    return messages


def _size(operation: Operation) -> int:
    match operation:
        case Put():
            return utf8_length(operation.key) + len(operation.value) + utf8_length(operation.content_type)
        case List() | DeletePrefix():
            return utf8_length(operation.prefix)
        case _:
            return utf8_length(operation.key)


def _condition_size(condition: Condition) -> int:
    operand = condition.operand
    return utf8_length(condition.target) + (len(operand) if isinstance(operand, bytes) else 0)
