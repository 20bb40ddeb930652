"""Servers that die, drain or are away, and proxies that break streams: nothing is lost, and nothing done twice."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

import comity
from comity import Client, Increment
from tests import servers
from tests.client.streams import Layer7, Watched, lanes
from tests.proxy import Proxy
from tests.redis_servers import program
from tests.servers import Server
from tests.waiting import until

TASKS = 32


async def count(client: Client, key: str, times: int, done: list[int]) -> None:
    for _ in range(times):
        await client.transact(then=[Increment(key)], timeout=60)
        done[0] += 1


async def value(client: Client, key: str) -> Any:
    entry = await client.get(key)
    return None if entry is None else entry.value


async def test_a_server_that_is_killed_under_many_writes_applies_each_once(tmp_path: Any, namespace: str) -> None:
    with servers.start("--store", f"sqlite:{tmp_path / 'state.db'}") as own:
        async with comity.connect(own.address, namespace=namespace) as client:
            done = [0]
            writing = [asyncio.create_task(count(client, f"n-{number % 4}", 20, done)) for number in range(TASKS)]
            for kill in range(1, 4):
                before = kill * 100
                await until(lambda before=before: done[0] >= before)  # type: ignore[misc]
                own.kill()
                await asyncio.to_thread(own.restart)
            await asyncio.gather(*writing)
            assert [await value(client, f"n-{number}") for number in range(4)] == [TASKS * 20 // 4] * 4
            assert sum([len(commit.events) async for commit in client.history()]) == TASKS * 20


async def test_a_connection_that_breaks_under_many_writes_applies_each_once(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as client:
        done = [0]
        writing = [asyncio.create_task(count(client, "n", 20, done)) for _ in range(TASKS)]
        while not all(task.done() for task in writing):
            before = done[0]
            proxy.cut_after(500)
            await until(lambda before=before: done[0] > before or done[0] == TASKS * 20)  # type: ignore[misc]
        await asyncio.gather(*writing)
        assert proxy.connections > 5
        assert await value(client, "n") == TASKS * 20


@pytest.mark.skipif(program() is None, reason="there is no redis-server")
async def test_a_server_that_drains_leaves_its_calls_to_another(redis_url: str, namespace: str) -> None:
    with servers.start("--store", redis_url) as first, servers.start("--store", redis_url) as second:
        # The client is at one server, until that one is of no use.
        addresses = f"{first.address},{second.address}"
        async with comity.connect(addresses, namespace=namespace) as client:
            done = [0]
            writing = [asyncio.create_task(count(client, "n", 40, done)) for _ in range(TASKS)]
            await until(lambda: done[0] >= 100)
            stopping = asyncio.create_task(asyncio.to_thread(first.stop))
            await asyncio.gather(*writing)
            assert await stopping == 0
            assert await value(client, "n") == TASKS * 40


async def test_a_server_that_drains_does_not_wait_for_idle_streams(namespace: str) -> None:
    with servers.start() as own:
        async with comity.connect(own.address, namespace=namespace) as client:
            await client.put("k", 1)
            assert await asyncio.to_thread(own.stop) == 0
            assert "still in progress" not in own.log()
            await asyncio.to_thread(own.restart)
            assert (await client.put("k", 2, timeout=60)).version == 1


async def refuse(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no streams here")


async def fail(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, "upstream sent RST_STREAM")


async def vanish(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "upstream reset before response started")


async def end(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """End well, without an answer."""


async def be_silent(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("break_off", [refuse, fail, vanish, end])
async def test_where_a_proxy_breaks_streams_calls_go_by_themselves(
    server: Server, namespace: str, break_off: Any
) -> None:
    async with (
        Layer7(server.address, break_off) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=30) as client,
    ):
        done = [0]
        await asyncio.gather(*(count(client, "n", 5, done) for _ in range(8)))
        assert await value(client, "n") == 40
        with pytest.raises(comity.Conflict):
            await client.put("n", 1, if_version=7)
        assert proxy.calls >= 42
        assert 1 <= proxy.streams <= 5  # it tries again, but seldom


async def test_where_a_proxy_holds_back_answers_calls_go_by_themselves(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.stream.PATIENCE_SECONDS", 0.3)
    async with (
        Layer7(server.address, be_silent) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=30) as client,
    ):
        done = [0]
        await asyncio.gather(*(count(client, "n", 5, done) for _ in range(8)))
        assert await value(client, "n") == 40
        assert proxy.calls >= 41


async def test_a_silent_stream_is_doubted_until_something_else_is_answered(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls that would tell fail at first, as where the proxy has just begun."""
    monkeypatch.setattr("comity.stream.PATIENCE_SECONDS", 0.1)
    async with (
        Beginning(server.address, be_silent, failing=2) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=30) as client,
    ):
        await client.put("n", 1)
        assert await value(client, "n") == 1
        assert proxy.failing == 0


class Beginning(Layer7):
    """A proxy whose first calls fail."""

    def __init__(self, target: str, break_off: Any, failing: int) -> None:
        super().__init__(target, break_off)
        self.failing = failing

    def handler(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        if self.streams and self.failing:
            self.failing -= 1

            async def refuse(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "beginning")

            return grpc.unary_unary_rpc_method_handler(refuse)
        return super().handler(method)


async def test_streams_are_tried_again_after_a_while(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.detour.ASIDE_SECONDS", (0.01, 0.05))
    async with (
        Layer7(server.address, refuse) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=30) as client,
    ):

        async def put_until(streams: int) -> bool:
            await client.put("k", 1)
            return proxy.streams >= streams

        await until(lambda: put_until(3))


async def test_what_was_sent_both_ways_is_done_once(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers to a stream are lost, so that the same writes go by themselves."""
    async with comity.connect(server.address, namespace=namespace) as client:
        await client.put("k", 1)
        watched = Watched(client)
        client_opens: Any = lanes(client).open

        def deaf(**options: Any) -> Any:
            call = client_opens(**options)

            async def read() -> Any:
                await call._call.read()  # an answer, which nobody gets
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "broken by something"
                )

            call.read = read
            return call

        monkeypatch.setattr(lanes(client), "open", deaf)
        other = client.with_options(author="bob")
        results = await asyncio.gather(*(other.transact(then=[Increment("n")]) for _ in range(50)))
        assert watched.operations == 50
        assert len({result.revision for result in results}) == 50
        assert await value(client, "n") == 50


@pytest.mark.parametrize("broken", ["read", "write"])
async def test_an_unforeseen_error_ends_the_stream_and_is_told(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """What is asked for meanwhile goes by itself, once."""
    monkeypatch.setattr("comity.stream.PATIENCE_SECONDS", 60.0)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with comity.connect(server.address, namespace=namespace, timeout=30) as client:
        await value(client, "n")
        Watched(client)
        client_opens: Any = lanes(client).open

        def broken_stream(**options: Any) -> Any:
            call = client_opens(**options)

            async def fail(*message: Any) -> Any:
                await getattr(call._call, broken)(*message)
                raise LookupError("unforeseen")

            setattr(call, broken, fail)
            return call

        monkeypatch.setattr(lanes(client), "open", broken_stream)
        other = client.with_options(author="bob")
        await asyncio.gather(*(other.transact(then=[Increment("n")]) for _ in range(5)))
        assert await value(client, "n") == 5
        # gRPC may tell of another test's event loop here, which has ended.
        assert [str(error) for context in told if isinstance(error := context["exception"], LookupError)] == [
            "unforeseen"
        ]


async def test_who_cancels_all_tasks_of_an_event_loop_has_streams_again(
    state: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.stream.CLEANUP_SECONDS", 0.1)
    await state.put("k", 1)
    watched = Watched(state)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    now = asyncio.get_running_loop().time()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert lanes(state).detour.lasts(now)  # else a cleanup while the event loop ends would begin tasks that nobody ends

    async def put_until_a_stream() -> bool:
        await state.put("k", 3)
        return watched.streams == 1

    await until(put_until_a_stream)


async def test_a_message_that_the_server_finds_too_large_does_not_fail_its_calls(namespace: str) -> None:
    with servers.start("--limit-value-bytes", "60000", "--limit-transaction-bytes", "60000") as own:
        async with comity.connect(own.address, namespace=namespace) as client:
            await asyncio.gather(*(client.put(f"{number}", bytes(50_000)) for number in range(40)))
            assert len(await client.list().all()) == 40


async def test_more_clients_than_a_connection_may_have_pipelines(server: Server, namespace: str) -> None:
    clients = [comity.connect(server.address, namespace=namespace, author=f"{number}") for number in range(24)]
    await asyncio.gather(*(client.transact(then=[Increment("n")]) for client in clients for _ in range(5)))
    assert await value(clients[0], "n") == 120
    await asyncio.gather(*(client.close() for client in clients))


def test_a_cleanup_while_the_event_loop_ends_may_write(server: Server, namespace: str) -> None:
    async def work(client: Client) -> None:
        await client.put("lock", 1)
        try:
            await asyncio.sleep(60)
        finally:
            await client.delete("lock")

    async def main() -> None:
        client = comity.connect(server.address, namespace=namespace)
        task = asyncio.create_task(work(client))

        async def locked() -> bool:
            return await client.get("lock") is not None

        await until(locked)
        assert not task.done()

    asyncio.run(main())

    async def left() -> Any:
        async with comity.connect(server.address, namespace=namespace) as client:
            return await client.get("lock")

    assert asyncio.run(left()) is None
