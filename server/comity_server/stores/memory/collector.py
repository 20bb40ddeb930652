"""Keeps the garbage collector away while much is loaded.

What is loaded stays: the collector would look through it again and again as it grows, and in vain.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_loading = 0  # how many load now
_was_enabled = False


@contextmanager
def held_off() -> Iterator[None]:
    """Nothing is collected until the last of those is through who load at a time. Use from one thread."""
    global _loading, _was_enabled
    if not _loading:
        _was_enabled = gc.isenabled()
        gc.disable()
    _loading += 1
    try:
        yield
    finally:
        _loading -= 1
        if not _loading and _was_enabled:
            if not gc.get_freeze_count():  # what is loaded counts as old at once: to age it would be to look through it
                gc.freeze()
                gc.unfreeze()
            gc.enable()
