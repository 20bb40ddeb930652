"""A Redis that fails over under a server: it goes on by itself, loses nothing that it acknowledged, and does nothing
twice."""

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.redis_servers import RedisCluster, Replicated, wait_until
from tests.wire.calls import Wire

REPEATED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
ATTEMPT_SECONDS: Final = 10.0


class Writer(threading.Thread):
    """Puts one new key after the other, each until it is answered."""

    def __init__(self, address: str, namespace: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.name = uuid.uuid4().hex
        self.answered: dict[str, int] = {}  # keys and revisions
        self.refused = 0
        self.error: Exception | None = None
        self.ended = threading.Event()
        self._address = address

    def run(self) -> None:
        try:
            with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                wire = Wire(channel)
                while not self.ended.is_set():
                    self._write(wire, len(self.answered) + 1)
        except Exception as error:  # noqa: BLE001 - it is the test's to raise
            self.error = error

    def _write(self, wire: Wire, number: int) -> None:
        key = f"{self.name}/{number}"
        options = t.WriteOptions(request_id=t.RequestId(client=self.name, sequence=number))
        request = s.PutRequest(namespace=self.namespace, key=key, value=key.encode(), options=options)
        while True:
            try:
                self.answered[key] = wire.call(request, timeout=ATTEMPT_SECONDS).revision
                return
            except grpc.RpcError as error:
                if error.code() not in REPEATED:
                    raise
                self.refused += 1


@contextmanager
def writers(server: servers.Server, namespaces: Sequence[str]) -> Iterator[list[Writer]]:
    """Two on each namespace. In the end what they were answered is held against what there is."""
    running = [Writer(server.address, namespace) for namespace in namespaces for _ in range(2)]
    for writer in running:
        writer.start()
    try:
        more(running)
        yield running
        more(running)
    finally:
        for writer in running:
            writer.ended.set()
        for writer in running:
            writer.join()
    for writer in running:
        if writer.error is not None:
            raise writer.error
    with grpc.insecure_channel(server.address) as channel:
        for namespace in namespaces:
            answered = {k: r for one in running if one.namespace == namespace for k, r in one.answered.items()}
            check(Wire(channel), namespace, answered)


def more(running: Sequence[Writer], count: int = 20) -> None:
    """Return when each writer has been answered so much more."""
    before = [len(writer.answered) for writer in running]
    wait_until(
        "further answers",
        lambda: all(
            writer.error is not None or len(writer.answered) >= known + count
            for writer, known in zip(running, before, strict=True)
        ),
    )


def check(wire: Wire, namespace: str, answered: dict[str, int]) -> None:
    found: dict[str, int] = {}
    after = ""
    while True:
        page = wire.call(s.ListRequest(namespace=namespace, page_token=after))
        for entry in page.entries:
            assert (entry.version, entry.value) == (1, entry.key.encode()), "it was done twice"
            found[entry.key] = entry.mod_revision
        after = page.next_page_token
        if not after:
            break
    assert found == answered
    assert sorted(found.values()) == list(range(1, len(found) + 1)), "there are commits that nobody asked for"


def serving(server: servers.Server) -> bool:
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    with Replicated() as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


def test_sentinels_replace_the_primary(replicated: Replicated, namespace: str) -> None:
    """Twice: the one that was killed is a replica then. All replicas are waited for: which one of them takes over is
    Sentinel's choice, by what it knew some seconds before."""
    count = str(len(replicated.servers) - 1)
    with servers.start("--store", replicated.url, "--redis-wait-replicas", count) as server:
        with writers(server, [namespace]) as running:
            for _ in range(2):
                primary = replicated.primary()
                primary.kill()
                wait_until("another primary", lambda old=primary: replicated.primary() is not old)
                primary.start()
                wait_until("a replica", primary.is_linked)
                wait_until("that all know all", lambda: all(one.knows_all() for one in replicated.sentinels))
                more(running)
        wait_until("health", serving, server)


@pytest.mark.parametrize("wait_replicas", [0, 1])
def test_a_master_of_a_cluster_is_replaced(cluster: RedisCluster, wait_replicas: int) -> None:
    """Where replicas are waited for, only what the other masters have goes on until there is a replica again."""
    names: dict[int, str] = {}
    while len(names) < 3:
        name = f"test-{uuid.uuid4().hex}"
        names.setdefault(cluster.master_of(f"{{{name}}}").port, name)
    with servers.start("--store", cluster.url, "--redis-wait-replicas", str(wait_replicas)) as server:
        with writers(server, list(names.values())) as running:
            killed = cluster.nodes[0]
            killed.kill()
            wait_until("another master", lambda: len(cluster.masters()) == 3)
            if wait_replicas:
                others = [writer for writer in running if writer.namespace != names[killed.port]]
                for _ in range(10):  # that they are answered does not make up for it
                    more(others, 5)
                    assert not serving(server)
                killed.start()
                wait_until("a replica", killed.is_linked)
            more(running)
        wait_until("health", serving, server)


def test_a_primary_without_replicas_acknowledges_nothing(replicated: Replicated, namespace: str) -> None:
    """What it was asked meanwhile is answered when they are back, and done once."""
    replicas = [one for one in replicated.servers if one is not replicated.primary()]
    with (
        replicated.unhurried(),
        servers.start("--store", replicated.url, "--redis-wait-replicas", "1") as server,
        writers(server, [namespace]) as running,
    ):
        for replica in replicas:
            replica.kill()
        before = [writer.refused for writer in running]
        wait_until("refusals", lambda: all(w.refused > n + 1 for w, n in zip(running, before, strict=True)))
        assert not serving(server)
        answered = [len(writer.answered) for writer in running]
        wait_until("more refusals", lambda: all(w.refused > n + 2 for w, n in zip(running, before, strict=True)))
        assert answered == [len(writer.answered) for writer in running]
        for replica in replicas:
            replica.start()
