"""Runs `comity` as users do: a process with arguments, standard input, output and an exit code.

It is forked from one that has imported all (tests/forked.py) where that can be done, except in a `shell`.
"""

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests import forked, terminal
from tests.servers import DEVNULL, environment

SECONDS = 60.0
DEAD = "127.0.0.1:1"  # nobody listens there


@dataclass(frozen=True)
class Result:
    """How a process ended."""

    code: int
    data: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it wrote with --json: one object a line."""
        return [json.loads(line) for line in self.data.splitlines()]

    @property
    def object(self) -> dict[str, Any]:
        (only,) = self.objects
        return only

    @property
    def error(self) -> dict[str, Any]:
        """The error object on standard error, which is one line."""
        assert self.errors.count("\n") == 1, self.errors
        found: dict[str, Any] = json.loads(self.errors)
        return found


class Running:
    """A command that runs."""

    def __init__(self, process: forked.Process | subprocess.Popen[bytes], output: IO[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._output = output
        self._errors = errors

    def line(self) -> str:
        return self._output.readline().decode().removesuffix("\n")

    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line())
        return found

    def interrupt(self) -> Result:
        """Send it what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> Result:
        """Wait for its end."""
        data = self._output.read()
        code = self._process.wait(SECONDS)
        self._errors.seek(0)
        return Result(code, data, self._errors.read().decode())


class Comity:
    """The command, set up by COMITY_ADDRESS and COMITY_NAMESPACE."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self.environment = environment({"COMITY_ADDRESS": address, "COMITY_NAMESPACE": namespace})

    def __call__(self, *arguments: str | bytes, code: int = 0, stdin: bytes = b"", **variables: str) -> Result:
        """Run it to its end, and check its exit code; if that is 0, that it had nothing to complain of."""
        ended, data, errors = forked.run(arguments, env=self.environment | variables, stdin=stdin, timeout=SECONDS)
        result = Result(ended, data, errors.decode())
        assert result.code == code, result
        assert "Traceback" not in result.errors
        assert result.errors.count("\n") <= (0 if code == 0 else 1), result
        return result

    @contextmanager
    def started(self, *arguments: str) -> Iterator[Running]:
        """Start a command. It is killed at the end of the block if it still runs."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as output, tempfile.TemporaryFile() as errors:
            process = forked.start(arguments, env=self.environment, files=(DEVNULL, writing, errors.fileno()))
            os.close(writing)
            try:
                yield Running(process, output, errors)
            finally:
                process.kill()
                process.wait()

    def watch(self, *arguments: str) -> AbstractContextManager[Running]:
        """Start `comity watch`, as `started` does."""
        return self.started("watch", *arguments)

    def shell(self, script: str) -> Result:
        """Run a line of bash in which `comity` is the command."""
        function = f'comity() {{ {shlex.join(forked.command())} "$@"; }}'
        done = subprocess.run(
            ["bash", "-c", f"{function}\n{script}"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def on_terminal(self, *arguments: str, typed: bytes = b"", until: str | None = None) -> str:
        """What it writes to a terminal of 100 columns, where something is typed, and which interrupts it at a text."""

        def start(theirs: int) -> forked.Process | subprocess.Popen[bytes]:
            return forked.start(arguments, env=self.environment | terminal.LOOK, files=(theirs, theirs, theirs))

        return terminal.attend(start, typed=typed, until=until)
