"""Gives memory back to the system once much was dropped: the C library keeps what is freed, for what comes next.

Only whole pages go back, so it helps where keys went that were written one after another, and not where each second one
did. That is reused. Other C libraries than glibc are left to themselves.
"""

import asyncio
import ctypes
import sys
from collections.abc import Callable
from typing import Final

_MUCH: Final = 32 * 1024 * 1024  # bytes
_SHARE: Final = 4  # that they are at least a quarter of what is left: it takes some ms for each 100 MB of that


def _found() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


_trim: Final = _found()


async def trimmed(dropped: int, left: int) -> None:
    """Return when what was freed is given back, if it was much. In a thread, as it takes longer than a turn may.

    dropped, left: bytes.
    """
    if _trim is not None and dropped >= max(_MUCH, left // _SHARE):
        await asyncio.to_thread(_trim, 0)
