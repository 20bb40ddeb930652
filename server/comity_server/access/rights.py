"""What one principal may do in one namespace."""

import enum
from collections.abc import Iterable
from typing import Final


class Access(enum.Flag):
    """What is done to keys, or to a namespace."""

    READ = enum.auto()
    WRITE = enum.auto()
    ADMIN = enum.auto()


READ: Final = Access.READ
WRITE: Final = Access.WRITE
ADMIN: Final = Access.ADMIN


class Rights:
    """Which keys may be read and written, each told by a prefix, and whether the namespace is theirs to administer.

    A key may be read if it begins with one of the prefixes; all keys under a prefix, if the prefix itself does. So one
    question, `may`, is asked for both, and what lies half inside of a right is outside of it.
    """

    __slots__ = ("_admin", "_read", "_write")

    def __init__(self, read: Iterable[str] = (), write: Iterable[str] = (), *, admin: bool = False) -> None:
        self._read = tuple(read)
        self._write = tuple(write)
        self._admin = admin

    def may(self, access: Access, target: str) -> bool:
        """Whether all that is named may be done to a key, or to all keys under a prefix. ADMIN is of the namespace."""
        if READ in access and not target.startswith(self._read):
            return False
        if WRITE in access and not target.startswith(self._write):
            return False
        return ADMIN not in access or self._admin

    def may_somewhere(self, access: Access) -> bool:
        """Whether any of what is named may be done to any key."""
        return bool(
            (READ in access and self._read) or (WRITE in access and self._write) or (ADMIN in access and self._admin)
        )


EVERYTHING: Final = Rights([""], [""], admin=True)
NOTHING: Final = Rights()
