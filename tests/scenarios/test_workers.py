"""`comity serve --workers`: several processes on one port, over one Redis."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import comity
from comity import Event
from comity.v1 import state_pb2 as s
from comity_server import workers
from comity_server.listening import ListenError, free
from comity_server.services.health import LIVENESS, READINESS
from comity_server.settings import Settings
from tests import servers
from tests.redis_servers import RedisServer
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire, read_refusal

COUNT = 2
DRAIN_SECONDS = 60


@pytest.fixture
def server(redis_url: str) -> Iterator[servers.Server]:
    with servers.start("--store", redis_url, "--workers", str(COUNT), "--drain-timeout", str(DRAIN_SECONDS)) as running:
        yield running


def processes(server: servers.Server) -> Sequence[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def port(server: servers.Server) -> int:
    return int(server.address.rpartition(":")[2])


def serving(server: servers.Server, process: psutil.Process) -> int:
    """How many connections of clients a worker has."""
    found = process.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port(server) for one in found)


def connect(server: servers.Server, stack: ExitStack) -> Wire:
    """Over a connection of its own, which the system gives to one of the workers."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return Wire(stack.enter_context(grpc.insecure_channel(server.address, options)))


def connect_to_each(server: servers.Server, stack: ExitStack) -> list[Wire]:
    wires: list[Wire] = []
    while len(wires) < 200 and (not wires or not all(serving(server, one) for one in processes(server))):
        wires.append(connect(server, stack))
        wires[-1].get("n", "nothing")
    assert all(serving(server, one) for one in processes(server))
    return wires


def test_any_worker_answers_and_each_sees_what_the_others_wrote_at_once(server: servers.Server) -> None:
    assert server.output == [f"listening on {server.address}\n"]
    assert len(processes(server)) == COUNT
    with ExitStack() as stack:
        wires = connect_to_each(server, stack)
        for number, writer in enumerate(wires):
            assert writer.put("n", "k", b"%d" % number) == number + 1
            for reader in wires:
                assert reader.get("n", "k") == b"%d" % number


async def test_a_watch_goes_on_when_its_worker_is_killed(server: servers.Server) -> None:
    async with comity.connect(server.address, namespace="n", timeout=30) as client, client.watch() as watch:
        await watch.ready()
        last = 0
        for victim in processes(server):  # one of them has the stream, and later another one
            last = (await client.put("k", last)).revision
            victim.kill()
            last = (await client.put("k", last)).revision
            await until(lambda: len(processes(server)) == COUNT)
        seen: list[int] = []
        while len(seen) < last:
            event = await anext(watch)
            assert isinstance(event, Event)
            seen.append(event.revision)
        assert seen == list(range(1, last + 1))
    log = server.log()
    assert log.count("another one takes its place") == COUNT
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all(server: servers.Server, number: signal.Signals) -> None:
    started = processes(server)
    with ExitStack() as stack:
        streams = [one.state.Watch(s.WatchRequest(namespace="n", prefix="")) for one in connect_to_each(server, stack)]
        for stream in streams:
            next(stream)
        server.process.send_signal(number)
        for stream in streams:
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert read_refusal(ended.value).reason == "DRAINING"
    assert server.wait() == 0
    assert not any(one.is_running() for one in started)
    assert server.log().count('"stopped"') == COUNT
    assert "Traceback" not in server.log()


async def test_each_drains_after_the_delay_and_says_so_before(redis_url: str) -> None:
    arguments = ("--store", redis_url, "--workers", "2", "--drain-delay", "2", "--health-listen", "127.0.0.1:0")
    with servers.start(*arguments) as server, ExitStack() as stack:
        assert server.output[0] == f"health on {server.health_addresses[0]}\n"
        wires = connect_to_each(server, stack)
        healths: list[Any] = [health_pb2_grpc.HealthStub(wire.channel) for wire in wires]
        watches = [health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT) for health in healths]
        apart: Any = health_pb2_grpc.HealthStub(stack.enter_context(grpc.insecure_channel(server.health_addresses[0])))
        for stream in watches:
            assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
        server.process.terminate()
        for stream, wire in zip(watches, wires, strict=True):
            assert next(stream).status == health_pb2.HealthCheckResponse.NOT_SERVING
            wire.put("n", "k")
        for service, status in ((LIVENESS, "SERVING"), (READINESS, "NOT_SERVING")):
            answer = apart.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
        assert server.wait() == 0
        assert server.log().count('"draining soon') == server.log().count('"stopped"') == 2


async def test_a_second_signal_ends_all_at_once(server: servers.Server) -> None:
    started = processes(server)
    with ExitStack() as stack:
        wire = connect(server, stack)
        stream = wire.state.Watch(s.WatchRequest(namespace="n", prefix=""))
        next(stream)
        for _ in range(30):  # more than the connection takes of a stream that is not read
            wire.put("n", "k", bytes(1024 * 1024))
        server.process.terminate()
        await until(lambda: server.log().count('"draining"') == COUNT)
        server.process.terminate()
        assert server.wait(DRAIN_SECONDS / 2) == -signal.SIGTERM
        await until(lambda: not any(one.is_running() for one in started), DRAIN_SECONDS / 2)
        stream.cancel()


async def test_workers_end_when_the_one_that_started_them_is_killed(server: servers.Server) -> None:
    started = processes(server)
    server.kill()
    await until(lambda: not any(one.is_running() for one in started))
    assert server.log().count('"draining"') == COUNT


def test_a_port_of_a_server_with_workers_is_taken_for_all_others(server: servers.Server, redis_url: str) -> None:
    for arguments in ((), ("--store", redis_url), ("--store", redis_url, "--workers", "2")):
        refused = servers.run(*arguments, "--listen", server.address)
        assert refused.returncode == 1
        assert f"cannot listen on {server.address}: Address already in use" in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_workers_find_a_port_taken(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = servers.run("--store", redis_url, "--workers", "2", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert refused.returncode == 1
    assert "Address already in use" in refused.stderr


@pytest.mark.parametrize("store", ["memory:", "sqlite:state.db"])
def test_workers_need_a_store_that_they_can_share(store: str, tmp_path: Path) -> None:
    refused = servers.run("--store", store.replace("state", str(tmp_path / "state")), "--workers", "2")
    assert refused.returncode == 2
    assert f"workers: several processes can share a Redis, and not {store.partition(':')[0]}:" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_there_is_said_once() -> None:
    refused = servers.run("--store", "redis://127.0.0.1:1", "--workers", "3")
    assert refused.returncode == 1
    assert refused.stderr.count("Redis cannot be reached") == 1
    assert "127.0.0.1:1" in refused.stderr


def test_workers_ask_as_much_of_redis_as_one_server() -> None:
    with RedisServer("--appendfsync", "everysec") as redis:
        refused = servers.run("--store", redis.url, "--workers", "2", "--require-durable")
        assert (refused.returncode, "appendfsync is everysec" in refused.stderr) == (1, True)
        strict = ("--store", redis.url, "--workers", "2", "--redis-wait-replicas", "1")
        with servers.start(*strict) as running, ExitStack() as stack, pytest.raises(grpc.RpcError) as failed:
            connect(running, stack).put("n", "k")
    assert "0 of 1 replicas" in read_refusal(failed.value).message


def test_a_port_is_chosen_once_for_all_addresses_of_a_host_and_kept() -> None:
    with workers.reserved(["127.0.0.1:0", "localhost:0"]) as addresses:
        assert all(int(address.rpartition(":")[2]) for address in addresses)
        assert len(set(addresses)) == 2
        for address in addresses:
            free(address, shared=True)
            with workers.reserved([address]) as again:
                assert again == [address]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError), workers.reserved([address]):
            pass


async def test_a_worker_that_dies_again_and_again_ends_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "TRIES", 2)
    monkeypatch.setattr(workers, "BACKOFF_SECONDS", (0.0, 0.0))
    served = asyncio.Event()
    script = f"""
import json, os, sys
number = json.loads(sys.stdin.readline())["worker"]
first = not os.path.exists({str(tmp_path / "died")!r})
print("{{}}", flush=True)
sys.stdin.readline() if number == 1 or first else sys.exit(7)
"""
    command = [sys.executable, "-c", script]
    running = asyncio.create_task(workers.Workers(command, "", 2, patience=60).run(served.set))
    async with asyncio.timeout(60):
        await served.wait()
        (tmp_path / "died").touch()
        ours = [one for one in psutil.Process().children() if str(tmp_path) in " ".join(one.cmdline())]
        second = max(ours, key=lambda one: one.create_time())
        second.kill()
        with pytest.raises(workers.WorkerError, match="worker 2 died 3 times in a row: it ended with 7") as ended:
            await running
    assert ended.value.code == 7


async def test_a_worker_that_cannot_start_for_want_of_the_store_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However long: those that serve go on."""
    monkeypatch.setattr(workers, "TRIES", 2)
    monkeypatch.setattr(workers, "BACKOFF_SECONDS", (0.0, 0.0))
    starts = tmp_path / "starts"
    starts.write_text("")
    served = asyncio.Event()
    script = f"""
import json, sys
number = json.loads(sys.stdin.readline())["worker"]
with open({str(starts)!r}, "a+") as starts:
    starts.write(str(number))
    starts.seek(0)
    before = starts.read().count("2")
if number == 2 and 1 < before < 8:
    print(json.dumps({{"error": "Redis cannot be reached", "unavailable": True}}), flush=True)
    sys.exit(1)
print("{{}}", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", script]
    running = asyncio.create_task(workers.Workers(command, "", 2, patience=60).run(served.set))

    def ours() -> Sequence[psutil.Process]:
        return [one for one in psutil.Process().children() if str(tmp_path) in " ".join(one.cmdline())]

    async with asyncio.timeout(60):
        await served.wait()
        max(ours(), key=lambda one: one.create_time()).kill()
        await until(lambda: starts.read_text().count("2") == 8 or running.done())
        assert not running.done()
        await until(lambda: len(ours()) == 2)
        signal.raise_signal(signal.SIGTERM)
        await running


async def test_a_worker_that_does_not_end_is_killed() -> None:
    script = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", flush=True)
while True:
    signal.pause()
"""
    served = asyncio.Event()
    running = asyncio.create_task(workers.Workers([sys.executable, "-c", script], "", 2, patience=0.1).run(served.set))
    async with asyncio.timeout(60):
        await served.wait()
        signal.raise_signal(signal.SIGTERM)
        assert await running == 128 + signal.SIGKILL


def test_a_worker_says_that_the_store_is_not_there() -> None:
    told = {"worker": 2, "settings": Settings(store="redis://127.0.0.1:1").model_dump_json()}
    ended = subprocess.run(
        [sys.executable, "-m", "comity_server.worker"], input=json.dumps(told) + "\n", capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["unavailable"] is True


def test_settings_reach_the_workers_as_they_are() -> None:
    settings = Settings(listen=["127.0.0.1:1"], store="redis://user:secret@host", workers=2, retention_age=1.5)
    assert Settings(**json.loads(settings.model_dump_json())) == settings


async def test_a_signal_to_reload_passes_over_a_worker_that_has_just_died() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    group = workers.Workers([], "", 1, patience=60)
    group._running[1] = process
    group._serving.add(1)  # until its keeper has its turn
    group._reload()
