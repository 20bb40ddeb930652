"""One server that is asked for all there is, and all that it tells of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import grpc
import pytest

from comity_server.access.tokens import new_token
from tests import servers
from tests.access.bearers import write_tokens
from tests.telemetry import busy
from tests.telemetry.collector import Collector, collecting
from tests.telemetry.prometheus import read

STREAMS = 4
SOON = {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_BSP_SCHEDULE_DELAY": "50"}


@dataclass(frozen=True)
class Busy:
    server: servers.Server
    collector: Collector
    token: str
    first: str = ""  # what Prometheus would have read just after all calls were made

    def scrape(self) -> str:
        """What Prometheus reads."""
        return read(self.server.metrics_address)


@pytest.fixture(scope="session")
def busy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """A server that has had calls of every kind, that went well and that did not."""
    tokens, token = tmp_path_factory.mktemp("telemetry") / "tokens", new_token()
    write_tokens(tokens, planner=token)
    with (
        collecting() as collector,
        servers.start(
            *("--tokens", str(tokens), "--log-level", "debug", "--log-calls", "all"),
            *("--metrics-listen", "127.0.0.1:0", "--otlp-endpoint", f"http://{collector.address}"),
            *("--max-principal-streams", str(STREAMS)),
            *("--compaction-interval", "0.1", "--retention-commits", "20", "--limit-lease-ttl-least", "0.1"),
            env=SOON,
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        busy.work(channel, token)
        busy.open_streams(channel, token, STREAMS + 1)
        made = Busy(server, collector, token)
        yield replace(made, first=made.scrape())
