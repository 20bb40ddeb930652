"""What holds for every call: malformed messages, deadlines, cancellation, sizes."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, state_pb2_grpc
from comity.v1 import state_pb2 as s
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, Wire, read_refusal, refusal
from tests.wire.inprocess import run

MIB = 1024 * 1024
SERVICES = [
    service
    for file in (state_pb2, namespace_pb2, checkpoint_pb2, lease_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = [method for service in SERVICES for method in service.methods]
MALFORMED = [
    b"\xff",  # an unfinished tag
    b"\x0a\xff",  # a length beyond the end
    b"\x0a\x02\xc3\x28",  # a text that is not UTF-8
    b"\x07",  # a wire type that does not exist
]


def raw(wire: Wire, method: MethodDescriptor, data: bytes) -> Refusal:
    """Send bytes to a method, whatever they are."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel: Any = wire.channel

    def call() -> object:
        match method.client_streaming, method.server_streaming:
            case False, False:
                return channel.unary_unary(path)(data, timeout=TIMEOUT)
            case False, True:
                return list(channel.unary_stream(path)(data, timeout=TIMEOUT))
            case _:
                return list(channel.stream_stream(path)(iter([data]), timeout=TIMEOUT))

    return refusal(call)


@pytest.mark.parametrize("data", MALFORMED)
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_malformed_messages_are_the_clients_fault(wire: Wire, method: MethodDescriptor, data: bytes) -> None:
    refused = raw(wire, method, data)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(refused.fields) == ["request"]


def test_unknown_methods_and_services(wire: Wire) -> None:
    for path in ("/comity.v1.StateService/Nothing", "/comity.v2.StateService/Get", "/x/y"):
        call: Any = wire.channel.unary_unary(path)
        refused = refusal(lambda call=call: call(b"", timeout=TIMEOUT))  # type: ignore[misc]
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "")


def test_fields_of_a_later_contract_are_ignored(wire: Wire, namespace: str) -> None:
    request = s.PutRequest(namespace=namespace, key="k", value=b"v").SerializeToString()
    unknown = b"\xfa\x3e\x03new"  # field 1007
    call: Any = wire.channel.unary_unary("/comity.v1.StateService/Put")
    answer = call(request + unknown, timeout=TIMEOUT)
    assert s.PutResponse.FromString(answer).revision == 1


def test_messages_beyond_every_limit_are_refused(wire: Wire, namespace: str) -> None:
    request = s.PutRequest(namespace=namespace, key="k")
    for size, reason in ((5 * MIB - 1024, "INVALID_REQUEST"), (5 * MIB, "")):  # the second is refused by gRPC
        request.value = bytes(size)
        refused = wire.refused(request)
        assert refused.reason == reason
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert wire.get(namespace, "k") is None


def test_metadata_is_bounded(wire: Wire, namespace: str) -> None:
    request = s.GetRequest(namespace=namespace, key="k")
    wire.call(request, metadata=(("x", "x" * 15_000),))
    refused = wire.refused(request, metadata=(("x", "x" * 16_384),))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "")


def test_a_conflict_fits_into_a_trailer_however_long_the_key(wire: Wire, namespace: str) -> None:
    for key in ("\U0001f600" * 256, "\x01" * 1024, "k" * 1024):
        lost = wire.refused(s.PutRequest(namespace=namespace, key=key, if_version=1))
        assert (lost.code, lost.metadata["key"]) == (grpc.StatusCode.ABORTED, key)
        assert len(lost.message.encode()) < 512
        lost = wire.refused(s.DeleteRequest(namespace=namespace, key=key, if_version=1))
        assert lost.reason == "CONFLICT"


@pytest.fixture
def many_writes(wire: Wire, namespace: str) -> Iterator[threading.Event]:
    """Writes without end, so that calls have to wait a little."""
    stopped = threading.Event()

    def write() -> None:
        while not stopped.is_set():
            wire.put(namespace, "busy")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield stopped
    stopped.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("many_writes")
def test_deadlines(wire: Wire, namespace: str) -> None:
    """A call with too little time fails, at whatever point it is caught, and what it did is whole."""
    outcomes = []
    times = [-1.0, *(number**2 / 400_000 for number in range(200))]  # the first has passed, however fast the machine
    for number, time in enumerate(times):
        both = [s.Operation(put=s.PutOperation(key=f"{number:03}/{half}")) for half in "ab"]
        try:
            wire.call(s.TransactRequest(namespace=namespace, then=both), timeout=time)
            outcomes.append(True)
        except grpc.RpcError as error:
            assert read_refusal(error).code is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017
            outcomes.append(False)
    assert set(outcomes) == {False, True}
    written = {entry.key for entry in wire.call(s.ListRequest(namespace=namespace)).entries}
    for number, answered in enumerate(outcomes):
        found = {f"{number:03}/a", f"{number:03}/b"} & written
        assert len(found) == 2 or (not found and not answered)


async def test_cancelled_calls_and_streams_leave_nothing_behind(server: Server, namespace: str) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        for _ in range(20):
            streams = [stub.Watch(s.WatchRequest(namespace=namespace, prefix="")) for _ in range(10)]
            puts = [asyncio.ensure_future(stub.Put(s.PutRequest(namespace=namespace, key="k"))) for _ in range(10)]
            await asyncio.gather(*(stream.read() for stream in streams[:5]))
            for stream in streams:
                stream.cancel()
            for put in puts:
                put.cancel()
            await asyncio.gather(*puts, return_exceptions=True)
        answer = await stub.Put(s.PutRequest(namespace=namespace, key="k"), timeout=TIMEOUT)
        assert answer.version == answer.revision <= 201
    assert [line for line in server.log().splitlines() if '"level": "error"' in line] == []


async def test_a_client_that_vanishes_takes_its_streams_along(namespace: str) -> None:
    async with (
        run() as running,
        Proxy(running.server.addresses[0]) as proxy,
        grpc.aio.insecure_channel(proxy.address) as channel,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        streams = [stub.Watch(s.WatchRequest(namespace=namespace, prefix="")) for _ in range(50)]
        for stream in streams:
            await stream.read()
        assert running.server.calls.streams == 50
        await proxy.cut()  # without a word
        await until(lambda: running.server.calls.streams == 0, 10)
        assert not running.store._listeners
