"""How a server ends: what was begun is finished, watchers are sent elsewhere, and a second signal ends it at once."""

import asyncio
import contextlib
import signal
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from comity.v1 import state_pb2 as s
from comity_server import server
from comity_server.telemetry.trail import Trail
from tests import servers
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire, read_refusal
from tests.wire.inprocess import run

MIB = 1024 * 1024


async def test_what_was_begun_is_finished_and_watchers_see_it() -> None:
    async with run() as running:
        store = running.store
        watch = running.state.Watch(s.WatchRequest(namespace="n", prefix=""), timeout=TIMEOUT)
        first = await watch.read()
        assert isinstance(first, s.WatchResponse)
        assert first.created
        health = running.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        store.gate.clear()
        put = asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT))
        await until(lambda: store.commits_begun == 1)

        stopping = asyncio.create_task(running.server.stop())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await running.state.Put(s.PutRequest(namespace="n", key="late"), timeout=TIMEOUT)
        assert late.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not put.done()
        assert not stopping.done()

        store.gate.set()
        assert (await put).revision == 1
        seen = await watch.read()
        assert isinstance(seen, s.WatchResponse)
        assert (seen.revision, [commit.revision for commit in seen.commits]) == (1, [1])
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watch.read()
        refused = read_refusal(ended.value)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refused.retry_after is not None
        async with asyncio.timeout(10):
            await stopping
        assert store.closed
        assert store.commits_begun == 1


async def test_what_hangs_does_not_hold_up_the_end_for_ever() -> None:
    async with run(drain_timeout=0.2) as running:
        running.store.gate.clear()
        put = asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT))
        await until(lambda: running.store.commits_begun == 1)
        async with asyncio.timeout(10):
            await running.server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await put
        assert ended.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_call_whose_trail_cannot_end_is_over_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:

        def fail(_: Trail) -> None:
            raise RuntimeError

        monkeypatch.setattr(Trail, "end", fail)
        calls = running.server.calls
        await asyncio.gather(
            running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT),
            running.state.Watch(s.WatchRequest(namespace="n", prefix="", from_revision=-1), timeout=TIMEOUT).read(),
            return_exceptions=True,
        )
        await until(lambda: (calls.unary_calls, calls.streams) == (0, 0), seconds=10)


async def test_what_goes_on_in_the_background_and_does_not_end_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "TASKS_END_SECONDS", 0.1)
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    with capture_logs() as log:
        async with run() as running, asyncio.timeout(30):
            running.server._tasks.append(asyncio.create_task(stubborn()))
            await running.server.stop()
            assert running.store.closed
            released.set()
    assert "what went on in the background did not end" in [line["event"] for line in log]


async def test_a_cancellation_that_a_store_loses_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As redis-py does, of one that comes while it connects."""
    async with run() as running:
        asked, lost = asyncio.Event(), asyncio.Event()

        async def due() -> dict[str, list[int]]:
            try:
                asked.set()
                await asyncio.sleep(3600 if not lost.is_set() else 0)
            except asyncio.CancelledError:
                lost.set()
            return {}

        monkeypatch.setattr(running.store, "due", due)
        async with asyncio.timeout(10):
            await asked.wait()
            await running.server.stop()
        assert lost.is_set()


@pytest.mark.parametrize("busy", [True, False])
async def test_an_end_at_once_says_what_it_left_and_only_then(busy: bool) -> None:
    async with run(drain_timeout=0) as running:
        running.store.gate.clear()
        put = running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT)
        if busy:
            await until(lambda: running.store.commits_begun == 1)
        else:
            put.cancel()
        await until(lambda: running.server.calls.unary_calls == int(busy))
        with capture_logs() as log:
            stopping = asyncio.create_task(running.server.stop())
            await until(lambda: any(line["event"] == "draining" for line in log))
            running.store.gate.set()
            await stopping
        warned = [line["event"] for line in log if line["log_level"] == "warning"]
        assert warned == (["requests were still in progress when the drain timeout ended"] if busy else [])


async def test_writes_that_wait_are_bounded() -> None:
    async with run(max_pending=3) as running:
        running.store.gate.clear()

        def put() -> "asyncio.Future[s.PutResponse]":
            return asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT))

        first = put()
        await until(lambda: running.store.commits_begun == 1)
        waiting = [put() for _ in range(10)]
        await until(lambda: sum(one.done() for one in waiting) == 7)
        for one in waiting:
            if one.done():
                error = one.exception()
                assert isinstance(error, grpc.aio.AioRpcError)
                refused = read_refusal(error)
                assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
                assert refused.retry_after is not None
        running.store.gate.set()
        answers = [await one for one in (first, *waiting) if not one.done() or one.exception() is None]
        assert [answer.revision for answer in answers] == [1, 2, 3, 4]


async def test_a_deadline_ends_the_wait_for_a_slow_store() -> None:
    async with run(max_pending=1) as running:
        running.store.gate.clear()
        first = asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="1"), timeout=TIMEOUT))
        await until(lambda: running.store.commits_begun == 1)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await running.state.Put(s.PutRequest(namespace="n", key="2"), timeout=0.1)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: running.server.calls.unary_calls == 1)
        running.store.gate.set()
        await first
        await running.state.Put(s.PutRequest(namespace="n", key="3"), timeout=TIMEOUT)
        listed = await running.state.List(s.ListRequest(namespace="n"))
        assert [entry.key for entry in listed.entries] == ["1", "3"]  # what was cancelled in the queue never began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_streams_with_draining(number: signal.Signals) -> None:
    with servers.start() as server, grpc.insecure_channel(server.address) as channel:
        streams = [Wire(channel).state.Watch(s.WatchRequest(namespace=f"n{one}", prefix="")) for one in range(10)]
        for stream in streams:
            next(stream)
        server.process.send_signal(number)
        for stream in streams:
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            refused = read_refusal(ended.value)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert server.wait() == 0
        assert '"error"' not in server.log()
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    with servers.start() as server, grpc.insecure_channel(server.address) as channel:
        wire = Wire(channel)
        stream = wire.state.Watch(s.WatchRequest(namespace="n", prefix=""))
        next(stream)
        for _ in range(30):  # far more than the connection takes of a stream that is not read
            wire.put("n", "k", bytes(MIB))
        server.process.send_signal(number)
        await until(lambda: '"draining"' in server.log())
        server.process.send_signal(number)
        assert server.wait() == -number  # and not 0, as after a drain
        stream.cancel()


def test_writes_under_way_end_with_an_answer_or_unavailable() -> None:
    with servers.start() as server, grpc.insecure_channel(server.address) as channel:
        wire = Wire(channel)
        wire.put("n", "first")
        codes: list[grpc.StatusCode] = []
        begun = threading.Barrier(9)

        def write() -> None:
            begun.wait(TIMEOUT)
            try:
                while True:
                    wire.put("n", "k")
            except grpc.RpcError as error:
                codes.append(read_refusal(error).code)

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        begun.wait(TIMEOUT)
        assert server.stop() == 0
        for thread in threads:
            thread.join(TIMEOUT)
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 8
        assert "Traceback" not in server.log()
