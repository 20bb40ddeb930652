"""A Comity namespace as a peer, through the generated stubs alone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import grpc

from comity.v1 import namespace_pb2, namespace_pb2_grpc, state_pb2, state_pb2_grpc, types_pb2
from tests.peers.script import (
    Changed,
    Compare,
    DeleteStep,
    Ended,
    Entry,
    PutStep,
    Read,
    ReadStep,
    Refused,
    Seen,
    Step,
    Target,
)

SECONDS = 20.0
ABORTED = 10


@contextmanager
def refusals() -> Iterator[None]:
    """Makes an error of a call the one that both peers raise."""
    try:
        yield
    except grpc.RpcError as error:
        raise Refused(error.code().value[0], error.details() or "") from error


def entry_of(message: types_pb2.Entry) -> Entry:
    return Entry(message.key, message.value, message.version, message.create_revision, message.mod_revision)


def entries_of(messages: Iterable[types_pb2.Entry]) -> list[Entry]:
    return [entry_of(message) for message in messages]


class ComityPeer:
    """A new namespace, so that its revisions count from 0 by themselves."""

    def __init__(self, channel: grpc.Channel, namespace: str) -> None:
        self._state = state_pb2_grpc.StateServiceStub(channel)
        self._namespaces = namespace_pb2_grpc.NamespaceServiceStub(channel)
        self._namespace = namespace

    def transact(self, compares: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step]) -> Ended:
        request = state_pb2.TransactRequest(
            namespace=self._namespace,
            conditions=[_condition(compare) for compare in compares],
            then=[_operation(step) for step in then],
            otherwise=[_operation(step) for step in otherwise],
        )
        with refusals():
            answer = self._state.Transact(request, timeout=SECONDS)
        return Ended(answer.committed, answer.revision, [_result(result) for result in answer.results])

    def put(self, step: PutStep, if_field: str = "", if_number: int = 0) -> Ended:
        request = state_pb2.PutRequest(
            namespace=self._namespace, key=step.key, value=step.value, return_previous=step.previous
        )
        if if_field == "version":
            request.if_version = if_number
        elif if_field:
            request.if_revision = if_number
        try:
            with refusals():
                answer = self._state.Put(request, timeout=SECONDS)
        except Refused as refused:
            if refused.code != ABORTED:
                raise
            return Ended(False, 0, [])
        return Ended(True, answer.revision, [Changed(1, _if_set(answer))])

    def delete(self, step: DeleteStep) -> Ended:
        request = state_pb2.DeleteRequest(namespace=self._namespace, return_previous=step.previous)
        _aim(request, step.target)
        with refusals():
            answer = self._state.Delete(request, timeout=SECONDS)
        assert not answer.previous_truncated
        return Ended(True, answer.revision, [Changed(answer.deleted, entries_of(answer.previous))])

    def read(self, step: ReadStep, revision: int) -> Read:
        if step.target.is_prefix:
            return self._list(step, revision)
        request = state_pb2.GetRequest(namespace=self._namespace, key=step.target.name, revision=revision)
        with refusals():
            answer = self._state.Get(request, timeout=SECONDS)
        return Read([entry_of(answer.entry)] if answer.HasField("entry") else [], more=False)

    def watch(
        self, target: Target, from_revision: int, *, puts: bool, deletes: bool, previous: bool
    ) -> "ComityWatch":  # fmt: skip
        request = state_pb2.WatchRequest(namespace=self._namespace, from_revision=from_revision, previous=previous)
        _aim(request, target)
        if not (puts and deletes):
            request.event_types.append(types_pb2.EVENT_TYPE_PUT if puts else types_pb2.EVENT_TYPE_DELETE)
        return ComityWatch(self._state.Watch(request, timeout=SECONDS * 10), from_revision)

    def compact(self, revision: int) -> None:
        request = namespace_pb2.CompactRequest(namespace=self._namespace, revision=revision)
        with refusals():
            self._namespaces.Compact(request, timeout=SECONDS)

    def _list(self, step: ReadStep, revision: int) -> Read:
        """In pages of two, so that there are some."""
        request = state_pb2.ListRequest(
            namespace=self._namespace,
            prefix=step.target.name,
            keys_only=step.keys_only,
            revision=revision,
            page_size=2,
        )
        entries: list[Entry] = []
        while True:
            with refusals():
                page = self._state.List(request, timeout=SECONDS)
            entries += entries_of(page.entries)
            if not page.next_page_token:
                return Read(entries, more=False)
            request.page_token = page.next_page_token


class ComityWatch:
    """A stream that was created. What it shows waits in it until it is read."""

    def __init__(self, stream: "grpc._CallIterator[state_pb2.WatchResponse]", from_revision: int) -> None:
        self._stream = stream
        with refusals():
            first = next(stream)
        assert first.created
        assert not first.commits
        assert from_revision in (0, first.revision + 1)

    def until(self, revision: int) -> list[Seen]:
        seen: list[Seen] = []
        reached = 0
        for message in self._stream:
            for commit in message.commits:
                assert commit.events
                seen += (
                    Seen(
                        commit.revision,
                        event.type == types_pb2.EVENT_TYPE_DELETE,
                        entry_of(event.entry),
                        entry_of(event.previous) if event.HasField("previous") else None,
                    )
                    for event in commit.events
                )
            assert message.revision >= reached
            reached = message.revision
            if reached >= revision:
                break
        self._stream.cancel()
        return seen


def _aim(request: state_pb2.DeleteRequest | state_pb2.DeleteOperation | state_pb2.WatchRequest, target: Target) -> None:
    if target.is_prefix:
        request.prefix = target.name
    else:
        request.key = target.name


def _condition(compare: Compare) -> state_pb2.Condition:
    condition = state_pb2.Condition(key=compare.key, operator=state_pb2.Operator.Name(compare.operator))
    setattr(condition, compare.field, compare.operand)
    return condition


def _operation(step: Step) -> state_pb2.Operation:
    match step:
        case PutStep(key, value, previous):
            return state_pb2.Operation(put=state_pb2.PutOperation(key=key, value=value, return_previous=previous))
        case DeleteStep(target, previous):
            delete = state_pb2.DeleteOperation(return_previous=previous)
            _aim(delete, target)
            return state_pb2.Operation(delete=delete)
        case ReadStep(Target(name, True), limit, keys_only):
            return state_pb2.Operation(list=state_pb2.ListOperation(prefix=name, limit=limit, keys_only=keys_only))
        case ReadStep(Target(name, _)):
            return state_pb2.Operation(get=state_pb2.GetOperation(key=name))


def _result(result: state_pb2.OperationResult) -> Read | Changed:
    match result.WhichOneof("result"):
        case "put":
            return Changed(1, _if_set(result.put))
        case "delete":
            return Changed(result.delete.deleted, entries_of(result.delete.previous))
        case "list":
            return Read(entries_of(result.list.entries), result.list.more)
        case "get":
            return Read([entry_of(result.get.entry)] if result.get.HasField("entry") else [], more=False)
        case kind:
            raise AssertionError(kind)


def _if_set(answer: state_pb2.PutResponse | state_pb2.PutResult) -> list[Entry]:
    return [entry_of(answer.previous)] if answer.HasField("previous") else []
