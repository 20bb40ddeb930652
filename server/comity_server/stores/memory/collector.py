"""Keeps the garbage collector away while much is loaded.

What is loaded stays: the collector would look through it again and again as it grows, and in vain.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MUCH = 50_000  # new objects, which the collector would look through in one go: some tens of ms

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
            # Much that was loaded counts as old at once, since to age it would be to look through it.
            if gc.get_count()[0] > _MUCH and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
