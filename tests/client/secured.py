"""Servers by TLS, and who may call them."""

import contextlib
import hashlib
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

import comity
from tests.authority import Authority, Pair
from tests.servers import Server
from tests.waiting import until


def tokens(**of: str) -> str:
    """A server's token file: of each name its token."""
    return "".join(f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n" for name, token in of.items())


async def take(server: Server, path: Path, *of_ann: str) -> None:
    """Have a server take these tokens alone, and return when it does."""
    marker = f"cmt_{uuid.uuid4().hex}"
    replace(path, "".join([tokens(marker=marker), *(tokens(ann=token) for token in of_ann)]))
    server.process.send_signal(signal.SIGHUP)

    async def taken() -> bool:
        try:
            await state.get("a")
        except comity.Unauthenticated:
            return False
        return True

    async with comity.connect(server.address, token=marker) as state:
        await until(taken)


def replace(path: Path, text: str) -> None:
    """Have a file hold something else, at one blow."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.rename(path)


@contextlib.asynccontextmanager
async def listener(pair: Pair | None, clients: Authority | None = None) -> AsyncIterator[str]:
    """The address of a gRPC server that offers nothing: for connections that are not to come about."""
    server = grpc.aio.server()
    if pair is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        credentials = grpc.ssl_server_credentials(
            [(pair.key.read_bytes(), pair.cert.read_bytes())],
            None if clients is None else clients.pem,
            clients is not None,
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
