"""SIGHUP, which means two things: an operator asks for files to be read again, or the terminal is gone."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

TERMINAL: Final = "/dev/tty"  # the process's own, if it has one


def on_hangup(reload: Callable[[], None]) -> None:
    """From now on call a function at each SIGHUP, on the event loop; at one by which a terminal ends that the process
    has had, end as without this. Nothing happens where there is no such signal."""
    number = getattr(signal, "SIGHUP", None)
    if number is None:
        return
    has_had = _has_terminal()
    loop = asyncio.get_running_loop()

    def hung_up() -> None:
        if has_had and not _has_terminal():
            loop.remove_signal_handler(number)
            os.kill(os.getpid(), number)
        else:
            reload()

    loop.add_signal_handler(number, hung_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
