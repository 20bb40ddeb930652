"""Where an environment names a proxy of HTTP: what it reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import comity
from tests import servers
from tests.authority import Authority
from tests.servers import Server
from tests.waiting import until

TOKEN = "cmt_0123456789abcdef0123456789"


@asynccontextmanager
async def proxied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """With a proxy that the environment names: the first lines of what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        yield asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_it_reads_nothing_that_is_in_plain_text(
    server: Server, namespace: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token would be in it. The last host may be another machine, for all the client knows."""
    address = server.address.replace("127.0.0.1", host)
    async with (
        proxied(monkeypatch) as asked,
        comity.connect(address, namespace=namespace, tls=False, token=TOKEN) as state,
    ):
        await state.put("a", 1)
    assert not asked


async def test_it_has_no_part_in_tls_with_this_machine(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    pair = authority.server().write(tmp_path)
    with servers.start("--tls-cert", str(pair.cert), "--tls-key", str(pair.key)) as server:
        async with (
            proxied(monkeypatch) as asked,
            comity.connect(server.address, namespace=namespace, tls=comity.TLS(authority.write(tmp_path))) as state,
        ):
            await state.put("a", 1)
    assert not asked


async def test_it_may_pass_on_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        proxied(monkeypatch) as asked,
        comity.connect("state.invalid:7171", tls=True, token=TOKEN, timeout=60) as state,
    ):
        call = asyncio.ensure_future(state.get("a"))
        await until(lambda: bool(asked))
        call.cancel()
    assert asked[0].startswith(b"CONNECT state.invalid:7171 ")
