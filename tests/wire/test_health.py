"""Who asks for health is answered: in a drain, in a crowd, and where the server offers nothing else."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2
from comity_server.server import Server
from comity_server.settings import Settings, SettingsError
from comity_server.sources import load
from comity_server.stores.memory.store import MemoryStore
from tests import servers
from tests.waiting import until
from tests.wire.calls import TIMEOUT, refusal
from tests.wire.inprocess import HeldStore, run

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
READY = ("", "readiness", "comity.v1.StateService", "comity.v1.LeaseService")
SERVICES = [
    service
    for file in (checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, channelz_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]


def ask(stub: Any, service: str) -> Any:
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)


def watch(stub: Any, service: str) -> Any:
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)


def put(key: str) -> state_pb2.PutRequest:
    return state_pb2.PutRequest(namespace="n", key=key)


async def test_a_store_that_cannot_commit_is_no_reason_for_a_restart() -> None:
    async with run() as running:
        ready, live = watch(running.health, "readiness"), watch(running.health, "liveness")
        assert (await ready.read()).status == (await live.read()).status == SERVING
        running.store.can_commit = False
        assert (await ready.read()).status == NOT_SERVING
        assert (await ask(running.health, "liveness")).status == SERVING
        running.store.can_commit = True
        assert (await ready.read()).status == SERVING
        ready.cancel()
        live.cancel()


async def test_a_drain_is_told_before_it_begins_and_answered_to_its_end() -> None:
    async with run(drain_delay=0.5, health_listen=["127.0.0.1:0"]) as running:
        (address,) = running.server.health_addresses
        async with grpc.aio.insecure_channel(address) as channel:
            apart: Any = health_pb2_grpc.HealthStub(channel)
            stubs = (running.health, apart)
            watches = [watch(stub, service) for stub in stubs for service in READY]
            lives = [watch(stub, "liveness") for stub in stubs]
            assert [(await stream.read()).status for stream in (*watches, *lives)] == [SERVING] * 10
            running.store.gate.clear()
            held = asyncio.ensure_future(running.state.Put(put("k"), timeout=TIMEOUT))
            await until(lambda: running.store.commits_begun == 1)

            stopping = asyncio.create_task(running.server.stop())
            assert [(await stream.read()).status for stream in watches] == [NOT_SERVING] * 8
            begun = running.server.calls.unary_calls
            late = asyncio.ensure_future(running.state.Put(put("late"), timeout=TIMEOUT))
            await until(lambda: running.server.calls.unary_calls == begun + 1)  # it is served

            async def refused() -> bool:
                get = running.state.Get(state_pb2.GetRequest(namespace="n", key="k"), timeout=TIMEOUT)
                return await get.code() is grpc.StatusCode.UNAVAILABLE

            await until(refused)
            assert not stopping.done()
            for stub in stubs:
                assert (await ask(stub, "liveness")).status == SERVING
                assert [(await ask(stub, service)).status for service in READY] == [NOT_SERVING] * 4
            running.store.gate.set()
            assert {(await held).revision, (await late).revision} == {1, 2}
            await stopping
            for live in lives:
                with pytest.raises(grpc.aio.AioRpcError):  # nothing was said meanwhile
                    assert not await live.read()


async def test_health_is_answered_where_a_connection_has_no_room_for_anything_else() -> None:
    async with run(max_connection_bytes=1) as running:
        running.store.gate.clear()
        puts = [asyncio.ensure_future(running.state.Put(put(f"{key}"), timeout=TIMEOUT)) for key in range(50)]
        await until(lambda: running.store.commits_begun == 1)
        assert (await ask(running.health, "")).status == SERVING
        stream = watch(running.health, "liveness")
        assert (await stream.read()).status == SERVING
        stream.cancel()
        assert running.server.calls.unary_calls == 1  # of those that wait for room, none was let in
        running.store.gate.set()
        await asyncio.gather(*puts)


async def test_health_is_answered_where_no_other_call_may_be_made() -> None:
    async with run(max_calls=1, max_principal_calls=1, max_principal_streams=1) as running:
        running.store.gate.clear()
        held = asyncio.ensure_future(running.state.Put(put("k"), timeout=TIMEOUT))
        await until(lambda: running.store.commits_begun == 1)
        late = running.state.Put(put("late"), timeout=TIMEOUT)
        assert await late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await ask(running.health, "")).status == SERVING
        streams = [watch(running.health, "readiness") for _ in range(3)]
        assert [(await stream.read()).status for stream in streams] == [SERVING] * 3
        for stream in streams:
            stream.cancel()
        running.store.gate.set()
        await held


class SlowStore(MemoryStore):
    """Takes as long to open as a test wants."""

    def __init__(self) -> None:
        settings = Settings()
        super().__init__(settings.limits())
        self.opening = asyncio.Event()
        self.gate = asyncio.Event()

    async def open(self) -> None:
        self.opening.set()
        await self.gate.wait()
        await super().open()


async def test_a_start_that_takes_long_is_live_and_not_ready() -> None:
    store = SlowStore()
    server = Server(Settings(listen=["127.0.0.1:0"], health_listen=["127.0.0.1:0"]), store)
    starting = asyncio.create_task(server.start())
    await store.opening.wait()
    async with grpc.aio.insecure_channel(server.health_addresses[0]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        stream = watch(health, "readiness")
        assert (await ask(health, "liveness")).status == SERVING
        assert (await stream.read()).status == NOT_SERVING
        store.gate.set()
        assert (await stream.read()).status == SERVING
        stream.cancel()
        await starting
        await server.stop()


async def test_a_start_that_fails_lets_go_of_the_address_of_its_health() -> None:
    async with run(health_listen=["127.0.0.1:0"]) as running:
        taken = running.server.addresses[0]
    server = Server(Settings(listen=[taken], health_listen=["127.0.0.1:0"]), HeldStore(Settings().limits()))
    await server.start()
    try:
        for listen, health in (([taken], ["127.0.0.1:0"]), (["127.0.0.1:0"], ["127.0.0.1:0", taken])):
            other = Server(Settings(listen=listen, health_listen=health), HeldStore(Settings().limits()))
            with pytest.raises(Exception, match=f"cannot listen on {taken}"):
                await other.start()
            for address in other.health_addresses:
                host, port = address.split(":")
                (await asyncio.start_server(lambda *_: None, host, int(port))).close()
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def apart() -> Iterator[grpc.Channel]:
    """The address for health alone of a server that offers all it can."""
    with (
        servers.start("--health-listen", "127.0.0.1:0", "--reflection", "--channelz") as server,
        grpc.insecure_channel(server.health_addresses[0]) as channel,
    ):
        yield channel


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_nothing_else_is_served_where_health_is(apart: grpc.Channel, method: MethodDescriptor) -> None:
    call: Any = apart.stream_stream(f"/{method.containing_service.full_name}/{method.name}")
    refused = refusal(lambda: list(call(itertools.repeat(b"", 1), timeout=TIMEOUT)))
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED


async def test_connections_are_bounded_where_health_is_alone() -> None:
    async with run(health_listen=["127.0.0.1:0"], max_connections=2, connection_idle=1) as running:
        host, port = running.server.health_addresses[0].split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        try:
            async with asyncio.timeout(TIMEOUT):
                for reader, _ in idle[2:]:
                    while await reader.read(1024):  # until the server has ended it
                        pass
                async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
                    health: Any = health_pb2_grpc.HealthStub(channel)
                    request = health_pb2.HealthCheckRequest()
                    answer = await health.Check(request, wait_for_ready=True)  # once the idle ones are sent away
                    assert answer.status == SERVING
        finally:
            for _, writer in idle:
                writer.close()


def test_requests_are_small_where_health_is_alone(apart: grpc.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(apart)
    assert ask(health, "readiness").status == SERVING
    assert refusal(lambda: ask(health, "none")).code is grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: ask(health, "n" * 2000)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("value", ["nothing", "127.0.0.1", "127.0.0.1:99999", ":1"])
def test_what_is_no_address_for_health_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=f"--health-listen: {value!r} is not HOST:PORT"):
        load({"health_listen": (value,)})


def test_an_address_has_one_use() -> None:
    with servers.start("--health-listen", "127.0.0.1:0") as server:
        for flag in ("--listen", "--health-listen"):
            refused = servers.run(flag, server.health_addresses[0])
            assert refused.returncode == 1
            assert "Address already in use" in refused.stderr
