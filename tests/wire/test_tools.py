"""What operators look at: health of each service, reflection and channelz."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from comity_server.limits import Limits
from comity_server.services.health import Health
from tests import servers
from tests.http2 import StingyClient
from tests.wire.calls import TIMEOUT, Wire, refusal
from tests.wire.inprocess import HeldStore, run

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = {
    "comity.v1.StateService": SERVING,
    "comity.v1.NamespaceService": SERVING,
    "comity.v1.CheckpointService": SERVING,
    "comity.v1.LeaseService": SERVING,
}
TOOLS = [
    "grpc.health.v1.Health",
    "grpc.channelz.v1.Channelz",
    "grpc.reflection.v1alpha.ServerReflection",
    "comity.v1.ServerService",
]


@pytest.mark.parametrize(
    ("service", "status"), [("", SERVING), ("readiness", SERVING), ("liveness", SERVING), *SERVICES.items()]
)
def test_health_of_each_service(wire: Wire, service: str, status: int) -> None:
    health: Any = health_pb2_grpc.HealthStub(wire.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert health.Check(request, timeout=TIMEOUT).status == status
    stream = health.Watch(request, timeout=TIMEOUT)
    assert next(stream).status == status
    stream.cancel()


def test_health_of_an_unknown_service(wire: Wire) -> None:
    health: Any = health_pb2_grpc.HealthStub(wire.channel)
    request = health_pb2.HealthCheckRequest(service="comity.v1.Nothing")
    refused = refusal(lambda: health.Check(request, timeout=TIMEOUT))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_health_follows_the_store() -> None:
    async with run() as running:
        stream = running.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        for can_commit in (True, False, True):
            running.store.can_commit = can_commit
            assert (await stream.read()).status == (SERVING if can_commit else NOT_SERVING)
        stream.cancel()


async def test_a_store_that_cannot_even_be_asked_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise ZeroDivisionError

    async with run() as running:
        stream = running.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert (await stream.read()).status == SERVING
        with monkeypatch.context() as broken:
            broken.setattr(running.store, "writable", fail)
            assert (await stream.read()).status == NOT_SERVING
        assert (await stream.read()).status == SERVING
        stream.cancel()


async def test_health_is_said_only_where_it_changes() -> None:
    store = HeldStore(Limits())
    health = Health(store, ["a", "b"])
    health.update()
    context: Any = None
    said: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    async def watch(service: str) -> None:
        async for answer in health.Watch(health_pb2.HealthCheckRequest(service=service), context):
            said[service].append(health_pb2.HealthCheckResponse.FromString(answer).status)

    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(watch(service)) for service in said]
        for can_commit in (True, True, False, False, True):
            store.can_commit = can_commit
            health.update()
            await asyncio.sleep(0.001)
        health.drain()
        health.update()
        await asyncio.sleep(0.001)
        for task in watching:
            task.cancel()
    assert said["a"] == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    assert said["b"] == said["a"]
    assert said["c"] == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]


async def test_a_watcher_of_health_that_does_not_read_hides_nothing_from_others() -> None:
    async with run() as running, StingyClient(running.server.addresses[0]) as stingy:
        for _ in range(2):
            await stingy.call("/grpc.health.v1.Health/Watch", b"")
        stream = running.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert (await stream.read()).status == SERVING
        running.store.can_commit = False
        assert (await stream.read()).status == NOT_SERVING
        running.store.can_commit = True
        assert (await stream.read()).status == SERVING
        stopping = asyncio.create_task(running.server.stop())
        assert (await stream.read()).status == NOT_SERVING
        await stopping


def reflect(channel: grpc.Channel, **request: str) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])  # type: ignore[arg-type]
    (answer,) = stub.ServerReflectionInfo(requests, timeout=TIMEOUT)
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


def test_reflection_shows_all_of_the_contract(wire: Wire) -> None:
    listed = reflect(wire.channel, list_services="").list_services_response.service
    assert sorted(service.name for service in listed) == sorted([*SERVICES, *TOOLS])
    for symbol in (*SERVICES, "comity.v1.Entry"):
        found = reflect(wire.channel, file_containing_symbol=symbol)
        assert found.file_descriptor_response.file_descriptor_proto
    unknown = reflect(wire.channel, file_containing_symbol="comity.v1.Nothing")
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_channelz_shows_the_server(wire: Wire) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(wire.channel)
    found = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT)
    assert found.server[0].data.calls_started > 0


@pytest.mark.parametrize(
    ("method", "request_bytes", "code"),
    [
        ("grpc.health.v1.Health/Check", b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ("grpc.health.v1.Health/Watch", b"\x0a\x02\xff\xfe", grpc.StatusCode.INVALID_ARGUMENT),
        ("grpc.health.v1.Health/List", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("grpc.channelz.v1.Channelz/GetServers", b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ("grpc.channelz.v1.Channelz/GetServer", b"\x08\xe7\x07", grpc.StatusCode.NOT_FOUND),
        ("grpc.channelz.v1.Channelz/GetSocket", b"\x08" + b"\xff" * 9 + b"\x01", grpc.StatusCode.NOT_FOUND),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_tools_fail_like_everything_else(method: str, request_bytes: bytes, code: grpc.StatusCode) -> None:
    with servers.start() as server, grpc.insecure_channel(server.address) as channel:
        call: Any = channel.stream_stream(f"/{method}")
        refused = refusal(lambda: list(call(iter([request_bytes]), timeout=TIMEOUT)))
        assert (refused.code, refused.domain) == (code, "comity")
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def bare() -> Iterator[grpc.Channel]:
    with (
        servers.start("--no-reflection", "--no-channelz") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield channel


def test_reflection_and_channelz_can_be_turned_off(bare: grpc.Channel) -> None:
    assert refusal(lambda: reflect(bare, list_services="")).code is grpc.StatusCode.UNIMPLEMENTED
    stub = channelz_pb2_grpc.ChannelzStub(bare)
    asked = refusal(lambda: stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT))
    assert asked.code is grpc.StatusCode.UNIMPLEMENTED
    assert Wire(bare).put("n", "k") == 1
