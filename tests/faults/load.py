"""Clients that write without end, each with request ids, and that send again what they have no answer to."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import (
    checkpoint_pb2_grpc,
    namespace_pb2_grpc,
    state_pb2_grpc,
)
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.faults.ledger import VALUES, Asked, short

SECONDS = 60.0
PAIRED = 5  # keys that are always written together
LARGE = 150_000  # bytes: enough of these make SQLite move its log into the file
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 50),
]


class Connection:
    """Every method of the contract, by the type of its request."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self.state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(self.channel)
        self._stubs: list[Any] = [
            self.state,
            checkpoint_pb2_grpc.CheckpointServiceStub(self.channel),
            namespace_pb2_grpc.NamespaceServiceStub(self.channel),
        ]

    async def call(self, request: Any) -> Any:
        name = type(request).__name__.removesuffix("Request")
        (method,) = (getattr(stub, name) for stub in self._stubs if hasattr(stub, name))
        return await method(request, timeout=SECONDS)


class Load:
    """What all clients have in common: a gate that is closed while there is no server, and what they asked for."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: dict[str, Asked] = {}
        self.answers = 0
        self.in_flight = 0
        self.ended = False


class Writer:
    """One client with one write at a time.

    Args:
        namespace: where it writes, beside its forks of it.
        says_awaited: whether it lets the server forget what it has the answers to.
    """

    def __init__(self, load: Load, address: str, namespace: str, name: str, *, says_awaited: bool) -> None:
        self.name = name
        self.connection = Connection(address)
        self.says_awaited = says_awaited
        self.pending: Asked | None = None
        self.answered: list[Asked] = []
        self.checkpoints: dict[str, c.Checkpoint] = {}  # that it was answered
        self.dropped: set[str] = set()
        self.forks: dict[str, n.Namespace] = {}
        self.deleted_forks: set[str] = set()  # or about to be
        self.gone: set[str] = set()  # of these, those of which it was answered
        self._load = load
        self.namespace = namespace
        self._chance = random.Random(name)
        self._sequence = 0

    async def run(self) -> None:
        """Write until the load ends."""
        kinds: Mapping[Callable[[], Any], int] = {
            self._increment: 20,
            self._write_paired: 20,
            self._put: 40,
            self._delete: 8,
            self._checkpoint: 6,
            self._drop_checkpoint: 5,
            self._restore: 3,
            self._fork: 2,
        }
        await self._put()  # else a checkpoint may come first, of a namespace that is not there yet
        while not self._load.ended:
            (act,) = self._chance.choices(list(kinds), list(kinds.values()))
            await act()

    def options(self) -> t.WriteOptions:
        sequence = self._sequence
        awaited = sequence if self.says_awaited else 0
        request_id = t.RequestId(client=self.name, sequence=sequence, awaited=awaited)
        return t.WriteOptions(request_id=request_id, author=self.name, message=f"{self.name}#{sequence}")

    async def _increment(self) -> None:
        add = s.IncrementOperation(key=f"counters/{self._chance.randrange(3)}", delta=self._chance.randint(1, 9))
        await self._write(s.TransactRequest(namespace=self.namespace, then=[s.Operation(increment=add)]))

    async def _write_paired(self) -> None:
        value = self._value(1000)
        keys = [f"paired/{number}" for number in range(PAIRED)]
        puts = [s.Operation(put=s.PutOperation(key=key, value=value)) for key in keys]
        await self._write(s.TransactRequest(namespace=self.namespace, then=puts))

    async def _put(self) -> None:
        await self._write(s.PutRequest(namespace=self.namespace, key=self._key(), value=self._value()))

    async def _delete(self) -> None:
        await self._write(s.DeleteRequest(namespace=self.namespace, key=self._key()))

    async def _checkpoint(self) -> None:
        name = f"{self.name}-{self._sequence + 1}"
        request = c.CheckpointRequest(namespace=self.namespace, name=name, labels={"client": self.name})
        self.checkpoints[name] = (await self._write(request)).checkpoint

    async def _drop_checkpoint(self) -> None:
        if self.checkpoints:
            name = self._chance.choice(list(self.checkpoints))
            del self.checkpoints[name]
            await self._write(c.DeleteCheckpointRequest(namespace=self.namespace, name=name))
            self.dropped.add(name)

    async def _restore(self) -> None:
        if self.checkpoints:
            name = self._chance.choice(list(self.checkpoints))
            request = c.RestoreRequest(namespace=self.namespace, ref=t.Ref(checkpoint=name), prefix=VALUES)
            await self._write(request, revision=self.checkpoints[name].revision)

    async def _fork(self) -> None:
        """Fork, write there, merge, and maybe delete the fork."""
        name = f"{self.namespace}.{self.name}-{self._sequence + 1}"
        fork = (await self._write(n.ForkRequest(namespace=self.namespace, fork=name), namespace=name)).namespace
        self.forks[name] = fork
        changes: dict[str, bytes | None] = {}
        for _ in range(self._chance.randint(0, 4)):
            key, value = self._key(), self._value(100)
            await self._write(s.PutRequest(namespace=name, key=key, value=value))
            changes[key] = short(value)
        merge = n.MergeRequest(namespace=self.namespace, fork=name, strategy=n.MERGE_STRATEGY_THEIRS)
        await self._write(merge, revision=fork.fork_revision, changes=changes)
        if self._chance.random() < 0.5:
            self.deleted_forks.add(name)
            await self._delete_namespace(name)
            del self.forks[name]
            self.gone.add(name)

    async def _write(
        self,
        request: Any,
        *,
        namespace: str = "",
        revision: int = 0,
        changes: Mapping[str, bytes | None] | None = None,
    ) -> Any:
        self._sequence += 1
        request.options.CopyFrom(self.options())
        tag = request.options.message
        asked = Asked(tag, namespace or request.namespace, request, revision, changes or {})
        self._load.asked[tag] = self.pending = asked
        self.hear(asked, await self._call(request))
        self._load.answers += 1
        self.pending = None
        self.answered.append(asked)
        return asked.answer

    def hear(self, asked: Asked, answer: Any) -> None:
        """Note an answer to a write. Every further one is the same, unless the write changes nothing."""
        if asked.answer is None or not asked.changed:
            asked.answer = answer
        assert lasting(answer) == lasting(asked.answer), asked.tag

    async def _delete_namespace(self, name: str) -> None:
        """Has no request id: made again it may find that it was done."""
        try:
            await self._call(n.DeleteNamespaceRequest(namespace=name))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    async def _call(self, request: Any) -> Any:
        """Call until there is an answer."""
        while True:
            await self._load.gate.wait()
            self._load.in_flight += 1
            try:
                return await self.connection.call(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                self._load.in_flight -= 1

    def _key(self) -> str:
        return f"{VALUES}{self._chance.randrange(40)}"

    def _value(self, most: int = LARGE) -> bytes:
        size = most if self._chance.random() < 0.1 else self._chance.randrange(100)
        return b"%s#%d " % (self.name.encode(), self._sequence) + self._chance.randbytes(size)


def lasting(answer: Any) -> Any:
    """What of an answer does not change: that of a fork tells how it is now."""
    if isinstance(answer, n.ForkResponse):
        fork = answer.namespace
        return fork.name, fork.parent, fork.fork_revision, fork.create_time
    return answer
