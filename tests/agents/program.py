"""A function of a module, run as a program of its own."""

import os
import signal
import subprocess
from collections.abc import Callable

from comity.agents.forking import AgentProcess


class Program:
    """Runs it from the construction on. Its arguments are strings. It begins as an agent's process does, which takes a
    tenth of the start of a new Python."""

    def __init__(self, function: Callable[..., None], *arguments: str) -> None:
        self._process = AgentProcess(target=_run, args=(function, *arguments), name=function.__name__)
        self._process.start()

    def send_signal(self, number: signal.Signals) -> None:
        """As `kill` of a shell does."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        self._process.join(60)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, 60)
        return self._process.exitcode

    def kill(self) -> None:
        """End it as `kill -9` does. What it has started goes on."""
        self._process.kill()
        self.wait()


def _run(function: Callable[..., None], *arguments: str) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which it is in the processes of agents as they begin
    function(*arguments)
