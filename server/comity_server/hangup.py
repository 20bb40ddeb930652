"""SIGHUP, which means two things: an operator asks for files to be read again, or the terminal is gone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

TERMINAL: Final = "/dev/tty"  # the process's own, if it has one


def on_hangup(reload: Callable[[], None], stop: Callable[[], None] | None = None) -> None:
    """From now on call a function at each SIGHUP, on the event loop, and never end by one: `stop` where the process was
    begun in the foreground of a terminal that is gone, unless it was to outlive that, as by `nohup`; else `reload`.
    Nothing happens where there is no such signal."""
    number = getattr(signal, "SIGHUP", None)
    if number is None:
        return
    outlives = signal.getsignal(number) is signal.SIG_IGN
    begun_there = stop is not None and not outlives and _foreground() == os.getpgrp()

    def hung_up() -> None:
        if stop is not None and begun_there and _foreground() is None:
            stop()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(number, hung_up)


def _foreground() -> int | None:
    """The group of processes in the foreground of the terminal. None: there is no terminal."""
    with contextlib.suppress(OSError):
        terminal = os.open(TERMINAL, os.O_RDWR | getattr(os, "O_NOCTTY", 0))
        try:
            return os.tcgetpgrp(terminal)
        finally:
            os.close(terminal)
    return None
