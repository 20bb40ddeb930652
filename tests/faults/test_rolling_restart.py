"""Two servers over one Redis are restarted one after the other, under clients that know both: no call fails, no watch
has a gap, every increment counts, leases live and locks hold."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from comity import Client
from tests import servers
from tests.faults.mixed import COUNTED, GUARDED, Books, Follower, Mixed
from tests.redis_servers import program
from tests.servers import Server
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
ROUNDS = 20 if SOAK else 1
SECONDS = 60.0
DELAYS = (0.0, 0.5)  # seconds, of the drain of each server
PAUSE = 0.05


def drain(server: Server) -> None:
    assert server.stop() == 0


def kill(server: Server) -> None:
    server.kill()


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        arguments = [("--store", redis_url, "--drain-delay", str(delay)) for delay in DELAYS]
        starts = [asyncio.to_thread(servers.start, *each) for each in arguments]
        yield [stack.enter_context(server) for server in await asyncio.gather(*starts)]


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
async def test_no_call_fails_and_no_watch_has_a_gap(
    pair: list[Server], namespace: str, record_property: Callable[[str, object], None]
) -> None:
    first, second = (server.address for server in pair)
    orders = (f"{first},{second}", f"{second},{first}")
    load = Mixed(namespace, pause=PAUSE)
    async with load.connect(orders[0]) as client, asyncio.TaskGroup() as group:
        await load.begin(client)
        running = group.create_task(load.run(orders))
        await until(load.begun, SECONDS)
        for turn, end in enumerate(ROUNDS * (drain, drain, kill)):
            server = pair[turn % 2]
            await until(load.advanced(3), SECONDS)
            await asyncio.to_thread(end, server)
            await until(load.advanced(3), SECONDS)  # by the other one
            await asyncio.to_thread(server.restart)
            load.books.settle()
        await until(load.advanced(3), SECONDS)
        load.ended = True
        await running
        await check(load, client)
    record_property("longest_call_seconds", round(load.books.longest, 3))


async def check(load: Mixed, client: Client) -> None:
    """That all that was answered is there, as every watch saw it and as the history has it."""
    load.books.check()
    assert not load.books.unknown
    assert not any(follower.expired for follower in load.books.followers)
    follower = load.books.followers[0]
    whole = Follower(Books(load.books.asked))
    async for commit in client.history(newest_first=False):
        if not whole.ended:
            whole.see(commit)
    assert (whole.digest, whole.state) == (follower.digest, follower.state)
    made = follower.made
    assert follower.state[COUNTED] == made["count"] + made["thread"]
    assert follower.state[GUARDED] == made["lock"]
    assert min(made[kind] for kind in ("count", "thread", "lock", "put", "transfer", "present"))
