"""A server that a program in another language may end and start: POST /start and /kill to an address."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.servers import Server, start


@contextmanager
def controlled(store: str, log: Path) -> Iterator[str]:
    """The URL. The server, over a store that is kept, runs from the first start on; its log is written at the end."""
    running: list[Server] = []

    def act(what: str) -> str:
        if what == "start" and not running:
            running.append(start("--store", store))
        elif what == "start":
            running[0].restart()
        else:
            running[0].kill()
        return running[0].address

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = act(self.path.removeprefix("/")).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
            for server in running:
                log.write_text(server.log())
                server.close()
