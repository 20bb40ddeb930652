"""Health of the server and of each service: SERVING while the store can commit and the server does not drain."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2

from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.5  # seconds between looks at the store
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Servicer(health.aio.HealthServicer):
    """grpcio's own, which lacks List and would answer it with the text of an exception."""

    async def List(self, request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "use Check or Watch")


class Health:
    """What `grpc.health.v1.Health` answers.

    Args:
        store: asked whether it can commit.
        offered: the full names of the services that this server has.
        missing: the full names of services of the contract that it has not.
    """

    def __init__(self, store: Store, offered: Iterable[str], missing: Iterable[str]) -> None:
        self.servicer = Servicer()
        self._store = store
        self._offered = ["", *offered]
        self._missing = list(missing)
        self._said: int | None = None

    async def run(self) -> None:
        """Keep the answers true until cancelled."""
        while True:
            await self.update()
            await asyncio.sleep(INTERVAL)

    async def update(self) -> None:
        """Look at the store, and say so if it can commit again, or no more."""
        status = self._status()
        if status == self._said:
            return
        for service in self._offered:
            await self.servicer.set(service, status)
        for service in self._missing:
            await self.servicer.set(service, NOT_SERVING)
        self._said = status

    def _status(self) -> int:
        try:
            return SERVING if self._store.writable() else NOT_SERVING
        except Exception:  # a store that cannot even be asked; to stop looking would be to say the last answer for ever
            if self._said != NOT_SERVING:
                log.exception("the store failed in an unforeseen way")
            return NOT_SERVING

    async def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        await self.servicer.enter_graceful_shutdown()
