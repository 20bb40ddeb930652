"""A process ends when it is to: soon, and by a last resort whatever hangs."""

import contextlib
import faulthandler
import gc
from typing import Final

from comity_server.settings import Settings

LAST_SECONDS: Final = 20.0  # beside the drain's delay and timeout: what else a stop waits for has bounds far below


def seconds(settings: Settings) -> float:
    """How long a stop may take."""
    return settings.drain_delay + settings.drain_timeout + LAST_SECONDS


def within(seconds: float) -> None:
    """End this process after so many seconds, with exit code 1, if it has not ended by then.

    What its threads were at is written to standard error, as Python tells it: that needs no event loop, nor anything
    that a thread may hold.
    """
    with contextlib.suppress(RuntimeError, ValueError, OSError):  # there is no standard error to write to
        faulthandler.dump_traceback_later(seconds, exit=True)


def soon() -> None:
    """There is nothing left to do: have the interpreter not look for garbage among all that there is.

    It does so three times at its end, which takes most of that: some tenths of a second of the processor, and many
    times as long where others want it too.
    """
    gc.freeze()
