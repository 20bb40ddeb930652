"""Runs `comity` as users do: a process with arguments, standard input, output and an exit code."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forked, terminal
from tests.servers import environment

SECONDS = 60.0
DEAD = "127.0.0.1:1"  # nobody listens there


def command() -> list[str]:
    """The installed command, or where there is none, what it would run."""
    installed = Path(sys.executable).with_name("comity")
    return [str(installed)] if installed.exists() else [sys.executable, "-c", "from comity.cli import main; main()"]


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

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().removesuffix("\n")

    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line())
        return found

    def interrupt(self) -> Result:
        """Send it what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> Result:
        """Wait for its end."""
        data, errors = self._process.communicate(timeout=SECONDS)
        return Result(self._process.returncode, data, errors.decode())


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
        process = subprocess.Popen(
            [*command(), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()

    def watch(self, *arguments: str) -> AbstractContextManager[Running]:
        """Start `comity watch`, as `started` does."""
        return self.started("watch", *arguments)

    def shell(self, script: str) -> Result:
        """Run a line of bash in which `comity` is the command."""
        function = f'comity() {{ {shlex.join(command())} "$@"; }}'
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
        return terminal.run([*command(), *arguments], self.environment, typed=typed, until=until)
