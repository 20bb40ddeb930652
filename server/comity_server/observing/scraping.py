"""The HTTP endpoint that Prometheus reads: a few may at a time, and none for long, so that who asks for much, or begins
to ask and goes on slowly or not at all, takes up little."""

import contextlib
import http.client
import io
import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog

from comity_server.listening import places

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)

READERS: Final = 16  # at a time; others are turned away
READ_SECONDS: Final = 5.0  # how long a reader may take, from its connection to the end of its answer
HEAD_BYTES: Final = 8192  # of a request and its headers


class _Head(io.BufferedReader):
    """What a reader asks, line by line, up to a bound."""

    room = HEAD_BYTES

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(self.room + 1)
        self.room -= len(line)
        if self.room < 0:
            raise http.client.LineTooLong("request")
        return line


class _Request(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = _Head(self.connection.makefile("rb", 0))

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


class Scraping(ThreadingMixIn, WSGIServer):
    """Serves a registry, from its construction on until `end`. Raises OSError, OverflowError.

    Args:
        host: where to listen.
        port: the same; 0 for a free one, which `server_port` tells.
        registry: what can be read.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait to be looked at

    def __init__(self, host: str, port: int, registry: "CollectorRegistry") -> None:
        from prometheus_client import make_wsgi_app

        self._room = threading.BoundedSemaphore(READERS)
        self.address_family, _, _, _, place = places(host, port)[0]
        super().__init__(place[:2], _Request)
        self.set_app(make_wsgi_app(registry))
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        """Serve nobody else, and wait for nobody that is being served."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Read a request on a thread, if there is room for one."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """On its thread."""
        timer = threading.Timer(READ_SECONDS, _cut_off, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """It is the reader's doing: it went away, or was too slow."""
        log.debug("metrics were not read to the end")


def _cut_off(request: socket.socket) -> None:
    """End a connection, which wakes up the thread that reads or writes there."""
    with contextlib.suppress(OSError):  # it has ended
        request.shutdown(socket.SHUT_RDWR)
