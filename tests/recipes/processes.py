"""Agents in processes of their own, which hold things and are killed or stopped while they do."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.servers import environment

PROGRAM = Path(__file__).with_name("agent.py")


class Agent:
    """Runs `agent.py`. It is told what to do by lines, and says what became of it."""

    def __init__(self, address: str, namespace: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            env=environment({"COMITY_ADDRESS": address, "COMITY_NAMESPACE": namespace}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def says(self) -> list[str]:
        """The words of its next line."""
        assert self._process.stdout is not None
        return (await asyncio.to_thread(self._process.stdout.readline)).split()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """As Ctrl-Z does."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
