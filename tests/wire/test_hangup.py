"""SIGHUP: files are read again, and a server ends only with the terminal in whose foreground it runs."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from comity_server.access.tokens import new_token
from tests import servers
from tests.access.bearers import write_tokens
from tests.waiting import wait_until
from tests.wire.calls import TIMEOUT

NOTHING = "there are no files to read again"
# The first terminal that the leader of a session opens is its own.
FOREGROUND = 'exec <"$0"; echo $$; exec "$@"'
NOHUP = f"trap '' HUP; {FOREGROUND}"
BACKGROUND = 'exec <"$0"; set -m; "$@" & echo $!; wait'  # as a shell that somebody types into begins it


class Terminal:
    """One that a server was begun at. `shell` has begun it, and may be it."""

    def __init__(self, script: str, log: Path, *arguments: str) -> None:
        self._log = log
        self._ours, self._theirs = pty.openpty()
        with log.open("wb") as written:
            self.shell = subprocess.Popen(
                ["sh", "-c", script, os.ttyname(self._theirs), *servers.command(), *arguments],
                env=servers.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=written,
                start_new_session=True,
            )
        assert self.shell.stdout is not None
        self.pid = int(self.shell.stdout.readline())
        assert self.shell.stdout.readline().startswith(b"listening on")

    def close(self) -> None:
        os.close(self._theirs)
        os.close(self._ours)

    def logs(self, text: str) -> None:
        """Wait for it."""
        wait_until(lambda: text in self._log.read_text())


@contextmanager
def begun(script: str, tmp_path: Path, *arguments: str) -> Iterator[Terminal]:
    """A server at a terminal, which the test closes, and which has ended by the end of the block."""
    terminal = Terminal(script, tmp_path / "log", *arguments)
    with terminal.shell:
        try:
            yield terminal
            terminal.logs('"stopped"')
        finally:
            with suppress(ProcessLookupError):
                os.kill(terminal.pid, signal.SIGKILL)


def test_one_without_files_says_so_and_goes_on() -> None:
    with servers.start() as server:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: NOTHING in server.log())
        assert server.stop() == 0


def test_it_drains_when_its_terminal_is_gone(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    write_tokens(tokens, first=new_token())
    with begun(FOREGROUND, tmp_path, "--tokens", str(tokens)) as terminal:
        write_tokens(tokens, second=new_token())
        os.kill(terminal.pid, signal.SIGHUP)  # while the terminal is there
        terminal.logs("is in force")
        terminal.close()
        assert terminal.shell.wait(TIMEOUT) == 0


@pytest.mark.parametrize("script", [NOHUP, BACKGROUND])
def test_it_goes_on_without_a_terminal_that_it_is_not_tied_to(tmp_path: Path, script: str) -> None:
    with begun(script, tmp_path) as terminal:
        terminal.close()
        if script == BACKGROUND:
            terminal.shell.wait(TIMEOUT)
        os.kill(terminal.pid, signal.SIGHUP)
        terminal.logs(NOTHING)
        os.kill(terminal.pid, signal.SIGTERM)


def test_workers_drain_when_their_terminal_is_gone(redis_url: str, tmp_path: Path) -> None:
    with begun(FOREGROUND, tmp_path, "--store", redis_url, "--workers", "2") as terminal:
        os.kill(terminal.pid, signal.SIGHUP)
        terminal.logs(NOTHING)
        terminal.close()
        assert terminal.shell.wait(TIMEOUT) == 0
