"""Comity: the typed client, and the stub that unary calls are made with."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc

import comity
from comity.v1 import state_pb2, state_pb2_grpc

UNLIMITED = [("grpc.max_receive_message_length", -1)]


@contextlib.asynccontextmanager
async def typed(address: str, namespace: str) -> AsyncIterator["Typed"]:
    async with comity.connect(address, namespace=namespace, timeout=60) as client:
        yield Typed(client)


class Typed:
    """`comity.connect`, whose calls share messages."""

    def __init__(self, client: comity.Client) -> None:
        self._client = client

    async def put(self, key: str, value: bytes) -> None:
        await self._client.put(key, value)

    async def get(self, key: str) -> bytes | None:
        entry = await self._client.get(key)
        return None if entry is None else entry.data

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        await self._client.transact(then=[comity.Put(key, value) for key in keys])

    async def add(self, key: str) -> None:
        async def one_more(transaction: comity.Transaction) -> None:
            entry = await transaction.get(key)
            transaction.put(key, b"%d" % (1 if entry is None else int(entry.data) + 1))

        await self._client.transact(one_more)

    async def count(self, prefix: str) -> int:
        return len([entry async for entry in self._client.list(prefix)])


@contextlib.asynccontextmanager
async def stub(address: str, namespace: str) -> AsyncIterator["Stub"]:
    async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
        yield Stub(state_pb2_grpc.StateServiceStub(channel), namespace)


class Stub:
    """The generated stub, a unary call for each operation."""

    def __init__(self, made: "state_pb2_grpc.StateServiceAsyncStub", namespace: str) -> None:
        self._stub = made
        self._namespace = namespace

    async def put(self, key: str, value: bytes) -> None:
        await self._stub.Put(state_pb2.PutRequest(namespace=self._namespace, key=key, value=value))

    async def get(self, key: str) -> bytes | None:
        answer = await self._stub.Get(state_pb2.GetRequest(namespace=self._namespace, key=key))
        return answer.entry.value if answer.HasField("entry") else None

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        request = state_pb2.TransactRequest(namespace=self._namespace)
        for key in keys:
            put = request.then.add().put
            put.key, put.value = key, value
        await self._stub.Transact(request)

    async def add(self, key: str) -> None:
        version, number = 0, 0
        while True:
            request = state_pb2.TransactRequest(namespace=self._namespace)
            condition = request.conditions.add()
            condition.key, condition.version = key, version
            put = request.then.add().put
            put.key, put.value = key, b"%d" % (number + 1)
            answer = await self._stub.Transact(request)
            if answer.committed:
                return
            current = answer.failed[0].current
            version, number = current.version, int(current.value or 0)

    async def count(self, prefix: str) -> int:
        request = state_pb2.ListRequest(namespace=self._namespace, prefix=prefix)
        found = 0
        while True:
            page = await self._stub.List(request)
            found += len(page.entries)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found
