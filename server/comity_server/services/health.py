"""Health of the server and of each service: SERVING while the store can commit and the server does not drain.

What cannot be helped by a restart, as a store that is away, is no matter of `liveness`: that is SERVING for as long as
this process answers at all.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Final

import structlog
from grpc_health.v1 import health_pb2

from comity_server.errors import NotFound
from comity_server.services.call import Call
from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.2  # seconds between looks at the store
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
READINESS: Final = "readiness"  # another name for the server as a whole
LIVENESS: Final = "liveness"


class Health:
    """Handlers of `grpc.health.v1.Health`. A watcher that does not read holds up nobody.

    Args:
        store: asked whether it can commit.
        services: their full names.
    """

    def __init__(self, store: Store, services: Iterable[str]) -> None:
        self._store = store
        self._statuses: dict[str, Any] = dict.fromkeys(["", READINESS, *services], NOT_SERVING) | {LIVENESS: SERVING}
        self._changed = asyncio.Event()
        self._draining = False

    async def Check(self, request: health_pb2.HealthCheckRequest, call: Call) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFound(f"there is no service {request.service}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> AsyncGenerator[bytes]:
        said = None
        while True:
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status == said:
                await self._changed.wait()
            else:
                said = status
                yield health_pb2.HealthCheckResponse(status=status).SerializeToString()

    async def run(self) -> None:
        """Keep the answers true until cancelled."""
        while True:
            self.update()
            await asyncio.sleep(INTERVAL)

    def update(self) -> None:
        """Look at the store, and say so if it can commit again, or no more."""
        status = SERVING if not self._draining and self._writable() else NOT_SERVING
        if status != self._statuses[""]:
            self._statuses = dict.fromkeys(self._statuses, status) | {LIVENESS: SERVING}
            self._changed.set()
            self._changed = asyncio.Event()

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining = True
        self.update()

    def _writable(self) -> bool:
        try:
            return self._store.writable()
        except Exception:  # a store that cannot even be asked; to stop looking would be to say the last answer for ever
            if self._statuses[""] != NOT_SERVING:
                log.exception("the store failed in an unforeseen way")
            return False
