"""What a Redis does to the servers that share it: calls fail soon and say why, and all goes on when it is well.

Nothing that was answered is lost, nothing is applied twice, and a history that Redis has lost is never gone on with.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import grpc
import pytest

import comity
from comity import Client, Event, Increment, Resync, Transaction
from comity.v1 import state_pb2 as s
from tests import servers
from tests.faults.sharing import NAME, NOT_SERVING, SERVING, sharing
from tests.proxy import Proxy
from tests.redis_servers import RedisServer, program
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
KILLS = 200 if SOAK else 8
SERVER_KILLS = 40 if SOAK else 4
CLIENTS = 8  # at each server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis.address) as proxy:
        yield proxy


async def test_restarts(redis: RedisServer) -> None:
    async with sharing(redis.url, redis.url) as shared:
        await asyncio.to_thread(redis.stop)
        await shared.says(NOT_SERVING)
        await shared.all_fails()
        await asyncio.to_thread(redis.start)
        await shared.recovers()


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
async def test_kills_under_load(redis: RedisServer) -> None:
    chance = random.Random(KILLS)
    async with sharing(redis.url, redis.url) as shared:
        ended = False

        async def write(number: int) -> None:
            while not ended:
                await shared.insist(shared.new(f"k/{number}"), number % 2)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(write(number))
            for _ in range(KILLS):
                wanted = len(shared.asked) + chance.randint(20, 200)
                await until(lambda wanted=wanted: len(shared.asked) > wanted)  # type: ignore[misc]
                redis.kill()
                await asyncio.to_thread(redis.start)
            ended = True
        await shared.recovers()


@pytest.mark.parametrize("how", ["refused", "frozen", "half-open"])
async def test_partitions(redis: RedisServer, proxy: Proxy, how: str) -> None:
    """Connections that are dropped, that say nothing more, and new ones that never say anything."""
    async with sharing(f"redis://{proxy.address}", redis.url) as shared:
        if how == "refused":
            proxy.refuse()
            await proxy.cut()
        else:
            proxy.stall()
            if how == "half-open":
                await proxy.cut()
        await shared.says(NOT_SERVING)
        await shared.all_fails()
        await shared.says(SERVING, of=1)
        await shared.send(shared.new("other"), 1)
        await proxy.cut()  # of what was held back nothing comes through
        proxy.refuse(False)
        proxy.resume()
        await shared.recovers()


async def test_answers_that_are_lost(redis: RedisServer, proxy: Proxy) -> None:
    """The script ran, and the connection broke before its answer came."""
    async with sharing(f"redis://{proxy.address}", redis.url) as shared:
        lost = 0
        while lost < 10:
            before = shared.ledgers[1].revision
            proxy.stall()
            writing = asyncio.create_task(shared.insist(shared.new("k")))
            try:
                await until(lambda before=before: shared.ledgers[1].revision > before, 3)  # type: ignore[misc]
                lost += 1
            except TimeoutError:  # another call had the connection, and a new one hears nothing: it was not even asked
                pass
            await proxy.cut()
            proxy.resume()
            await writing
        await shared.recovers()


async def test_a_slow_redis(redis: RedisServer, proxy: Proxy) -> None:
    async with sharing(f"redis://{proxy.address}") as shared:
        proxy.delay = 0.1
        await asyncio.gather(*(shared.send(shared.new("k")) for _ in range(5)))
        await shared.says(SERVING)
        proxy.delay = 0.0
        with redis.client() as client:
            sleeping = asyncio.create_task(asyncio.to_thread(client.execute_command, "DEBUG", "SLEEP", "1.5"))
            await shared.says(NOT_SERVING)
            await shared.send(shared.new("k"))
            await sleeping
        await shared.recovers()


@pytest.mark.parametrize("cause", ["full", "read-only"])
async def test_writes_that_redis_refuses(redis: RedisServer, cause: str) -> None:
    async with sharing(redis.url, redis.url) as shared:
        with redis.client() as client:
            if cause == "full":
                client.config_set("maxmemory", 1)
            else:
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
            for number in range(2):  # though nobody writes there
                await shared.says(NOT_SERVING, of=number)
            for _ in range(2):
                refusal = await shared.refused(shared.new("k").request)
                if cause == "full":
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
                else:
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                await shared.says(NOT_SERVING)
            for connection in shared.connections:
                found = await connection.call(s.ListRequest(namespace=NAME))
                assert len(found.entries) == 6
            if cause == "full":
                client.config_set("maxmemory", 0)
            else:
                client.execute_command("REPLICAOF", "NO", "ONE")
        await shared.recovers()


async def test_history_is_forgotten_where_redis_is_full(redis: RedisServer) -> None:
    """Which makes room, so that it takes writes again."""
    async with sharing(redis.url) as shared, comity.connect(shared.servers[0].address, namespace="old") as old:
        for number in range(300):
            await old.put("k", f"{number:03}" * 1000)
        with redis.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
            refusal = await shared.refused(shared.new("k").request)
            assert refusal.reason == "STORE_FULL"
            await old.compact()
            await shared.recovers()
            entry = await old.get("k")
            assert entry is not None
            assert entry.value == "299" * 1000


async def test_scripts_that_redis_has_forgotten(redis: RedisServer) -> None:
    async with sharing(redis.url) as shared:
        with redis.client() as client:
            for _ in range(3):
                client.script_flush()
                await shared.send(shared.new("k"))
        await shared.nothing_was_lost()


async def test_keys_of_another_program(redis: RedisServer) -> None:
    with redis.client() as client:
        client.hset("comity", "theirs", 1)
        client.rpush("queue", 1, 2)
        client.set("comity2:{n}:meta", "theirs")
        async with sharing(redis.url) as shared, comity.connect(shared.servers[0].address) as state:
            await state.put("k", 1)
            await state.put("k", 2)
            await state.compact(1)
            async with comity.connect(shared.servers[0].address, namespace="gone") as gone:
                await gone.put("k", 1)
                await gone.delete_namespace()
            assert client.hgetall("comity") == {b"theirs": b"1"}
            assert client.lrange("queue", 0, -1) == [b"1", b"2"]
            assert client.get("comity2:{n}:meta") == b"theirs"
            others = {b"comity", b"queue", b"comity2:{n}:meta"}
            assert all(key.startswith(b"comity:") for key in set(client.keys()) - others)


@pytest.mark.parametrize("how", ["flushed", "older"])
async def test_data_that_redis_has_lost(redis: RedisServer, how: str) -> None:
    """Watches end with a reason, typed ones begin anew, health says so for a while, and then all goes on."""
    async with sharing(redis.url, redis.url) as shared, AsyncExitStack() as stack:
        address = shared.servers[1].address
        state = await stack.enter_async_context(comity.connect(address, namespace="typed", timeout=30))
        watch = await stack.enter_async_context(state.watch())
        await watch.ready()
        aof = redis.folder / "appendonly.aof"
        await state.put("early", 1)
        assert isinstance(await anext(watch), Event)
        older = await asyncio.to_thread(aof.read_bytes)
        for number in range(5):
            await state.put(f"lost/{number}", number)
            assert isinstance(await anext(watch), Event)
        for _ in range(3):
            await shared.send(shared.new("lost"))
        await shared.nothing_was_lost()
        if how == "flushed":
            with redis.client() as client:
                client.flushall()
        else:
            redis.kill()
            await asyncio.to_thread(aof.write_bytes, older)
            await asyncio.to_thread(redis.start)
        await shared.says(NOT_SERVING, 3)
        await until(lambda: len(shared.ended) == 2, 10)
        assert {refusal.reason for refusal in shared.ended} <= {"EPOCH_CHANGED", "COMPACTED"}
        for number in range(10):  # the new history is longer than the one that was lost
            await state.put(f"new/{number}", number)
        seen: set[str] = set()
        found = await asyncio.wait_for(anext(watch), 10)
        while not isinstance(found, Resync):
            found = await asyncio.wait_for(anext(watch), 10)
        while len([key for key in seen if key.startswith("new/")]) < 10:
            if isinstance(found, Resync):
                seen = {entry.key for entry in found.entries}
            else:
                seen.add(found.entry.key)
            if len([key for key in seen if key.startswith("new/")]) < 10:
                found = await asyncio.wait_for(anext(watch), 10)
        assert not [key for key in seen if key.startswith("lost/")]
        for server in shared.servers:
            async with comity.connect(server.address, namespace="typed") as other:
                assert {entry.key async for entry in other.list()} == seen
        for number in range(2):
            await shared.says(SERVING, 10, number)


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
async def test_servers_that_are_killed_while_clients_contend(redis: RedisServer) -> None:
    """Sums are exact, and a watch that moves from server to server has every commit once."""
    async with AsyncExitStack() as stack:
        start = [asyncio.to_thread(servers.start, "--store", redis.url) for _ in range(2)]
        own = [stack.enter_context(server) for server in await asyncio.gather(*start)]
        addresses = [server.address for server in own]
        clients: list[Client] = []
        for number in range(2 * CLIENTS):
            first, second = addresses if number % 2 else reversed(addresses)
            client = comity.connect(f"{first},{second}", namespace=NAME, timeout=60)
            clients.append(await stack.enter_async_context(client))
        ended = False
        added = [0] * len(clients)

        async def add(tx: Transaction) -> None:
            entry = await tx.get("transacted")
            tx.put("transacted", (entry.value if entry else 0) + 1)

        async def write(number: int) -> None:
            while not ended:
                await clients[number].transact(then=[Increment("counted", 1)])
                await clients[number].transact(add)
                added[number] += 1

        revisions: list[list[int]] = [[], []]

        async def follow(number: int) -> None:
            async with clients[number].watch() as watch:
                async for event in watch:
                    assert isinstance(event, Event), event
                    revisions[number].append(event.revision)

        await clients[0].put("begun", 1)
        watching = [asyncio.create_task(follow(number)) for number in range(2)]
        async with asyncio.TaskGroup() as group:
            for number in range(len(clients)):
                group.create_task(write(number))
            for number in range(SERVER_KILLS):
                wanted = sum(added) + 50
                await until(lambda wanted=wanted: sum(added) >= wanted)  # type: ignore[misc]
                own[number % 2].kill()
                await asyncio.to_thread(own[number % 2].restart)
            ended = True
        for key in ("counted", "transacted"):
            entry = await clients[0].get(key)
            assert entry is not None
            assert entry.value == sum(added)
            assert entry.version == sum(added)
        last = (await clients[0].namespace_info()).revision
        assert last == 1 + 2 * sum(added)
        for number, seen in enumerate(revisions):
            await until(lambda seen=seen: bool(seen) and seen[-1] >= last, 20)  # type: ignore[misc]
            assert seen == list(range(seen[0], last + 1))
            watching[number].cancel()
        await asyncio.wait(watching)
