"""What recipes and agents take: clients, seconds, counts. Each check says what is wrong, in the caller's terms."""

import math
from typing import Any, TypeVar

from .client import Client

__all__ = ["check_client", "check_count", "check_seconds", "check_wait", "wait_of"]

C = TypeVar("C")


def check_client(state: C, kind: type[Any] = Client, instead: str = "") -> C:
    """The client. Raises TypeError for what is none of that kind, which says what there is instead for another."""
    if not isinstance(state, kind):
        said = f"state must be a {_said(kind)}, not {_said(type(state))}"
        raise TypeError(f"{said}; {instead}" if instead else said)
    return state


def _said(kind: type[Any]) -> str:
    """As its users call it: comity.sync.Client."""
    module = kind.__module__.removesuffix(".client")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


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
