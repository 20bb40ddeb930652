"""etcd: aetcd, and a bare channel of grpc.aio that is handed bytes."""

import contextlib
import importlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from benchmarks.peers import etcd
from benchmarks.peers.process import Missing

UNLIMITED = [("grpc.max_receive_message_length", -1)]


def check() -> None:
    """Raises Missing."""
    try:
        importlib.import_module("aetcd")
    except ImportError:
        raise Missing("aetcd is left out: it is not installed (it comes with the extra bench)") from None


@contextlib.asynccontextmanager
async def typed(address: str, namespace: str) -> AsyncIterator["Typed"]:
    aetcd: Any = importlib.import_module("aetcd")
    host, _, port = address.rpartition(":")
    async with aetcd.Client(host, int(port), options=dict(UNLIMITED)) as client:
        yield Typed(client, namespace)


class Typed:
    """aetcd.Client. `add` is a transaction on the value's version."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._prefix = f"{namespace}/".encode()

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    async def put(self, key: str, value: bytes) -> None:
        await self._client.put(self._key(key), value)

    async def get(self, key: str) -> bytes | None:
        found = await self._client.get(self._key(key))
        return None if found is None else bytes(found.value)

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        put = self._client.transactions.put
        await self._client.transaction(compare=[], success=[put(self._key(key), value) for key in keys], failure=[])

    async def add(self, key: str) -> None:
        name, make = self._key(key), self._client.transactions
        while True:
            found = await self._client.get(name)
            version, number = (0, 0) if found is None else (found.version, int(found.value))
            done, _ = await self._client.transaction(
                compare=[make.version(name) == version], success=[make.put(name, b"%d" % (number + 1))], failure=[]
            )
            if done:
                return

    async def count(self, prefix: str) -> int:
        return len(list(await self._client.get_prefix(self._key(prefix))))


@contextlib.asynccontextmanager
async def stub(address: str, namespace: str) -> AsyncIterator["Stub"]:
    async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
        yield Stub(channel, namespace)


class Stub:
    """A unary call for each operation, whose answers are not even parsed."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        self._put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)
        self._range: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.RANGE)
        self._txn: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.TXN)
        self._prefix = f"{namespace}/".encode()

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    async def put(self, key: str, value: bytes) -> None:
        await self._put(etcd.put(self._key(key), value))

    async def get(self, key: str) -> bytes | None:
        return await self._range(etcd.get(self._key(key)))

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        await self._txn(etcd.put_all(map(self._key, keys), value))

    async def add(self, key: str) -> None:
        raise NotImplementedError("what does not parse its answers cannot tell what it read")

    async def count(self, prefix: str) -> int:
        raise NotImplementedError("what does not parse its answers cannot count them")
