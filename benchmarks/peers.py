"""Starts the servers that are compared, and speaks to each through nothing but gRPC."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc

from comity.v1 import state_pb2

START_SECONDS = 30.0

Call = Callable[[str], Awaitable[object]]


class Peer(NamedTuple):
    """A server under load: each call takes the key that it is about."""

    name: str
    put: Call
    get: Call


VALUE = b"v" * 256

_Raw = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


@contextlib.asynccontextmanager
async def comity() -> AsyncIterator[Peer]:
    """`comity serve` with the store in memory."""
    command = [sys.executable, "-m", "comity", "serve", "--log-level", "warning"]
    with _process([*command, "--store", "memory:", "--listen", "127.0.0.1:0"]) as run:
        assert run.stdout is not None
        line = run.stdout.readline().decode()  # listening on 127.0.0.1:PORT
        if not line:
            raise RuntimeError("comity serve did not start")
        address = line.split()[-1]
        namespace = f"bench-{uuid.uuid4().hex}"
        async with grpc.aio.insecure_channel(address) as channel:
            put = channel.unary_unary(
                "/comity.v1.StateService/Put",
                request_serializer=state_pb2.PutRequest.SerializeToString,
                response_deserializer=state_pb2.PutResponse.FromString,
            )
            get = channel.unary_unary(
                "/comity.v1.StateService/Get",
                request_serializer=state_pb2.GetRequest.SerializeToString,
                response_deserializer=state_pb2.GetResponse.FromString,
            )
            yield Peer(
                "comity memory:",
                lambda key: put(state_pb2.PutRequest(namespace=namespace, key=key, value=VALUE)),
                lambda key: get(state_pb2.GetRequest(namespace=namespace, key=key)),
            )


@contextlib.asynccontextmanager
async def etcd() -> AsyncIterator[Peer]:
    """One etcd, which writes to disk. Its two messages are so small that they are written here by hand."""
    client, peer = f"127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
    program = shutil.which("etcd", path=str(Path(sys.executable).parent)) or "etcd"
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--data-dir", folder, "--log-level", "error"]
        command += ["--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"default={peer}"]
        with _process(command, subprocess.DEVNULL):  # it warns as it ends, whatever its log level is
            async with grpc.aio.insecure_channel(client) as channel:
                put: _Raw = channel.unary_unary("/etcdserverpb.KV/Put")
                get: _Raw = channel.unary_unary("/etcdserverpb.KV/Range")
                await get(_field(1, b"k"), wait_for_ready=True, timeout=START_SECONDS)
                yield Peer(
                    "etcd",
                    lambda key: put(_field(1, key.encode()) + _field(2, VALUE)),
                    lambda key: get(_field(1, key.encode())),
                )


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    length = bytearray()
    rest = len(data)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes([number << 3 | 2]) + bytes(length) + data


@contextlib.contextmanager
def _process(command: list[str], stderr: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield run
    finally:
        run.terminate()
        run.communicate()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
