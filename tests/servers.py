"""A `comity serve` of its own for a test: a real process on a free port of the loopback.

It is forked from one that has imported all (tests/forked.py), which takes a sixth of a start from nothing. What a test
sets beside the variables COMITY_* may be read when something is imported, so such a server does start from nothing, as
those do of tests of the image, of the README and of the command in a shell.

with servers.start("--store", "memory:") as server:
    channel = grpc.insecure_channel(server.address)
    server.kill()
    server.restart()  # on the same port
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from tests import forked

START_SECONDS = 30.0
STOP_SECONDS = 60.0  # by then a server has ended by itself, whatever hangs, and its log says what
LISTENING = "listening on "
HEALTH = "health on "

DEVNULL = os.open(os.devnull, os.O_RDWR)

Environment = Mapping[str, str | None]


def command() -> list[str]:
    """How `comity serve` is started here: the installed command, or where it has no CLI, the server's own module."""
    installed = Path(sys.executable).with_name("comity")
    if installed.exists() and importlib.util.find_spec("comity.cli") is not None:
        return [str(installed), "serve"]
    return [sys.executable, "-m", "comity_server.serve"]


def environment(changes: Environment | None = None) -> dict[str, str]:
    """This process's environment without COMITY_*, with a memory store and a free port unless the changes say else.

    A change to None takes a variable away.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COMITY_")}
    wanted = plain | {"COMITY_STORE": "memory:", "COMITY_LISTEN": "127.0.0.1:0"} | dict(changes or {})
    return {name: value for name, value in wanted.items() if value is not None}


def can_fork(changes: Environment | None) -> bool:
    """Whether the changes are to variables that are read when the server starts, and by nothing that is imported; on a
    system that has forks."""
    return forked.CAN_FORK and all(name.startswith("COMITY_") for name in changes or ())


class Server:
    """One `comity serve`, running from its construction on. As a context manager it ends when the block does."""

    address: str  # HOST:PORT, the first one
    process: subprocess.Popen[str] | forked.Process

    def __init__(self, arguments: Sequence[str], env: Environment | None = None) -> None:
        self._arguments = list(arguments)
        self._environment = environment(env)
        self._forked = can_fork(env)
        self._log = tempfile.NamedTemporaryFile("a", suffix=".log")  # noqa: SIM115 - lives as long as the server
        self.addresses: list[str] = []
        self.health_addresses: list[str] = []  # where it tells its health alone
        self.output: list[str] = []
        self._start()

    @property
    def metrics_address(self) -> str:
        """Where Prometheus reads, of a server of one process that was started anew with --metrics-listen."""
        said = map(json.loads, self.log().splitlines())
        return next(str(line["address"]) for line in said if line["event"] == "metrics can be read")

    def log(self) -> str:
        """What the server wrote to standard error up to now, over all of its starts."""
        return Path(self._log.name).read_text()

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """Ask it to end, as a service manager would, and return its exit code. Nothing happens if it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(timeout)

    def kill(self) -> None:
        """End it at once, as `kill -9` or a lack of memory would."""
        self.process.kill()
        self.wait()

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(timeout)
        self._reader.join()
        return code

    def restart(self) -> None:
        """Start it again with the same arguments, on the port that it had. It is stopped first if it runs."""
        self.stop()
        kept = _without_listen(self._arguments)
        for address in self.addresses:
            kept += ["--listen", address]
        self._arguments = kept
        self._start()

    def close(self) -> None:
        """End it by force if need be, and let go of everything."""
        try:
            self.stop()
            assert "Timeout (0:" not in self.log(), f"it did not end by itself:\n{self.log()}"
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> None:
        listens = self._arguments.count("--listen") or len(self._environment.get("COMITY_LISTEN", "").split(","))
        self.addresses = []
        self.health_addresses = []
        self.output = []
        reading, writing = os.pipe()
        files = (DEVNULL, writing, self._log.fileno())
        if self._forked:
            self.process = forked.Process(["serve", *self._arguments], env=self._environment, files=files)
        else:
            arguments = [*command(), *self._arguments]
            stdin, stdout, stderr = files
            self.process = subprocess.Popen(
                arguments, env=self._environment, stdin=stdin, stdout=stdout, stderr=stderr, text=True
            )
        os.close(writing)
        serves = threading.Event()
        output = os.fdopen(reading)
        self._reader = threading.Thread(target=self._read_output, args=(output, listens, serves), daemon=True)
        self._reader.start()
        if not serves.wait(START_SECONDS):
            self.process.kill()
        if len(self.addresses) < listens:
            code = self.wait()
            log = self.log()
            self._log.close()
            raise RuntimeError(f"comity serve ended with {code} before it served:\n{''.join(self.output)}{log}")
        self.address = self.addresses[0]

    def _read_output(self, output: IO[str], listens: int, serves: threading.Event) -> None:
        with output as lines:
            for line in lines:
                self.output.append(line)
                if line.startswith(HEALTH):
                    self.health_addresses.append(line.removeprefix(HEALTH).strip())
                if line.startswith(LISTENING):
                    self.addresses.append(line.removeprefix(LISTENING).strip())
                    if len(self.addresses) == listens:
                        serves.set()
        serves.set()


def start(*arguments: str, env: Environment | None = None) -> Server:
    """Start `comity serve` with these arguments, and return when it serves.

    Unless the arguments or `env` say else it listens on a free port of 127.0.0.1, with `memory:`. Raises RuntimeError,
    with what it wrote, if it ends instead of serving.
    """
    return Server(arguments, env)


def run(*arguments: str, env: Environment | None = None) -> subprocess.CompletedProcess[str]:
    """Run `comity serve` to its end: for arguments that it refuses."""
    whole = [*command(), *arguments]
    if can_fork(env):
        code, output, errors = forked.run(["serve", *arguments], env=environment(env), stdin=b"", timeout=START_SECONDS)
        return subprocess.CompletedProcess(whole, code, output.decode(), errors.decode())
    return subprocess.run(
        whole,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def _without_listen(arguments: Sequence[str]) -> list[str]:
    kept = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--listen":
            next(rest)
        elif not argument.startswith("--listen="):
            kept.append(argument)
    return kept
