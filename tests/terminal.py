"""A terminal of 100 columns, in which a test runs a program, types, and reads what is written."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import forked

__all__ = ["LOOK", "attend", "plain", "run"]

SECONDS = 60.0
LOOK = {"TERM": "xterm-256color", "COLUMNS": "100"}
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    typed: bytes = b"",
    until: str | None = None,
) -> str:
    """What a program writes there until it ends. It is interrupted once it wrote `until`."""

    def start(theirs: int) -> "subprocess.Popen[Any]":
        return subprocess.Popen(
            command, cwd=cwd, env={**environment, **LOOK}, stdin=theirs, stdout=theirs, stderr=theirs
        )

    return attend(start, typed=typed, until=until)


def attend(
    start: "Callable[[int], subprocess.Popen[Any] | forked.Process]", *, typed: bytes = b"", until: str | None = None
) -> str:
    """What that writes which is started with the descriptor of a terminal. It should have LOOK in its environment."""
    ours, theirs = pty.openpty()
    process = start(theirs)
    os.close(theirs)
    os.write(ours, typed)
    written = b""
    while part := _read(ours):
        written += part
        if until is not None and until.encode() in written:
            process.send_signal(signal.SIGINT)
            until = None
    process.wait(SECONDS)
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def plain(shown: str) -> str:
    """The same without colours and other styles."""
    return STYLE.sub("", shown)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side of a terminal was closed
        return b""
