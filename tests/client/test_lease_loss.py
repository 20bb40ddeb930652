"""Leases whose server or connection goes away, and holders that stand still: no loss goes without a word."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comity
from comity import Client, Lease, LeaseLost, LeaseNotFound, clock
from comity.leases import renewal
from comity.stubs import Stubs
from comity.v1 import lease_pb2
from tests import servers
from tests.client.leases import LONG, renewed
from tests.client.tries import noted
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until

TTL = 3.0


async def test_a_server_that_is_gone(namespace: str) -> None:
    """The holder knows by its own clock, not before the ttl has passed, and is told why."""
    told: list[float] = []
    leases: list[Lease] = []

    async def block(state: Client) -> None:
        async with state.lease(TTL) as lease:
            leases.append(lease)
            lease.on_lost(lambda _: told.append(clock.now()))
            await renewed(lease)
            server.kill()
            await asyncio.Event().wait()

    with servers.start() as server:
        async with comity.connect(server.address, namespace=namespace) as state:
            with pytest.raises(LeaseLost, match=r"no renewal was answered within its ttl of 3 s.*cannot reach"):
                await block(state)
    (lease,) = leases
    assert not lease.alive
    assert len(told) == 1
    assert told[0] >= lease._deadline


async def test_a_server_that_is_away_is_tried_by_calls_that_leave_nothing(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC keeps some memory of each stream that fails. Once the server is there again, the lease is renewed."""
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as state:
        lease = await state.grant_lease(LONG)
        await renewed(lease)
        tried = noted(monkeypatch, state._calls.channels.connection(), "leases", "KeepAlive")
        proxy.refuse()
        await proxy.cut()
        await until(lambda: tried.count("call") > 2)
        assert tried.count("call") > tried.count("stream")
        proxy.refuse(False)
        await renewed(lease)


async def test_the_end_of_a_block_does_not_wait_long_for_a_server_that_is_gone(namespace: str) -> None:
    """And what the block has raised is raised."""

    async def block(state: Client) -> None:
        async with state.lease(3600):
            server.kill()
            raise ZeroDivisionError

    with servers.start() as server:
        async with comity.connect(server.address, namespace=namespace, timeout=3600) as state:
            with pytest.raises(ZeroDivisionError):
                await block(state)
            server.restart()
            async with state.lease(3600):
                server.kill()


async def test_a_stream_that_is_cut(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as state:
        lease = await state.grant_lease(TTL)
        for _ in range(4):
            await renewed(lease)
            await proxy.cut()
        await renewed(lease)
        await state.put("a", 1, guard=lease)
        await lease.revoke()


async def test_a_server_that_does_not_answer(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as state:
        lease = await state.grant_lease(TTL)
        await renewed(lease)
        proxy.stall()
        await lease.lost()
        proxy.resume()
        with pytest.raises(LeaseLost, match="no renewal was answered"):
            lease.check()


async def test_another_way_is_taken_where_one_does_not_answer(server: Server, namespace: str) -> None:
    async with (
        Proxy(server.address) as one,
        Proxy(server.address) as other,
        comity.connect(f"{one.address},{other.address}", namespace=namespace) as state,
    ):
        lease = await state.grant_lease(TTL)
        await renewed(lease)
        assert not other.connections
        one.stall()
        await until(lambda: other.connections > 0, seconds=20)
        await renewed(lease)
        one.resume()


async def test_a_client_knows_of_an_end_when_it_is_connected_again(server: Server, namespace: str) -> None:
    """The server says it at the first renewal, long before the ttl has passed."""
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace) as state,
        comity.connect(server.address, namespace=namespace) as other,
    ):
        lease = await state.grant_lease(3600)
        await renewed(lease)
        proxy.refuse()
        await proxy.cut()
        await other.revoke_lease(lease.id)
        proxy.refuse(False)
        async with asyncio.timeout(20):
            await lease.lost()


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_another_server_of_the_same_redis(redis_url: str, namespace: str, end: str) -> None:
    with servers.start("--store", redis_url) as one, servers.start("--store", redis_url) as other:
        async with (
            comity.connect(f"{one.address},{other.address}", namespace=namespace) as state,
            state.lease(TTL) as lease,
        ):
            await renewed(lease)
            getattr(one, end)()
            await renewed(lease)
            await state.put("a", 1, lease=lease, guard=lease)


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_server_that_is_started_again(tmp_path: Path, namespace: str, end: str) -> None:
    """The lease has what it had left, and its holder goes on as if nothing had been."""
    with servers.start("--store", f"sqlite:{tmp_path / 'state.db'}") as server:
        async with comity.connect(server.address, namespace=namespace, timeout=30) as state:
            async with state.lease(20) as lease:
                await state.put("a", 1, lease=lease)
                await renewed(lease)
                getattr(server, end)()
                server.restart()
                await renewed(lease)
                await state.put("b", 1, guard=lease)
                found = await state.get_lease(lease)
                assert (found.key_count, found.ttl) == (1, 20)
            assert await state.get("a") is None


async def test_a_renewal_whose_stream_ends_before_it_is_written(tmp_path: Path, namespace: str) -> None:
    """What gRPC says of it is no reason to give up."""
    with servers.start("--store", f"sqlite:{tmp_path / 'state.db'}") as server:
        async with comity.connect(server.address, namespace=namespace, timeout=30) as state:
            lease = await state.grant_lease(60)
            await lease.close()
            broken = state._calls.channels.connection().leases.KeepAlive(timeout=30)
            await broken.wait_for_connection()
            calls = [broken]

            def renew(to: Stubs) -> renewal.Renew:
                return renewal.once(SimpleNamespace(leases=SimpleNamespace(KeepAlive=keep_alive(to))))  # type: ignore[arg-type]

            def keep_alive(to: Stubs) -> Callable[..., Any]:
                return lambda **options: calls.pop() if calls else to.leases.KeepAlive(**options)

            server.kill()  # the event loop hears of the end only afterwards
            server.restart()
            request = lease_pb2.KeepAliveRequest(namespace=namespace, lease_id=lease.id)
            assert 59 < await state._calls.read(renew, request, 30) <= 60
            assert not calls


async def test_an_event_loop_that_stood_still(server: Server, namespace: str) -> None:
    async with comity.connect(server.address, namespace=namespace) as state:
        told: list[Lease] = []
        lease = await state.grant_lease(TTL)
        lease.on_lost(told.append)
        await renewed(lease)
        time.sleep(TTL + 0.1)  # noqa: ASYNC251 - which is what it is about
        assert not lease.alive
        assert lease.remaining == 0
        with pytest.raises(LeaseLost, match="no renewal was answered"):
            await state.put("a", 1, guard=lease)
        await until(lambda: told == [lease])


HOLDER = """
    import asyncio, sys
    import comity

    async def main():
        async with comity.connect(sys.argv[1], namespace=sys.argv[2]) as state:
            lease = await state.grant_lease(1.0)
            lease.on_lost(lambda lease: print("told", flush=True))
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
            print(lease.id, flush=True)
            await reader.readline()
            print("alive" if lease.alive else "lost", flush=True)
            for guard in (lease, lease.guard):
                try:
                    await state.put("late", 1, guard=guard)
                    print("written", flush=True)
                except comity.LeaseLost:
                    print("refused", flush=True)
            await lease.lost()

    asyncio.run(main())
"""


@contextmanager
def holder(server: Server, namespace: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), server.address, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_holder_that_was_stopped_past_its_lease_writes_nothing(server: Server, namespace: str) -> None:
    """It knows as soon as it wakes up; and if it did not, the server would."""
    async with comity.connect(server.address, namespace=namespace) as state:
        with holder(server, namespace) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            id = int(await asyncio.to_thread(process.stdout.readline))
            process.send_signal(signal.SIGSTOP)

            async def has_ended() -> bool:
                try:
                    await state.get_lease(id)
                except LeaseNotFound:
                    return True
                return False

            await until(has_ended, seconds=20)
            process.stdin.write("go\n")
            process.stdin.flush()
            process.send_signal(signal.SIGCONT)
            lines = (await asyncio.to_thread(process.communicate))[0].split()
        assert process.returncode == 0
        assert sorted(lines) == ["lost", "refused", "refused", "told"]
        assert await state.get("late") is None
