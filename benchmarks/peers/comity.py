"""`comity serve`."""

import contextlib
import sys
from collections.abc import Iterator

from benchmarks.peers.process import Process, running


class Comity:
    """A server that serves, and how long it took to."""

    def __init__(self, process: Process, address: str, start_seconds: float) -> None:
        self.process = process
        self.address = address
        self.start_seconds = start_seconds


@contextlib.contextmanager
def serve(store: str, *arguments: str) -> Iterator[Comity]:
    """Serve a store on a free port."""
    command = [sys.executable, "-m", "comity", "serve", "--log-level", "warning", "--store", store]
    with running([*command, "--listen", "127.0.0.1:0", *arguments]) as process:
        assert process.popen.stdout is not None
        line = process.popen.stdout.readline().decode()  # listening on 127.0.0.1:PORT
        seconds = process.seconds()
        if not line:
            raise RuntimeError("comity serve did not start")
        yield Comity(process, line.split()[-1], seconds)
