"""What the operations of a pipeline should answer, if each is done when the one before it is: a dict, and a counter."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t

NUMBER = 2**53 - 1


class Held(NamedTuple):
    """An entry, as far as a model can know it."""

    key: str
    value: bytes
    version: int
    create_revision: int
    mod_revision: int


class Model:
    """A namespace. `apply` answers as `plain` shows a result."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.revision = 0

    def apply(self, operation: s.PipelineOperation) -> Any:
        key = operation.key
        held = self.held.get(key)
        version = held.version if held else 0
        match operation.kind:
            case s.PIPELINE_KIND_GET:
                return held
            case s.PIPELINE_KIND_LIST:
                return self.revision, self._under(operation.list.prefix)[: operation.list.page_size or None]
            case s.PIPELINE_KIND_TRANSACT:
                return self._transact(operation.transact)
            case s.PIPELINE_KIND_CREATE if held:
                return self._conflict(held)
            case s.PIPELINE_KIND_PUT | s.PIPELINE_KIND_DELETE if (
                operation.if_version and operation.if_version != version
            ) or (operation.if_revision and operation.if_revision != (held.mod_revision if held else 0)):
                return self._conflict(held)
            case s.PIPELINE_KIND_PUT | s.PIPELINE_KIND_CREATE:
                self.revision += 1
                self._put(key, operation.value)
                return self.revision, version + 1, held if operation.return_previous else None
            case s.PIPELINE_KIND_DELETE:
                self.revision += held is not None
                self.held.pop(key, None)
                return self.revision, int(held is not None), held if operation.return_previous else None
            case _:
                total = self._sum(held, operation.delta)
                if total is None:
                    return "NOT_A_NUMBER"
                self.revision += 1
                self._put(key, b"%d" % total)
                return self.revision, version + 1, total

    def _under(self, prefix: str) -> list[Held]:
        return [self.held[key] for key in sorted(self.held, key=str.encode) if key.startswith(prefix)]

    def _conflict(self, held: Held | None) -> Any:
        return "CONFLICT", held.version if held else 0, held.mod_revision if held else 0, self.revision

    def _put(self, key: str, value: bytes) -> None:
        held = self.held.get(key)
        created, version = (held.create_revision, held.version) if held else (self.revision, 0)
        self.held[key] = Held(key, value, version + 1, created, self.revision)

    def _sum(self, held: Held | None, delta: int) -> int | None:
        if held is not None and not held.value.removeprefix(b"-").isdigit():
            return None
        total = int(held.value if held else b"0") + delta
        return total if abs(total) <= NUMBER else None

    def _transact(self, transact: s.TransactRequest) -> Any:
        holds = all(
            (held.version if (held := self.held.get(condition.key)) else 0) == condition.version
            for condition in transact.conditions
        )
        before = dict(self.held), self.revision
        results: list[Any] = []
        changed = False
        self.revision += 1
        for operation in transact.then if holds else transact.otherwise:
            match operation.WhichOneof("operation"):
                case "get":
                    results.append(self.held.get(operation.get.key))
                case "list":
                    results.append(self._under(operation.list.prefix))
                case "put":
                    self._put(operation.put.key, operation.put.value)
                    results.append(self.held[operation.put.key].version)
                    changed = True
                case "delete":
                    gone = self._under(operation.delete.prefix)
                    for held in gone:
                        del self.held[held.key]
                    results.append(len(gone))
                    changed |= bool(gone)
                case _:
                    total = self._sum(self.held.get(operation.increment.key), operation.increment.delta)
                    if total is None:
                        self.held, self.revision = before
                        return "NOT_A_NUMBER"
                    self._put(operation.increment.key, b"%d" % total)
                    results.append((total, self.held[operation.increment.key].version))
                    changed = True
        self.revision -= not changed
        return holds, self.revision, results


def plain(operation: s.PipelineOperation, result: s.PipelineResult) -> Any:
    """What an operation was answered, in the words of the model."""
    assert result.id == operation.id
    if result.error.reason == "CONFLICT":
        return "CONFLICT", result.version, result.revision, int(result.error.metadata["revision"])
    if result.code:
        return result.error.reason
    entry = _held(result.entry) if result.HasField("entry") else None
    match operation.kind:
        case s.PIPELINE_KIND_GET:
            return entry
        case s.PIPELINE_KIND_LIST:
            assert result.revision == result.list.revision
            return result.revision, list(map(_held, result.list.entries))
        case s.PIPELINE_KIND_TRANSACT:
            assert result.revision == result.transact.revision
            return result.transact.committed, result.revision, list(_steps(result.transact.results))
        case s.PIPELINE_KIND_INCREMENT:
            return result.revision, result.version, result.value
        case _:
            return result.revision, result.version, entry


def _held(entry: t.Entry) -> Held:
    return Held(entry.key, entry.value, entry.version, entry.create_revision, entry.mod_revision)


def _steps(results: Iterable[s.OperationResult]) -> Iterable[Any]:
    for result in results:
        match result.WhichOneof("result"):
            case "get":
                yield _held(result.get.entry) if result.get.HasField("entry") else None
            case "list":
                yield list(map(_held, result.list.entries))
            case "put":
                yield result.put.version
            case "delete":
                yield result.delete.deleted
            case _:
                yield result.increment.value, result.increment.version
