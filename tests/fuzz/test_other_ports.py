"""TLS, and the port of metrics: they bear whatever comes in, and connections that say nothing."""

import contextlib
import socket
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from comity.v1 import state_pb2 as s
from comity_server.observing.scraping import READERS
from tests import servers
from tests.access.channels import channel
from tests.authority import Authority
from tests.fuzz.conversations import GREETINGS
from tests.fuzz.test_frames import converse
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire

AUTHORITY = Authority()
SILENT = 60  # connections


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cert, key = AUTHORITY.server().write(tmp_path_factory.mktemp("tls"))
    arguments = (
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
        "--metrics-listen",
        "127.0.0.1:0",
        "--handshake-timeout",
        "1",
    )
    with servers.start(*arguments) as server:
        yield server


def check_served(server: Server) -> None:
    with channel(server.address.replace("127.0.0.1", "localhost"), AUTHORITY.pem) as connection:
        Wire(connection).call(s.GetRequest(namespace="n", key="k"))
    assert [line for line in server.log().splitlines() if '"level": "info"' not in line] == []


def test_what_is_no_tls_is_turned_away(secured: Server) -> None:
    for greeting in GREETINGS:
        converse(secured.address, greeting)
    check_served(secured)


async def test_who_begins_no_tls_is_let_go(secured: Server) -> None:
    host, port = secured.address.rsplit(":", 1)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT)) for _ in range(SILENT)]
        check_served(secured)
        for connection in silent:
            assert connection.recv(1) == b""


async def test_readers_of_metrics_are_bounded(secured: Server) -> None:
    metrics = secured.metrics_address

    def read() -> bool:
        try:
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=TIMEOUT) as answer:
                return b"process_resident_memory_bytes" in answer.read()
        except OSError:
            return False

    for greeting in GREETINGS:
        converse(metrics, greeting)
    await until(read)
    process = psutil.Process(secured.process.pid)
    before = process.num_threads()
    host, port = metrics.rsplit(":", 1)
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT))
        await until(lambda: not read())
        assert process.num_threads() < before + READERS + SILENT / 2
        check_served(secured)
    await until(read)
