"""A function of a module, run as a program of its own."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Program:
    """Runs it from the construction on. Its arguments are strings."""

    def __init__(self, function: Callable[..., None], *arguments: str) -> None:
        code = f"import sys; from {function.__module__} import {function.__name__} as run; run(*sys.argv[1:])"
        self._process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT)

    def send_signal(self, number: signal.Signals) -> None:
        """As `kill` of a shell does."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(60)

    def kill(self) -> None:
        """End it as `kill -9` does. What it has started goes on."""
        self._process.kill()
        self._process.wait()
