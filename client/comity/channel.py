"""Connections to the server: made when first used, one for each event loop."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import grpc

from . import tracing
from .access import Access
from .addresses import is_here, targets
from .coalesce import Lanes
from .peer import Peer
from .status import is_transient
from .stubs import Stubs
from .tokens import Bearer

if TYPE_CHECKING:
    from .certificates import Certificates, Material

__all__ = ["Channels", "Connection", "is_connected"]

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
# A proxy, as in the variable http_proxy, would read a token that is in plain text, and has no way to this machine.
DIRECT = ("grpc.enable_http_proxy", 0)

POLLER = "(_poll_wrapper)"  # how the name of the thread ends in which gRPC waits


class Watching(Protocol):
    """What has a stream of its own."""

    def hang_up(self) -> None:
        """End the stream, and keep nothing of its connection."""


class Connection(Stubs):
    """A channel to one target on one event loop, with its stubs."""

    def __init__(self, target: str, channels: "Channels") -> None:
        self.peer = Peer(target, channels.certificates)
        self.loop = asyncio.get_running_loop()
        self.material = None if channels.certificates is None else channels.certificates.current()
        self.channel = _channel(target, channels.certificates, self.material)
        self.bearer = None if channels.access.token is None else Bearer(self.channel, channels.access.token)
        super().__init__(self.channel if self.bearer is None else cast(grpc.aio.Channel, self.bearer))
        self.lanes = Lanes(self.state.Pipeline, self.health, self.peer, self._failing(channels))
        self.watches: weakref.WeakSet[Watching] = weakref.WeakSet()
        weakref.finalize(self, self.lanes.end_soon).atexit = False

    @property
    def address(self) -> str:
        return self.peer.address

    @property
    def token(self) -> str:
        """The token that the call that began last bears; empty: none."""
        return "" if self.bearer is None else self.bearer.last

    def has_new_token(self, since: str) -> bool:
        """Whether calls bear another token now than one that the server refused. Raises Unauthenticated."""
        return self.bearer is not None and self.bearer.is_new(since)

    async def reach(self, timeout: float) -> None:
        """Before a stream: where the last try to connect has failed, see by a unary call whether another does better.

        Raises why it does not. Of a stream that fails gRPC keeps some 500 bytes for good, which all tries of a long
        outage would add up to.
        """
        if self.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return
        try:
            await tracing.untraced(lambda: self.health(b"", timeout=timeout))
        except grpc.aio.AioRpcError as failure:
            error = self.peer.error(failure)
            if is_transient(error):
                raise error from failure

    def _failing(self, channels: "Channels") -> Callable[[], None]:
        """What says that this is of no use now. It keeps neither of them: streams call it, and end with both."""
        connection = weakref.ref(self)
        failed = weakref.WeakMethod(channels.failed)

        def call() -> None:
            this, tell = connection(), failed()
            if this is not None and tell is not None:
                tell(this)

        return call


def _channel(target: str, certificates: "Certificates | None", material: "Material | None") -> grpc.aio.Channel:
    if certificates is None or material is None:
        return grpc.aio.insecure_channel(target, options=(*OPTIONS, DIRECT))
    name = certificates.server_name
    named = () if name is None else (("grpc.ssl_target_name_override", name),)
    direct = (DIRECT,) if is_here(target) else ()
    return grpc.aio.secure_channel(target, material.credentials(), options=(*OPTIONS, *named, *direct))


class Channels:
    """The connections of a client and of all that share them: one a target and event loop. Thread-safe.

    Raises ValueError for certificates that cannot be used.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.certificates: Certificates | None = None
        if access.tls is not None:
            from . import certificates  # it takes its time, which those without TLS have no use for

            self.certificates = certificates.Certificates(access.tls)
        self._targets = targets(access.address)
        self._place = 0  # of the target that answered last, or is to be tried next
        self._closed = False
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[int, Connection]] = {}
        self._replaced: weakref.WeakSet[Connection] = weakref.WeakSet()  # that calls still use

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
        """The connection is of no use now: others are to try the next target; and if the certificates are others now,
        are to connect by these."""
        place = self._place
        connections = self._by_loop.get(asyncio.get_running_loop(), {})
        # Only the first to find out moves on, not each of many calls that fail together.
        if len(self._targets) > 1 and connections.get(place) is connection:
            self._place = (place + 1) % len(self._targets)
        if self.certificates is not None and self.certificates.current() != connection.material:
            with self._lock:
                for place, known in list(connections.items()):
                    if known is connection:
                        del connections[place]
                        self._replaced.add(connection)

    async def close(self) -> None:
        """Close the connections of the running event loop, and make no more."""
        self._closed = True
        loop = asyncio.get_running_loop()
        with self._lock:
            connections = list(self._by_loop.pop(loop, {}).values())
            connections += [replaced for replaced in self._replaced if replaced.loop is loop]
        for connection in connections:
            connection.peer.end()
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
        for connection in list(self._replaced):
            connection.lanes.interrupt()

    def _after_fork(self) -> None:
        # The child keeps what its parent connected: to let go of it would wait for threads that the child lacks.
        if self._by_loop:
            _parents.append((self._by_loop, list(self._replaced)))
        self._start()


_all: weakref.WeakSet[Channels] = weakref.WeakSet()
_parents: list[object] = []  # of a child: the connections that were open when it was forked; None: of others
_is_torn = False  # of a child: whether gRPC was at work when it was forked


def is_connected(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether any client is connected in this event loop."""
    return any(channels.is_connected(loop) for channels in list(_all))


def _is_polling() -> bool:
    """Whether a thread of gRPC waits for what becomes of calls. A child has no such thread, and its calls no end."""
    return any(POLLER in thread.name for thread in threading.enumerate())


def _before_fork() -> None:
    global _is_torn
    for channels in list(_all):
        channels._before_fork()
    if _is_polling() and not any(channels._by_loop for channels in list(_all)):
        gc.collect()  # errors are in cycles with what raised them, and keep the calls that failed, and so the thread
    _is_torn = _is_polling()


def _after_fork() -> None:
    if _is_torn:
        _parents.append(None)
    for channels in list(_all):
        channels._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
