"""What only recipes take: names, owners, whole numbers of keys, and clients of the right kind."""

from typing import Final

from comity.checks import check_client
from comity.client import Client
from comity.errors import FailedPrecondition
from comity.model import Entry

__all__ = ["NAME_BYTES", "asynchronous", "check_name", "owner_of", "whole"]

SYNC: Final = "for a comity.sync client there is comity.sync.recipes"
NAME_BYTES: Final = 200  # what follows a name in a key is 60 bytes at most, and a key has 1,024


def asynchronous(state: Client) -> Client:
    """The client. Raises TypeError for what is none, which says what there is for one of comity.sync."""
    return check_client(state, instead=SYNC)


def check_name(name: str) -> str:
    """The name. Raises TypeError for what is no str; ValueError unless it is 1 to 200 bytes of UTF-8 without / and NUL.

    A / would let the keys of one name lie among those of another.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"a name must be Unicode: {error}") from error
    if not 1 <= length <= NAME_BYTES:
        raise ValueError(f"a name has 1 to {NAME_BYTES} bytes of UTF-8, not {length}")
    if "/" in name or "\0" in name:
        raise ValueError(f"a name has no / and no NUL: {name!r}")
    return name


def owner_of(state: Client, owner: str | None) -> str:
    """Who is written down as the owner of something: the client's author unless said. Raises TypeError."""
    if owner is None:
        return state.author
    if not isinstance(owner, str):
        raise TypeError(f"owner must be a str, not {type(owner).__name__}")
    return owner


def whole(entry: Entry | None) -> int:
    """The whole number that a key holds; 0 if it is absent. Raises FailedPrecondition (NOT_A_NUMBER)."""
    if entry is None:
        return 0
    value = entry.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FailedPrecondition(
            f"{entry.key!r} holds no whole number", reason="NOT_A_NUMBER", metadata={"key": entry.key}
        )
    return value
