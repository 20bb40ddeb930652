"""A server that is fuzzed, and a client beside the fuzzer that must not notice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from tests import servers
from tests.access.principals import shown, write_policy, write_tokens
from tests.fuzz.calls import Call, make
from tests.fuzz.messages import CHECKPOINT, FORBIDDEN, FORK, KEYS, NAMESPACE, NOTHING
from tests.servers import Server
from tests.wire.calls import Wire, read_refusal

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
FUZZER, OTHER = "fuzzer", "other"
BYSTANDER = "bystander"  # a namespace that no example names
SECRET = b"what is the bystander's alone"


class Fuzzed:
    """Made by `fuzzing`.

    Args:
        server: what is fuzzed.
        hostile: the fuzzer's connection.
        other: that of the client beside it.
        guarded: the server has permissions, by which the fuzzer may do all in its namespaces, and nothing elsewhere.
    """

    def __init__(self, server: Server, hostile: grpc.Channel, other: grpc.Channel, *, guarded: bool = False) -> None:
        self.server = server
        self.hostile = hostile
        self._identity = shown(FUZZER) if guarded else ()
        self._other = Wire(other)
        self._other_identity = shown(OTHER) if guarded else ()
        self._others = FORBIDDEN if guarded else BYSTANDER
        self._namespaces = (NAMESPACE, FORK, NOTHING, *(() if guarded else (FORBIDDEN,)))
        self._read = 0  # lines of the log
        self._call(s.PutRequest(namespace=self._others, key="k", value=SECRET))
        self._call(c.CheckpointRequest(namespace=self._others, name=CHECKPOINT))

    def run(self, calls: Sequence[Call]) -> None:
        """Make calls, one after another, in namespaces that are as each example finds them."""
        self._prepare()
        with self.unnoticed():
            for call in calls:
                make(self.hostile, call, self._identity, SECRET)

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
        for name in reversed(self._namespaces):
            try:
                self._call(n.DeleteNamespaceRequest(namespace=name))
            except grpc.RpcError as error:
                if read_refusal(error).code is not grpc.StatusCode.NOT_FOUND:
                    raise
        puts = [s.Operation(put=s.PutOperation(key=key, value=b"1")) for key in KEYS]
        puts[-1].put.ttl.FromSeconds(60)
        self._call(s.TransactRequest(namespace=NAMESPACE, then=puts))
        self._call(c.CheckpointRequest(namespace=NAMESPACE, name=CHECKPOINT))
        self._call(n.ForkRequest(namespace=NAMESPACE, fork=FORK))

    def _seen(self) -> tuple[object, ...]:
        """All of what belongs to the client beside the fuzzer."""
        return (
            self._call(s.ListRequest(namespace=self._others)),
            self._call(n.GetNamespaceRequest(namespace=self._others)),
            self._call(c.ListCheckpointsRequest(namespace=self._others)),
        )

    def _call(self, request: object) -> object:
        return self._other.call(request, metadata=self._other_identity)


@contextmanager
def fuzzing(*arguments: str) -> Iterator[Fuzzed]:
    """Start a server with these arguments."""
    with servers.start(*arguments) as server, _connected(server) as (hostile, other):
        yield Fuzzed(server, hostile, other)


@contextmanager
def fuzzing_guarded(folder: Path) -> Iterator[Fuzzed]:
    """Start a server with tokens and a policy, which are put into a folder."""
    everything = {"prefixes": [""], "allow": ["read", "write", "admin"]}
    rules = (
        {"principals": [FUZZER], "namespaces": [NAMESPACE, FORK, NOTHING], **everything},
        {"principals": [OTHER], "namespaces": ["*"], **everything},
    )
    tokens = write_tokens(folder / "tokens", [FUZZER, OTHER])
    policy = write_policy(folder / "policy.toml", rules)
    with (
        servers.start("--tokens", str(tokens), "--policy", str(policy)) as server,
        _connected(server) as (hostile, other),
    ):
        yield Fuzzed(server, hostile, other, guarded=True)


@contextmanager
def _connected(server: Server) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    with (
        grpc.insecure_channel(server.address, options=OWN_CONNECTION) as hostile,
        grpc.insecure_channel(server.address, options=OWN_CONNECTION) as other,
    ):
        yield hostile, other
