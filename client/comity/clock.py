"""The clock that leases are counted by: seconds that nobody sets, and that go on while the process is stopped."""

import time
from typing import Final

__all__ = ["now"]

# Where there is such a clock, one that goes on also while the whole machine sleeps: the server's did.
BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds since some moment."""
    return time.monotonic() if BOOT is None else time.clock_gettime(BOOT)
