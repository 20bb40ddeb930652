"""State that outlives its server, its Redis and its store, and one client that several event loops use."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import comity
from comity import Client, Event
from tests.redis_servers import RedisServer
from tests.scenarios.places import DURABLE, Place, place, store_url


async def write_much(state: Client) -> dict[str, object]:
    for number in range(50):
        await state.put(f"agents/{number % 10}", {"step": number})
    await state.checkpoint("half", message="half-way")
    await state.delete("agents/3")
    await state.put("plan", ["a", "b"])
    return await everything(state)


async def everything(state: Client) -> dict[str, object]:
    return {
        "entries": await state.list("").all(),
        "half": await state.list("", revision=(await state.get_checkpoint("half")).revision).all(),
        "history": [commit async for commit in state.history()],
    }


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("kind", DURABLE)
async def test_state_survives_the_restart_of_the_server(kind: str, how: str, redis_server: RedisServer) -> None:
    with place(kind, redis_server) as made:
        async with (
            comity.connect(made.address, namespace="n", timeout=60) as state,
            state.watch("agents/") as watch,
        ):
            await watch.ready()
            before = await write_much(state)
            made.server.kill() if how == "kill" else made.server.stop()
            made.server.restart()
            assert await everything(state) == before
            written = await state.put("agents/0", "after")
            seen: list[int] = []
            async for event in watch:
                assert isinstance(event, Event)
                seen.append(event.revision)
                if event.revision == written.revision:
                    break
            assert seen == [*range(1, 52), written.revision]  # without a gap, over the restart


async def test_state_survives_the_restart_of_redis() -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as redis, place("redis", redis) as made:
        async with comity.connect(made.address, namespace="n", timeout=60) as state:
            before = await write_much(state)
            redis.kill()
            redis.start()
            assert await everything(state) == before
            made.server.restart()
            assert await everything(state) == before
            assert (await state.put("plan", "after")).revision == 53


@pytest.mark.parametrize(("source", "target"), [("sqlite", "redis"), ("redis", "sqlite")])
async def test_a_store_moves_and_its_agents_go_on(
    source: str, target: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with place(source, redis_server) as old:
        async with comity.connect(old.address, namespace="n", timeout=60) as state:
            before = await write_much(state)
        old.server.stop()
        new = store_url(target, redis_server, tmp_path)
        command = [sys.executable, "-m", "comity", "copy", "--from", old.url, "--to", new]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        moved = Place(target, new)
        try:
            async with comity.connect(moved.address, namespace="n", timeout=60) as state:
                assert await everything(state) == before
                assert (await state.put("plan", "after")).revision == 53
        finally:
            moved.server.close()


async def test_one_client_is_used_from_several_event_loops(shared: Place, world: Client) -> None:
    failures: list[Exception] = []

    def work(agent: int) -> None:
        async def go() -> None:
            for number in range(20):
                await world.put(f"loops/{agent}/{number}", number)
                assert (await world.get(f"loops/{agent}/{number}")) is not None
            async for _ in world.watch(f"loops/{agent}/", from_revision=1):
                break

        try:
            asyncio.run(go())
        except Exception as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(agent,)) for agent in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(world.put(f"loops/main/{number}", number) for number in range(20)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not failures
    assert len(await world.list("loops/").all()) == 5 * 20
