"""A server of an example's own, so that each of them can be run as it is."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["own_server"]


@contextmanager
def own_server() -> Iterator[str]:
    """The address of a `comity serve`, a process over a store in memory that ends with the block."""
    serve = [sys.executable, "-m", "comity", "serve", "--log-level", "warning"]
    serve += ["--store", "memory:", "--listen", "127.0.0.1:0"]
    # In a session of its own, so that Ctrl-C reaches the example alone, which may need the server to the end.
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()  # listening on 127.0.0.1:PORT
            if not line:
                sys.exit("the server did not start")
            yield line.split()[-1]
        finally:
            server.terminate()
