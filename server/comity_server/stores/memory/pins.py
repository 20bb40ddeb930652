"""The revisions that stay readable although the floor has passed them: those of checkpoints and forks."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from sortedcontainers import SortedDict


class Totals(NamedTuple):
    """How much there is at a revision."""

    keys: int
    size_bytes: int


NOTHING = Totals(0, 0)


class _Pin:
    __slots__ = ("held", "holders", "totals")

    def __init__(self, totals: Totals | None) -> None:
        self.holders = 0
        self.totals = totals
        self.held: set[str] = set()


class Pins:
    """Counts who holds each revision, and remembers which keys have versions that are kept for it alone."""

    def __init__(self) -> None:
        self._pins: SortedDict[int, _Pin] = SortedDict()

    def __contains__(self, revision: int) -> bool:
        return revision in self._pins

    def __bool__(self) -> bool:
        return bool(self._pins)

    def holders(self, revision: int) -> int:
        """How often a revision was pinned and not released."""
        pin = self._pins.get(revision)
        return pin.holders if pin is not None else 0

    def totals(self, revision: int) -> Totals | None:
        """How much there is at a pinned revision, if whoever pinned it said so."""
        pin = self._pins.get(revision)
        return pin.totals if pin is not None else None

    def add(self, revision: int, totals: Totals | None = None) -> None:
        """Pin a revision that can be read now, once more."""
        pin = self._pins.get(revision)
        if pin is None:
            pin = self._pins[revision] = _Pin(totals)
        pin.holders += 1
        pin.totals = pin.totals or totals

    def release(self, revision: int) -> set[str]:
        """Undo one `add`. Returns the keys whose versions nothing else may need any more."""
        pin = self._pins[revision]
        pin.holders -= 1
        if pin.holders:
            return set()
        del self._pins[revision]
        return pin.held

    def hold(self, key: str, first: int, last: int) -> bool:
        """Whether a version of a key is to be kept for one of the revisions that show it: `first` to `last`."""
        revisions: Sequence[int] = self._pins.keys()
        place = bisect_left(revisions, last + 1) - 1
        if place < 0 or revisions[place] < first:
            return False
        self._pins[revisions[place]].held.add(key)
        return True
