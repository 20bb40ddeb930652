"""Ctrl-C reaches every process of a terminal, and is for the one that supervises the others."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker

__all__ = ["ignore_interrupts", "without_interrupts"]


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """A block of a thread in which processes are started that are not to be interrupted, not even as they begin: they
    have the signals blocked that their thread has."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # else the first start of a process begins with it, which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """What such a process does first, so that what it starts itself has no signal blocked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
