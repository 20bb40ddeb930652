"""What can be said on a Pipeline, as one operation among others, and what it is answered with.

Each of these can also be said by a call of its own, under the same request id: where there is no stream, where it is
large, or where protobuf refuses what a caller gave, which the building of a request explains.

Lists always go by calls of their own, though a pipeline could say them: a page costs what it carries and not its call,
and on a stream it would hold up the answers behind it, and wait for the lists before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from . import convert, model, requests
from .arguments import built
from .leases.guard import LeaseGuard
from .stubs import Method
from .v1 import state_pb2, types_pb2

__all__ = ["Asked", "Delete", "Get", "Put", "Send", "Transact", "text_bytes"]

T = TypeVar("T")

GET: Final = state_pb2.PIPELINE_KIND_GET
PUT: Final = state_pb2.PIPELINE_KIND_PUT
CREATE: Final = state_pb2.PIPELINE_KIND_CREATE
DELETE: Final = state_pb2.PIPELINE_KIND_DELETE
TRANSACT: Final = state_pb2.PIPELINE_KIND_TRANSACT

MICROS_IN_MS: Final = 1000
OPERATION_BYTES: Final = 128  # about what an operation takes beside its texts and its value


def text_bytes(text: object) -> int:
    """At least as many bytes as a text takes; 0 for what is no text, and cannot be said."""
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else 4 * len(text)


class Send(Protocol):
    """Makes a unary call; `options` are those of the request, if it writes."""

    def __call__(
        self, method: Method[Any, Any], request: Any, options: types_pb2.WriteOptions | None = None
    ) -> Awaitable[Any]: ...


class Asked(ABC, Generic[T]):
    """One operation that somebody asks for.

    `fits`: whether a pipeline can say it. `size`: about how many bytes it takes, without the message of a write.
    `guard`: the lease that must live for a write to apply.
    """

    __slots__ = ("fits", "guard", "size")

    writes: ClassVar[bool] = True

    fits: bool
    size: int
    guard: LeaseGuard | None

    @abstractmethod
    def say(self, operation: state_pb2.PipelineOperation) -> None:
        """Fill it in. Raises TypeError and ValueError for what cannot be said."""

    @abstractmethod
    def answer(self, result: state_pb2.PipelineResult) -> T:
        """What it was answered with."""

    @abstractmethod
    async def alone(self, send: Send) -> T:
        """The same by a call of its own. Raises TypeError and ValueError that name the argument at fault."""


class Get(Asked[tuple[int, model.Entry | None]]):
    """Reads a key: the revision that was read, and the entry."""

    __slots__ = ("_key", "_namespace", "_revision")

    writes = False

    def __init__(self, namespace: str, key: str, revision: int) -> None:
        self._namespace = namespace
        self._key = key
        self._revision = revision
        self.guard = None
        self.fits = True
        self.size = OPERATION_BYTES + text_bytes(key)

    def say(self, operation: state_pb2.PipelineOperation) -> None:
        operation.kind = GET
        operation.key = self._key
        if self._revision != 0:
            operation.revision = self._revision

    def answer(self, result: state_pb2.PipelineResult) -> tuple[int, model.Entry | None]:
        return result.revision, convert.entry(result.entry) if result.HasField("entry") else None

    async def alone(self, send: Send) -> tuple[int, model.Entry | None]:
        request = built(state_pb2.GetRequest, namespace=self._namespace, key=self._key, revision=self._revision)
        response = await send(lambda to: to.state.Get, request)
        return response.revision, convert.entry(response.entry) if response.HasField("entry") else None


class Put(Asked[model.PutResult]):
    """Writes a key. The value is encoded, and the ttl in µs, 0 being none."""

    __slots__ = (
        "_content_type",
        "_if_revision",
        "_if_version",
        "_key",
        "_lease_id",
        "_namespace",
        "_previous",
        "_ttl",
        "_value",
    )

    def __init__(
        self,
        namespace: str,
        key: str,
        value: bytes,
        content_type: str,
        if_version: int | None,
        if_revision: int | None,
        return_previous: bool,
        lease_id: int = 0,
        ttl: int = 0,
        guard: LeaseGuard | None = None,
    ) -> None:
        self._namespace = namespace
        self._key = key
        self._value = value
        self._lease_id = lease_id
        self._ttl = ttl
        self.guard = guard
        self._content_type = content_type
        self._if_version = if_version
        self._if_revision = if_revision
        self._previous = return_previous
        # To an operation 0 says nothing: that a key must not exist is a kind of its own, without another condition. And
        # it says a ttl in whole milliseconds.
        self.fits = (if_version is None or if_revision is None or not (if_version == 0 or if_revision == 0)) and (
            ttl == 0 or ttl % MICROS_IN_MS == 0
        )
        self.size = OPERATION_BYTES + text_bytes(key) + len(value) + text_bytes(content_type)

    def say(self, operation: state_pb2.PipelineOperation) -> None:
        operation.key = self._key
        operation.value = self._value
        operation.content_type = self._content_type
        creates = _say_conditions(operation, self._if_version, self._if_revision, self._previous)
        operation.kind = CREATE if creates else PUT
        if self._lease_id:
            operation.lease_id = self._lease_id
        if self._ttl:
            operation.ttl_ms = self._ttl // MICROS_IN_MS

    def answer(self, result: state_pb2.PipelineResult) -> model.PutResult:
        previous = convert.entry(result.entry) if self._previous and result.HasField("entry") else None
        return model.PutResult(result.revision, result.version, previous, result.lease_id)

    async def alone(self, send: Send) -> model.PutResult:
        request = requests.put(
            self._namespace,
            self._key,
            self._value,
            content_type=self._content_type,
            if_version=self._if_version,
            if_revision=self._if_revision,
            return_previous=self._previous,
            lease_id=self._lease_id,
            ttl=self._ttl,
        )
        response = await send(lambda to: to.state.Put, request, request.options)
        return convert.put_result(response, response.revision)


class Delete(Asked[model.DeleteResult]):
    """Deletes a key, or by a call of its own a prefix."""

    __slots__ = ("_if_revision", "_if_version", "_key", "_namespace", "_prefix", "_previous")

    def __init__(
        self,
        namespace: str,
        key: str | None,
        prefix: str | None,
        if_version: int | None,
        if_revision: int | None,
        return_previous: bool,
        guard: LeaseGuard | None = None,
    ) -> None:
        requests.one_target(key, prefix)
        self._namespace = namespace
        self._key = key
        self._prefix = prefix
        self._if_version = if_version
        self._if_revision = if_revision
        self._previous = return_previous
        self.guard = guard
        self.fits = prefix is None and if_version != 0 and if_revision != 0
        self.size = OPERATION_BYTES + text_bytes(key)

    def say(self, operation: state_pb2.PipelineOperation) -> None:
        assert self._key is not None
        operation.kind = DELETE
        operation.key = self._key
        _say_conditions(operation, self._if_version, self._if_revision, self._previous)

    def answer(self, result: state_pb2.PipelineResult) -> model.DeleteResult:
        deleted = result.version
        if not self._previous:
            return model.DeleteResult(result.revision, deleted, (), False)
        previous = (convert.entry(result.entry),) if result.HasField("entry") else ()
        return model.DeleteResult(result.revision, deleted, previous, len(previous) < deleted)

    async def alone(self, send: Send) -> model.DeleteResult:
        request = requests.delete(
            self._namespace,
            self._key,
            self._prefix,
            if_version=self._if_version,
            if_revision=self._if_revision,
            return_previous=self._previous,
        )
        response = await send(lambda to: to.state.Delete, request, request.options)
        return convert.delete_result(response, response.revision)


class Transact(Asked[state_pb2.TransactResponse]):
    """Applies a transaction, whose request names no namespace. It is built once, since a repeat must say the same."""

    __slots__ = ("_namespace", "_request")

    def __init__(self, namespace: str, request: state_pb2.TransactRequest, guard: LeaseGuard | None = None) -> None:
        self._namespace = namespace
        self.guard = guard
        self._request = request
        self.fits = True
        self.size = OPERATION_BYTES + request.ByteSize()

    def say(self, operation: state_pb2.PipelineOperation) -> None:
        operation.kind = TRANSACT
        operation.transact.MergeFrom(self._request)

    def answer(self, result: state_pb2.PipelineResult) -> state_pb2.TransactResponse:
        return result.transact

    async def alone(self, send: Send) -> state_pb2.TransactResponse:
        request = built(state_pb2.TransactRequest, namespace=self._namespace)
        request.MergeFrom(self._request)
        response: state_pb2.TransactResponse = await send(lambda to: to.state.Transact, request, request.options)
        return response


def _say_conditions(
    operation: state_pb2.PipelineOperation, if_version: int | None, if_revision: int | None, return_previous: bool
) -> bool:
    """Say when a write applies, and whether it is answered with what was there. Returns whether the key must not exist,
    which an operation says by its kind. Raises TypeError and ValueError."""
    creates = False
    if if_version is not None:
        operation.if_version = if_version
        creates = not operation.if_version
    if if_revision is not None:
        operation.if_revision = if_revision
        creates = creates or not operation.if_revision
    if return_previous is not False:
        operation.return_previous = return_previous
    return creates
