"""Health alone, in plain text, on addresses of its own: what asks for it, as Kubernetes does, may speak no TLS.

It is there before the store is open and until the last moment of a drain, so that a start or an end that takes long is
not taken for a process that hangs.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from comity_server import connections
from comity_server.access.anybody import AnybodysGate
from comity_server.access.gate import Gate
from comity_server.listening import bind
from comity_server.services.admission import Admission
from comity_server.services.health import Health
from comity_server.services.rpc import Calls
from comity_server.settings import Settings
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import Trails

HEALTH: Final[Any] = health_pb2.DESCRIPTOR.services_by_name["Health"]

REQUEST_BYTES: Final = 1024  # it asks for a service, by its name
CONNECTION_BYTES: Final = 64 * 1024
METADATA_BYTES: Final = 4 * 1024
STREAMS: Final = 32  # of one connection
GRACE_SECONDS: Final = 0.2  # in which a watch hears of the end


class Probes:
    """Serves `grpc.health.v1.Health`, and nothing else. `start` and `stop` may each be called once.

    Args:
        settings: `health_listen` says where; nothing is served where that is empty.
        health: its handlers, which the main server has too.
    """

    def __init__(self, settings: Settings, health: Health) -> None:
        self.addresses: Sequence[str] = ()
        self._listen = settings.health_listen
        self._shared = settings.workers > 1
        self._grpc = grpc.aio.server(options=_options(settings)) if self._listen else None
        if self._grpc is not None:
            self.calls = Calls(self._grpc, Gate(), Admission(CONNECTION_BYTES, REQUEST_BYTES), Trails(Tally()))
            self.calls.add(HEALTH, health, tool=True, anybody=True, gate=AnybodysGate())

    async def start(self) -> None:
        """Raises ListenError; then it is to be stopped all the same."""
        if self._grpc is not None:
            try:
                add_port = self._grpc.add_insecure_port
                self.addresses = [bind(address, add_port, shared=self._shared) for address in self._listen]
            finally:
                await self._grpc.start()  # gRPC lets go of ports only where it ran

    async def stop(self) -> None:
        """End it."""
        if self._grpc is not None:
            await self._grpc.stop(GRACE_SECONDS)


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        *connections.options(settings),
        ("grpc.max_receive_message_length", REQUEST_BYTES),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ]
