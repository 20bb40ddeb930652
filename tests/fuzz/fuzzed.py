"""A server that is fuzzed, and a client beside the fuzzer that must not notice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.fuzz.calls import Call, make
from tests.fuzz.messages import CHECKPOINT, FORK, KEYS, NAMESPACE, NAMESPACES
from tests.servers import Server
from tests.wire.calls import TIMEOUT, Wire, read_refusal

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
BYSTANDER = "bystander"  # a namespace that no example names


class Fuzzed:
    """Made by `fuzzing`.

    Args:
        server: what is fuzzed.
        hostile: the fuzzer's connection.
        other: that of the client beside it.
    """

    def __init__(self, server: Server, hostile: grpc.Channel, other: grpc.Channel) -> None:
        self.server = server
        self.hostile = hostile
        self._other = Wire(other)
        self._read = 0  # lines of the log
        mine = s.PutRequest(namespace=BYSTANDER, key="k", value=b"mine", options=t.WriteOptions(author="bystander"))
        self._other.call(mine)
        self._other.call(c.CheckpointRequest(namespace=BYSTANDER, name=CHECKPOINT))

    def run(self, calls: Sequence[Call]) -> None:
        """Make calls, one after another, in namespaces that are as each example finds them."""
        self._prepare()
        with self.unnoticed():
            for call in calls:
                make(self.hostile, call)

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """Whatever the block does, another client's calls are answered as before, and the log has nothing to say."""
        before = self._seen()
        yield
        assert self._seen() == before
        assert self.server.process.poll() is None
        log = self.server.log().splitlines()
        new, self._read = log[self._read :], len(log)
        wrong = [line for line in new if '"level": "info"' not in line]
        assert not wrong, wrong

    def _prepare(self) -> None:
        for name in reversed(NAMESPACES):
            try:
                self._other.namespaces.DeleteNamespace(n.DeleteNamespaceRequest(namespace=name), timeout=TIMEOUT)
            except grpc.RpcError as error:
                if read_refusal(error).code is not grpc.StatusCode.NOT_FOUND:
                    raise
        puts = [s.Operation(put=s.PutOperation(key=key, value=b"1")) for key in KEYS]
        puts[-1].put.ttl.FromSeconds(60)
        self._other.call(s.TransactRequest(namespace=NAMESPACE, then=puts))
        self._other.call(c.CheckpointRequest(namespace=NAMESPACE, name=CHECKPOINT))
        self._other.call(n.ForkRequest(namespace=NAMESPACE, fork=FORK))

    def _seen(self) -> tuple[object, ...]:
        """All of what belongs to the client beside the fuzzer."""
        requests = (
            s.ListRequest(namespace=BYSTANDER),
            n.GetNamespaceRequest(namespace=BYSTANDER),
            c.ListCheckpointsRequest(namespace=BYSTANDER),
        )
        return tuple(self._other.call(request) for request in requests)


@contextmanager
def fuzzing(*arguments: str) -> Iterator[Fuzzed]:
    """Start a server with these arguments."""
    with (
        servers.start(*arguments) as server,
        grpc.insecure_channel(server.address, options=OWN_CONNECTION) as hostile,
        grpc.insecure_channel(server.address, options=OWN_CONNECTION) as other,
    ):
        yield Fuzzed(server, hostile, other)
