"""Connections to the server: made when first used, one for each event loop."""

import asyncio
import ipaddress
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import grpc

from .coalesce import Lanes
from .v1.checkpoint_pb2_grpc import CheckpointServiceStub
from .v1.lease_pb2_grpc import LeaseServiceStub
from .v1.namespace_pb2_grpc import NamespaceServiceStub
from .v1.state_pb2_grpc import StateServiceStub

__all__ = ["Channels", "Connection", "is_connected", "targets"]

DEFAULT_PORT = 7171

OPTIONS = (
    # How large messages may be is the server's to say: it bounds what it takes, and what it sends.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that went without a word is noticed within 40 s; one that is only quiet is asked, and answers.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # without it gRPC waits a minute, whatever the keepalive timeout is
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # in spite of its name, how long one attempt to connect may take
    # Retries are this client's, since only it knows when they are safe; and nothing is to be looked up in DNS for them.
    ("grpc.service_config_disable_resolution", 1),
)


def targets(address: str) -> tuple[str, ...]:
    """The gRPC targets of `host:port[,host:port]`, in the order in which to try them. The port is 7171 unless said.

    Each address is a target of its own: of several in one, gRPC would leave one that accepts connections and does not
    answer for no other. Raises TypeError for what is no str, ValueError for what is no address.
    """
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, HOST:PORT[,HOST:PORT], not {type(address).__name__}")
    return tuple(_target(part.strip()) for part in address.split(","))


def _target(address: str) -> str:
    bare_ipv6 = address.count(":") > 1 and not address.startswith("[")
    if ":" not in address or address.endswith("]") or bare_ipv6:
        host, port = address, str(DEFAULT_PORT)
    else:
        host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is no address: the port must be a number from 1 to 65535")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        literal = ipaddress.ip_address(bare)
    except ValueError:
        if not host or set(host) & set("[]:/ \t"):
            raise ValueError(f"{address!r} is no address: it should be HOST:PORT") from None
        return f"dns:///{host}:{port}"
    return f"ipv4:{bare}:{port}" if literal.version == 4 else f"ipv6:[{bare}]:{port}"


class Watching(Protocol):
    """What has a stream of its own."""

    def hang_up(self) -> None:
        """End the stream, and keep nothing of its connection."""


class Connection:
    """A channel to one target on one event loop, with its stubs."""

    def __init__(self, target: str, channels: "Channels") -> None:
        self.address = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:")
        self.channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        self.state = StateServiceStub(self.channel)
        self.checkpoints = CheckpointServiceStub(self.channel)
        self.namespaces = NamespaceServiceStub(self.channel)
        self.leases = LeaseServiceStub(self.channel)
        self.health: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        self.lanes = Lanes(self.state.Pipeline, self.health, self.address, self._failing(channels))
        self.watches: weakref.WeakSet[Watching] = weakref.WeakSet()
        weakref.finalize(self, self.lanes.end_soon).atexit = False

    def _failing(self, channels: "Channels") -> Callable[[], None]:
        """What says that this is of no use now. It keeps neither of them: streams call it, and end with both."""
        connection = weakref.ref(self)
        failed = weakref.WeakMethod(channels.failed)

        def call() -> None:
            this, tell = connection(), failed()
            if this is not None and tell is not None:
                tell(this)

        return call


class Channels:
    """The connections of a client and of all that share them: one a target and event loop. Thread-safe."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._targets = targets(address)
        self._place = 0  # of the target that answered last, or is to be tried next
        self._closed = False
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[int, Connection]] = {}

    def check_open(self) -> None:
        """Raise RuntimeError if the client is closed."""
        if self._closed:
            raise RuntimeError("the client is closed")

    def connection(self) -> Connection:
        """The connection of the running event loop. Raises RuntimeError if the client is closed."""
        self.check_open()
        place = self._place
        loop = asyncio.get_running_loop()
        connections = self._by_loop.get(loop)
        if connections is None or place not in connections:
            return self._connect(loop, place)
        return connections[place]

    def failed(self, connection: Connection) -> None:
        """The connection is of no use now: others are to try the next target."""
        if len(self._targets) == 1:
            return
        place = self._place
        # Only the first to find out moves on, not each of many calls that fail together.
        if self._by_loop.get(asyncio.get_running_loop(), {}).get(place) is connection:
            self._place = (place + 1) % len(self._targets)

    async def close(self) -> None:
        """Close the connections of the running event loop, and make no more."""
        self._closed = True
        with self._lock:
            connections = self._by_loop.pop(asyncio.get_running_loop(), {})
        for connection in connections.values():
            connection.lanes.end()
            await connection.lanes.ended()
            for watch in list(connection.watches):  # which else would keep gRPC's threads, and a fork from being safe
                watch.hang_up()
            await connection.channel.close()

    def is_connected(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether there are connections of this event loop."""
        return loop in self._by_loop

    def _connect(self, loop: asyncio.AbstractEventLoop, place: int) -> Connection:
        if _parents:
            raise RuntimeError(
                "this process was forked from one that was connected, which gRPC does not survive: fork before the "
                "first call or after close(), or start processes by spawn"
            )
        connection = Connection(self._targets[place], self)
        with self._lock:
            # A loop that is closed can close nothing more; its channels end with their last reference.
            self._by_loop = {known: made for known, made in self._by_loop.items() if not known.is_closed()}
            self._by_loop.setdefault(loop, {})[place] = connection
        return connection

    def _before_fork(self) -> None:
        # With a stream open the child may crash, whatever it does: gRPC ends in it what it does not own.
        for connections in list(self._by_loop.values()):
            for connection in list(connections.values()):
                connection.lanes.interrupt()

    def _after_fork(self) -> None:
        # The child keeps what its parent connected: to let go of it would wait for threads that the child lacks.
        if self._by_loop:
            _parents.append(self._by_loop)
        self._start()


_all: weakref.WeakSet[Channels] = weakref.WeakSet()
_parents: list[object] = []  # of a child: the connections that were open when it was forked


def is_connected(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether any client is connected in this event loop."""
    return any(channels.is_connected(loop) for channels in list(_all))


def _before_fork() -> None:
    for channels in list(_all):
        channels._before_fork()


def _after_fork() -> None:
    for channels in list(_all):
        channels._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
