"""What one principal may do in one namespace."""

import enum
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

FEW: Final = 24  # prefixes that are best tried one after another


class Access(enum.IntFlag):
    """What is done to keys, or to a namespace."""

    READ = 1
    WRITE = 2
    ADMIN = 4


READ: Final = Access.READ
WRITE: Final = Access.WRITE
ADMIN: Final = Access.ADMIN
READ_WRITE: Final = READ | WRITE
ANY: Final = READ | WRITE | ADMIN


class Rights:
    """Which keys may be read and written, each told by a prefix, and whether the namespace is theirs to administer.

    A key may be read if it begins with one of the prefixes; all keys under a prefix, if the prefix itself does. So one
    question, `may`, is asked for both, and what lies half inside of a right is outside of it.
    """

    __slots__ = ("_granted",)

    def __init__(self, read: Iterable[str] = (), write: Iterable[str] = (), *, admin: bool = False) -> None:
        alone = {READ: _outermost(read), WRITE: _outermost(write), ADMIN: ("",) if admin else ()}
        # By the access that is asked for, which the hot path need not take apart.
        self._granted = tuple(
            _within_all(*(prefixes for each, prefixes in alone.items() if each & asked)) for asked in range(8)
        )

    def may(self, access: Access, target: str) -> bool:
        """Whether all that is named may be done to a key, or to all keys under a prefix. ADMIN is of the namespace."""
        return _is_within(target, self._granted[access])

    def may_somewhere(self, access: Access) -> bool:
        """Whether any of what is named may be done to any key."""
        return any(self._granted[each] for each in access)


def _is_within(target: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a text begins with one of some prefixes, which are in order, and none within another."""
    if len(prefixes) <= FEW:
        return target.startswith(prefixes)
    place = bisect_right(prefixes, target)  # what lies between a prefix and a text that begins with it does so, too
    return place > 0 and target.startswith(prefixes[place - 1])


def _outermost(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Prefixes in order, without those that are within another."""
    outermost: list[str] = []
    for prefix in sorted(prefixes):
        if not outermost or not prefix.startswith(outermost[-1]):
            outermost.append(prefix)
    return tuple(outermost)


def _within_all(*several: tuple[str, ...]) -> tuple[str, ...]:
    """The prefixes of what is within each of several lists of them."""
    common: tuple[str, ...] = ("",)
    for prefixes in several:
        common = _outermost(
            [each for each in prefixes if _is_within(each, common)]
            + [each for each in common if _is_within(each, prefixes)]
        )
    return common


EVERYTHING: Final = Rights([""], [""], admin=True)
NOTHING: Final = Rights()
