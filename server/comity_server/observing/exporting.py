"""Who is told of metrics and traces: nobody, unless a setting or a variable of OpenTelemetry names somebody.

The variables mean what OpenTelemetry says: OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER choose exporters (`otlp`,
`console`, `none`, or the name of another one that is installed), OTEL_SDK_DISABLED switches all of it off, and the SDK
itself reads the others: of the resource, of sampling, of batches, of OTLP. Where nobody is told, no SDK is loaded.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import structlog

from comity_server.access import exposure
from comity_server.listening import ListenError, host_of
from comity_server.observing.scraping import Scraping
from comity_server.observing.snapshot import Snapshot
from comity_server.settings import Settings, SettingsError
from comity_server.telemetry.tally import Tally

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import CollectorRegistry

    from comity_server.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

OTLP: Final = "otlp_proto_grpc"
SHORT: Final = {"otlp": OTLP}  # the names that OpenTelemetry gives exporters, where the installed ones have others
FLUSH_SECONDS: Final = 3.0  # how long exporters have at the end for what they have not sent


class Exporting:
    """The exporters of a server. Begun before it serves, and ended after it.

    Args:
        settings: see there.
        worker: which of several processes this is, from 1. Each has a metrics endpoint of its own, on the ports from
            that of the setting on.
        version: of the server.

    Raises SettingsError.
    """

    def __init__(self, settings: Settings, version: str, worker: int = 0) -> None:
        self.metrics_address = ""  # once it is listened on
        self.tracing: Tracing | None = None
        self._version = version
        self._worker = worker
        self._listen = settings.metrics_listen
        self._settings = settings
        self._endpoint = settings.otlp_endpoint
        self._ends: list[Callable[[], object]] = []
        is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        self._metrics: Sequence[Any] = () if is_disabled else self._exporters("metrics")
        traces = () if is_disabled else self._exporters("traces")
        if traces:
            self.tracing = self._trace(traces)

    def start(self, tally: Tally, look: Callable[[], Snapshot]) -> None:
        """Begin to export metrics. Raises ListenError if the endpoint cannot be listened on."""
        if not self._metrics and not self._listen:
            return
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
        from prometheus_client import CollectorRegistry

        from comity_server.observing import instruments

        readers = [
            one if isinstance(one, MetricReader) else PeriodicExportingMetricReader(one) for one in self._metrics
        ]
        registry = CollectorRegistry()
        if self._listen:
            readers.append(PrometheusMetricReader(scope_info_enabled=False, registry=registry))
        provider = MeterProvider(readers, self._resource(), shutdown_on_exit=False)
        self._ends.append(provider.shutdown)
        named = exposure.names_namespaces(self._settings)
        instruments.register(provider.get_meter("comity", self._version), tally, look, named=named)
        if self._listen:
            self._serve(registry)

    async def stop(self) -> None:
        """Send what was not sent yet, for a few seconds at most, and end.

        Each has a thread, so that one that hangs holds up neither the others nor the event loop.
        """
        loop = asyncio.get_running_loop()
        ended = [loop.create_future() for _ in self._ends]
        for end, future in zip(self._ends, ended, strict=True):
            threading.Thread(target=_end, args=(end, loop, future), daemon=True).start()
        if ended and (await asyncio.wait(ended, timeout=FLUSH_SECONDS))[1]:
            log.warning("what exporters had not sent yet is lost", seconds=FLUSH_SECONDS)

    def _exporters(self, signal: str) -> Sequence[Any]:
        """Those of a kind of telemetry that are asked for."""
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        said = os.environ.get(variable, "")
        names = [name.strip() for name in said.split(",") if name.strip()] or (["otlp"] if self._endpoint else [])
        found = []
        for name in names:
            if name == "none":
                continue
            chosen = SHORT.get(name, name)
            entries = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=chosen))
            if not entries:
                raise SettingsError(f"{variable}: {name!r} is no exporter of {signal} that is installed")
            of_endpoint = {"endpoint": self._endpoint} if chosen == OTLP and self._endpoint else {}
            try:
                found.append(entries[0].load()(**of_endpoint))
            except (OSError, ValueError) as error:
                raise SettingsError(f"{variable}: {name} cannot be used: {error}") from None
        return found

    def _resource(self) -> "Resource":
        from opentelemetry.sdk.resources import Resource

        found = Resource.create({"service.version": self._version})
        if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
            found = found.merge(Resource({"service.name": "comity"}))
        return found.merge(Resource({"comity.worker": self._worker})) if self._worker else found

    def _trace(self, exporters: Sequence[Any]) -> "Tracing":
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        try:
            from comity_server.telemetry.tracing import Tracing
        except ValueError as error:  # OpenTelemetry reads the variable when it is imported
            raise SettingsError(f"OTEL_PROPAGATORS: {error}") from None

        provider = TracerProvider(resource=self._resource(), shutdown_on_exit=False)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter))
        self._ends.append(provider.shutdown)
        return Tracing(provider, self._version)

    def _serve(self, registry: "CollectorRegistry") -> None:
        """Let Prometheus read what is registered, and what its client knows of the process."""
        from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        host, port = host_of(self._listen)
        if port and self._worker:
            port += self._worker - 1
        shown = self._listen.rpartition(":")[0]
        try:
            server = Scraping(host, port, registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ListenError(f"cannot listen on {shown}:{port}: {reason}") from None
        self._ends.append(server.end)
        self.metrics_address = f"{shown}:{server.server_port}"
        log.info("metrics can be read", address=self.metrics_address)


def _end(end: Callable[[], object], loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
    try:
        end()
    except Exception as error:  # noqa: BLE001 - a collector that is not there must hold up nothing
        log.warning("an exporter could not be ended", error=repr(error))
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(ended.set_result, None)
