"""Outcomes as they are kept for repeats: most are a single put, whose version says all; the others are JSON."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from comity_server.model import (
    Checkpoint,
    DeleteResult,
    FailedCondition,
    GetResult,
    IncrementResult,
    Lease,
    ListResult,
    MergeConflict,
    MergeResult,
    NamespaceInfo,
    Outcome,
    PutResult,
    RestoreResult,
    Result,
)
from comity_server.record import Record

KINDS: Final[dict[str, type[Any]]] = {
    "get": GetResult,
    "list": ListResult,
    "put": PutResult,
    "delete": DeleteResult,
    "increment": IncrementResult,
    "checkpoint": Checkpoint,
    "lease": Lease,
    "restore": RestoreResult,
    "namespace": NamespaceInfo,
    "merge": MergeResult,
}
NAMES: Final = {kind: name for name, kind in KINDS.items()}


def encode(outcome: Outcome) -> int | str:
    """An outcome but for its revision, as a value of SQLite."""
    match outcome:
        case Outcome(committed=True, results=[PutResult(version, None, 0)], failed=[] | ()):
            return version
    results = [[NAMES[type(result)], *map(_plain, result)] for result in outcome.results]
    failed = [[position, _plain(current), changed] for position, current, changed in outcome.failed]
    return json.dumps([outcome.committed, results, failed], separators=(",", ":"))


def decode(revision: int, encoded: int | str) -> Outcome:
    """The outcome that was encoded."""
    if isinstance(encoded, int):
        return Outcome(True, revision, (PutResult(encoded, None),))
    committed, results, failed = json.loads(encoded)
    return Outcome(
        committed,
        revision,
        [_result(name, parts) for name, *parts in results],
        [FailedCondition(position, _record(current), changed) for position, current, changed in failed],
    )


def _plain(part: Any) -> Any:
    match part:
        case bytes():
            return base64.b64encode(part).decode()
        case tuple() | list():
            return [_plain(one) for one in part]
    return part


def _result(name: str, parts: Sequence[Any]) -> Result:
    made: Result
    match name:
        case "get":
            made = GetResult(_record(parts[0]))
        case "list":
            made = ListResult(_records(parts[0]), parts[1])
        case "put":
            made = PutResult(parts[0], _record(parts[1]), *parts[2:])
        case "delete":
            made = DeleteResult(parts[0], _records(parts[1]), parts[2])
        case "checkpoint":
            made = Checkpoint._make(parts)._replace(labels=tuple((key, value) for key, value in parts[5]))
        case "merge":
            put, deleted, conflicts, count = parts
            made = MergeResult(put, deleted, [_conflict(*conflict) for conflict in conflicts], count)
        case _:
            made = KINDS[name](*parts)
    return made


def _conflict(key: str, base: Any, ours: Any, theirs: Any, values_omitted: bool) -> MergeConflict:
    return MergeConflict(key, _record(base), _record(ours), _record(theirs), values_omitted)


def _records(parts: Sequence[Any]) -> Sequence[Record]:
    return [record for record in map(_record, parts) if record is not None]


def _record(part: Any) -> Record | None:
    if part is None:
        return None
    key, value, *others = part
    return (key, base64.b64decode(value), *others)
