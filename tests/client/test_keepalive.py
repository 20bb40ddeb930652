"""A server that went without a word, its connection still open."""

import asyncio

import pytest

import comity
from comity import channel
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until

FASTER = 100
TIMES = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")


async def test_a_connection_without_answers_is_given_up(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of the client are a hundredth of what they are; those that it leaves to gRPC are as always."""
    faster = tuple((name, value // FASTER if name in TIMES else value) for name, value in channel.OPTIONS)
    monkeypatch.setattr(channel, "OPTIONS", faster)
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace, timeout=60) as state:
        put = await state.put("a", 1)
        proxy.stall()
        reading = asyncio.ensure_future(state.get("a"))
        await until(lambda: proxy.connections > 1, seconds=20)
        proxy.resume()
        entry = await reading
        assert entry is not None
        assert entry.mod_revision == put.revision
