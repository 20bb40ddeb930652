"""Keeps the garbage collector away while much is loaded.

What is loaded stays: the collector would look through it again and again as it grows, and in vain.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MUCH = 50_000  # new objects, which the collector would look through in one go: some tens of ms

_loading = 0  # how many load now
_was_enabled = False
_kept = False  # much was loaded, of a store that may be gone


def keep() -> None:
    """What is loaded now is looked through no more until `let_go`, if it is much."""
    global _kept
    if gc.get_count()[0] > _MUCH:
        _kept = True
        gc.freeze()


def let_go() -> None:
    """What was loaded goes with the store that it is of."""
    if _kept:
        gc.unfreeze()


@contextmanager
def held_off() -> Iterator[None]:
    """Nothing is collected until the last of those is through who load at a time. Use from one thread."""
    global _loading, _was_enabled, _kept
    if not _loading:
        if _kept:  # else what is left of that would be kept with what comes
            _kept = False
            gc.collect()
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
