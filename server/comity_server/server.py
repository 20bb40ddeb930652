"""One server: its parts, put together, begun in order and ended in order."""

import asyncio
import functools
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from typing import Any, Final

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_reflection.v1alpha import reflection_pb2

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, server_pb2, state_pb2
from comity_server import connections, tasks
from comity_server.access.anybody import AnybodysGate
from comity_server.access.setup import Access
from comity_server.committer import Committer
from comity_server.compactor import Compactor
from comity_server.expiry import Expiry
from comity_server.feed import Feed
from comity_server.listening import ListenError, bind
from comity_server.observing.exporting import Exporting
from comity_server.observing.snapshot import Observer
from comity_server.probes import HEALTH, Probes
from comity_server.services.admission import Admission
from comity_server.services.checkpoint import CheckpointService
from comity_server.services.health import Health
from comity_server.services.lease import LeaseService
from comity_server.services.namespace import NamespaceService
from comity_server.services.outbox import Outboxes
from comity_server.services.rpc import Calls
from comity_server.services.server import About, ServerService
from comity_server.services.state import Rooms, StateService
from comity_server.services.tools import Channelz, Reflection
from comity_server.services.wire import watch_fragment
from comity_server.settings import Settings
from comity_server.stores.protocol import Store
from comity_server.stores.url import shown
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import Trails

log = structlog.get_logger(__name__)

STATE: Final = state_pb2.DESCRIPTOR.services_by_name["StateService"]
NAMESPACE: Final = namespace_pb2.DESCRIPTOR.services_by_name["NamespaceService"]
CHECKPOINT: Final = checkpoint_pb2.DESCRIPTOR.services_by_name["CheckpointService"]
SERVER: Final = server_pb2.DESCRIPTOR.services_by_name["ServerService"]
LEASE: Final = lease_pb2.DESCRIPTOR.services_by_name["LeaseService"]
CHANNELZ: Final = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
REFLECTION: Final = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

MESSAGE_SLACK: Final = 1024 * 1024  # what a message may have beside keys and values
METADATA_BYTES: Final = 16 * 1024
INT32_MOST: Final = 2**31 - 1
CALLS_WAITING_LEAST: Final = 100_000  # calls that may wait to be begun, whatever the settings
STREAM_END_SECONDS: Final = 2.0  # how long a client may take to hear that its watch ends
TOOL_CALLS: Final = 4  # of a tool that are read at a time of one connection
ANYBODY_BYTES: Final = 32 * 1024 * 1024  # that what is read of a tool's calls may take up, of all who need no identity
REFUSE_SECONDS: Final = 2.0  # how long clients that go on with calls are told to go elsewhere
GRACE_SECONDS: Final = 1.0  # how long what else is open, as a watch of health, may take to end
GRPC_END_SECONDS: Final = 3.0  # how long gRPC may take to end, with that
TASKS_END_SECONDS: Final = 3.0  # how long what goes on in the background may take
STORE_END_SECONDS: Final = 5.0  # how long the store may take with writes whose callers are gone


class Server:
    """A server over a store. `start` and `stop` may each be called once.

    Args:
        settings: see there.
        store: where the state is kept. The server opens and closes it.
        worker: which of the processes it is that serve together, from 1; 0: there is this one.

    Raises FileError if a file that the settings name is wrong, and SettingsError where variables of OpenTelemetry ask
    for what there is not.
    """

    def __init__(self, settings: Settings, store: Store, *, worker: int = 0) -> None:
        limits = settings.limits()
        tally = Tally()
        self.addresses: Sequence[str] = ()
        self._settings = settings
        self._tally = tally
        self._store = store
        self._access = Access(settings)
        self._exporting = Exporting(settings, version("comity"), worker)
        tracing = self._exporting.tracing
        interceptors = None if tracing is None else [tracing]
        self._grpc = grpc.aio.server(interceptors=interceptors, options=grpc_options(settings))
        admission = Admission(settings.max_connection_bytes, request_bytes(settings), settings.max_bytes)
        rooms = Rooms(*(Outboxes(settings.max_connection_bytes, settings.max_bytes) for _ in Rooms._fields))
        trails = Trails(tally, settings.log_calls, tracing)
        self.calls = Calls(self._grpc, self._access.gate, admission, trails, settings.max_deadline, limits)
        bounds = self._access.bounds
        store.bound(lambda namespace: bounds.rules.namespace(namespace).limits)
        self._committer = Committer(store, tally, max_pending=settings.max_pending, tracing=tracing)
        self._feed = Feed(store, watch_fragment)
        self._compactor = Compactor(
            store, lambda namespace: bounds.rules.namespace(namespace).retention, settings.compaction_interval, tally
        )
        self._state = StateService(store, self._committer, self._feed, limits, settings.progress_interval, tally, rooms)
        self._expiry = Expiry(store, self._committer, tally)
        self._observer = Observer(store, self._committer, self._feed, self.calls, tally)
        self._leases = LeaseService(store, self._committer, limits)
        offered: dict[ServiceDescriptor, object] = {
            STATE: self._state,
            NAMESPACE: NamespaceService(store, self._committer, limits),
            CHECKPOINT: CheckpointService(store, self._committer, limits),
            LEASE: self._leases,
        }
        for service, servicer in offered.items():
            self.calls.add(service, servicer)
        self._health = Health(store, [service.full_name for service in offered])
        self._probes = Probes(settings, self._health)
        about = About(version("comity"), settings.store.partition(":")[0], worker)
        tools: dict[Any, object] = {HEALTH: self._health, SERVER: ServerService(about, tally, self._observer)}
        if settings.channelz:
            tools[CHANNELZ] = Channelz()
        if settings.reflection:
            services = (*offered, *tools, REFLECTION)
            tools[REFLECTION] = Reflection([service.full_name for service in services])
        # Room of its own: who asks how the server is is answered whatever else a connection asks for, and in a drain;
        # and who need not say who it is takes up no room of those who do. Requests are small, but gRPC has one bound
        # for all, and looks at no other before a request was read.
        size = request_bytes(settings)
        rooms_of_tools = {
            HEALTH: Admission(TOOL_CALLS * size, size, ANYBODY_BYTES, "anybody_bytes"),
            REFLECTION: Admission(TOOL_CALLS * size, size, ANYBODY_BYTES, "anybody_bytes"),
            SERVER: Admission(TOOL_CALLS * size, size, settings.max_bytes),
        }
        gates = {HEALTH: AnybodysGate(), REFLECTION: AnybodysGate(bounds)}
        for service, servicer in tools.items():
            self.calls.add(
                service,
                servicer,
                tool=True,
                anybody=service not in (CHANNELZ, SERVER),
                admission=rooms_of_tools.get(service),
                gate=gates.get(service),
            )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store and begin to serve. Raises StoreUnavailable or ListenError; then nothing is left open."""
        try:
            await self._probes.start()
            await self._store.open()
        except BaseException:
            await self._probes.stop()
            raise
        try:
            self._health.update()
            await self._bind()
            self._exporting.start(self._tally, self._observer.look_from_thread)
            await self._grpc.start()
        except BaseException:
            await self._exporting.stop()
            await self._grpc.stop(None)
            await self._probes.stop()
            await self._store.close()
            raise
        parts = (self._health, self._compactor, self._expiry, self._leases, self._observer)
        self._tasks = [_background(run) for run in (*(part.run() for part in parts), *self._access.runs())]
        log.info("serving", addresses=self.addresses, store=shown(self._settings.store))

    def reload(self) -> None:
        """Look at the files of certificates, tokens and the like now, not only within the next second."""
        if self._access.files:
            self._access.files.look()
        else:
            log.info("SIGHUP: there are no files to read again")

    async def stop(self) -> None:
        """Say NOT_SERVING, and after the drain delay refuse further calls, finish those in progress within the drain
        timeout, and close the store."""
        delay, timeout = self._settings.drain_delay, self._settings.drain_timeout
        self._health.drain()
        if delay:
            log.info("draining soon, and serving meanwhile", delay=delay)
            await asyncio.sleep(delay)
        log.info("draining", timeout=timeout)
        self.calls.refuse()
        if not await _within(timeout, self.calls.unary_calls_ended()):
            log.warning("requests were still in progress when the drain timeout ended")
        self._state.close()
        self._leases.close()
        await self._feed.close()
        await _within(STREAM_END_SECONDS, self.calls.streams_ended())
        # What gRPC itself turns away ends with CANCELLED, which no client repeats: so all that is on its way is let in.
        await _within(REFUSE_SECONDS, self.calls.refusals_ended())
        if not await _within(GRPC_END_SECONDS, self._grpc.stop(GRACE_SECONDS)):
            log.warning("calls were still open when the server ended")
        if not await _within(STORE_END_SECONDS, self._committer.drain()):
            log.warning("writes were still in the store's hands when the server ended")
        await self._exporting.stop()
        if not await _within(TASKS_END_SECONDS, _ended(self._tasks)):
            log.warning("what went on in the background did not end")
        await self._store.close()  # without a bound: it holds what another server must not open before it is written
        await _within(GRPC_END_SECONDS, self._probes.stop())
        log.info("stopped")

    @property
    def health_addresses(self) -> Sequence[str]:
        """Where it tells its health alone."""
        return self._probes.addresses

    async def _bind(self) -> None:
        try:
            self.addresses = [self._listen(address) for address in self._settings.listen]
        except ListenError:
            # gRPC lets go of the ports that it has bound only where it ran before it is stopped.
            self.calls.refuse()
            await self._grpc.start()
            raise

    def _listen(self, address: str) -> str:
        certificates = self._access.certificates
        if certificates is None:
            add_port = self._grpc.add_insecure_port
        else:
            add_port = functools.partial(self._grpc.add_secure_port, server_credentials=certificates.credentials())
        return bind(address, add_port, shared=self._settings.workers > 1)


def request_bytes(settings: Settings) -> int:
    """The size of the largest request."""
    limits = settings.limits()
    return max(limits.transaction_bytes, limits.value_bytes) + MESSAGE_SLACK


def grpc_options(settings: Settings) -> list[tuple[str, Any]]:
    """What gRPC is told of the settings. All its numbers are of 32 bits."""
    waiting = min(max(CALLS_WAITING_LEAST, 10 * settings.max_pending), INT32_MOST)
    return [
        *connections.options(settings),
        ("grpc.max_receive_message_length", request_bytes(settings)),
        ("grpc.max_send_message_length", -1),  # what is sent has bounds of its own
        ("grpc.max_concurrent_streams", settings.max_connection_calls),
        ("grpc.http2.bdp_probe", 0),  # it would let in megabytes of each request before the request is read
        # Calls that were read but not begun yet. Those beyond these bounds end with a bare CANCELLED, which no client
        # repeats; how many may wait is the committer's to say, which answers OVERLOADED.
        ("grpc.server.max_pending_requests", waiting),
        ("grpc.server.max_pending_requests_hard_limit", waiting),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.keepalive_least * 1000)),
        ("grpc.enable_channelz", int(settings.channelz)),
    ]


async def _within(timeout: float, wait: Coroutine[Any, Any, None]) -> bool:
    """Whether a wait ends within so many seconds; with 0, without having to wait at all. One that does not is
    cancelled, and nobody waits for what becomes of that."""
    task = asyncio.create_task(wait)
    await asyncio.wait([task], timeout=timeout)
    if not task.done():
        task.cancel()
        return False
    await task
    return True


async def _ended(background: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*map(tasks.end, background))


def _background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task failed", exc_info=error)
