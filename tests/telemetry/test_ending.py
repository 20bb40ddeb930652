"""What exports metrics and traces holds up no end of a server."""

import re
import socket
import threading

import grpc
import pytest

from comity_server.observing import exporting
from comity_server.observing.exporting import Exporting
from comity_server.settings import Settings
from tests import servers
from tests.telemetry.conftest import SOON
from tests.wire.calls import Wire


def test_a_collector_that_never_answers_and_a_scrape_that_is_held_open() -> None:
    slow = {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "OTEL_METRIC_EXPORT_TIMEOUT": "3600000"}
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        servers.start(
            *("--otlp-endpoint", f"http://127.0.0.1:{silent.getsockname()[1]}", "--metrics-listen", "127.0.0.1:0"),
            env=SOON | slow,
        ) as server,
    ):
        found = re.search(r'"address": "([^"]+)", "event": "metrics can be read"', server.log())
        assert found is not None
        host, _, port = found[1].rpartition(":")
        with socket.create_connection((host, int(port))) as scrape, grpc.insecure_channel(server.address) as channel:
            scrape.sendall(b"GET /metrics HTTP/1.1\r\n")
            Wire(channel).put("n", "k")
            silent.accept()[0].close()  # it has begun to export
            with silent.accept()[0]:  # and goes on trying
                assert server.stop() == 0
        assert server.log().count("what exporters had not sent yet is lost") == 1
        assert '"stopped"' in server.log()


async def test_one_that_hangs_keeps_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "FLUSH_SECONDS", 0.2)
    made, hangs, sent = Exporting(Settings(), "1"), threading.Event(), threading.Event()
    made._ends = [hangs.wait, sent.set]
    await made.stop()
    assert sent.is_set()
    hangs.set()
