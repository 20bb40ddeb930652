"""What recipes take: clients, names, seconds, counts, owners. Each check says what is wrong, in the caller's terms."""

import math
from typing import Any, Final, TypeVar

from comity.client import Client
from comity.errors import FailedPrecondition
from comity.model import Entry

__all__ = [
    "NAME_BYTES",
    "check_client",
    "check_count",
    "check_name",
    "check_seconds",
    "check_wait",
    "owner_of",
    "wait_of",
    "whole",
]

C = TypeVar("C")

SYNC: Final = "for a comity.sync client there is comity.sync.recipes"
NAME_BYTES: Final = 200  # what follows a name in a key is 60 bytes at most, and a key has 1,024


def check_client(state: C, kind: type[Any] = Client, instead: str = SYNC) -> C:
    """The client. Raises TypeError for what is none of that kind, which says what there is instead for another."""
    if not isinstance(state, kind):
        said = f"state must be a {_said(kind)}, not {_said(type(state))}"
        raise TypeError(f"{said}; {instead}" if instead else said)
    return state


def _said(kind: type[Any]) -> str:
    """As its users call it: comity.sync.Client."""
    module = kind.__module__.removesuffix(".client")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


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


def check_seconds(argument: str, seconds: float) -> float:
    """The seconds. Raises TypeError for what is no number, ValueError unless it is above 0 and finite."""
    _check_number(argument, seconds)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{argument} is a number of seconds above 0, not {seconds!r}")
    return seconds


def check_wait(argument: str, seconds: float) -> float:
    """The seconds. Raises TypeError for what is no number, ValueError unless it is finite and 0 or above."""
    _check_number(argument, seconds)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{argument} is a number of seconds from 0, not {seconds!r}")
    return seconds


def check_count(argument: str, count: int, least: int = 1, most: int = 1_000_000) -> int:
    """The number. Raises TypeError for what is no whole number, ValueError unless it is within the bounds."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{argument} must be a whole number, not {type(count).__name__}")
    if not least <= count <= most:
        raise ValueError(f"{argument} is a whole number from {least} to {most}, not {count}")
    return count


def wait_of(timeout: float | None) -> float | None:
    """The seconds that a wait may take; None: for ever. Raises TypeError for what is no number, ValueError for NaN."""
    if timeout is None:
        return None
    _check_number("timeout", timeout)
    if math.isnan(timeout):
        raise ValueError(f"timeout is a number of seconds, not {timeout!r}")
    return None if timeout == math.inf else timeout


def _check_number(argument: str, seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{argument} must be a number of seconds, not {type(seconds).__name__}")


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
