"""The endpoint for Prometheus, and who asks there slowly, for much, or without an end."""

import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from comity_server.observing import scraping
from comity_server.observing.scraping import HEAD_BYTES, READERS, Scraping

SECONDS = 30


@pytest.fixture
def endpoint() -> Iterator[Scraping]:
    registry = CollectorRegistry()
    Counter("looks", "Of the test.", registry=registry).inc()
    made = Scraping("127.0.0.1", 0, registry)
    yield made
    made.end()


def connected(endpoint: Scraping) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.server_port), timeout=SECONDS)


def asked(endpoint: Scraping, request: bytes) -> bytes:
    """All that is answered to a request; as much as there is, if it is cut off."""
    answer = b""
    with connected(endpoint) as connection:
        try:
            connection.sendall(request)
            while data := connection.recv(65536):
                answer += data
        except ConnectionError:
            pass
    return answer


def drip(connection: socket.socket) -> None:
    """Ask without an end, a byte at a time."""
    try:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        connection.settimeout(0.02)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(b"a")
    except OSError:
        pass


def test_who_asks_slowly_is_cut_off(endpoint: Scraping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "READ_SECONDS", 0.3)
    connections = [connected(endpoint) for _ in range(READERS)]
    dripping = [threading.Thread(target=drip, args=[connection]) for connection in connections]
    for thread in dripping:
        thread.start()
    for thread in dripping:
        thread.join(SECONDS)
        assert not thread.is_alive()
    for connection in connections:
        connection.close()
    assert b"looks_total 1.0" in asked(endpoint, b"GET /metrics HTTP/1.1\r\n\r\n")


def test_headers_are_bounded(endpoint: Scraping) -> None:
    begin = b"GET /metrics HTTP/1.1\r\n"
    fits = begin + b"A: %s\r\n\r\n" % (b"a" * (HEAD_BYTES - len(begin) - 10))
    assert asked(endpoint, fits).startswith(b"HTTP/1.0 200")
    assert b"looks_total" not in asked(endpoint, begin + b"A: %s\r\n\r\n" % (b"a" * HEAD_BYTES))
    assert b"looks_total" not in asked(endpoint, begin + b"A: b\r\n" * (HEAD_BYTES // 6) + b"\r\n")
    assert b"looks_total" not in asked(endpoint, b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n")
