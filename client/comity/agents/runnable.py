"""What can be run for somebody else: async functions, here or in a process of its own."""

import functools
import inspect
import pickle
import sys
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from comity.tokens import Token

from .text import described

__all__ = ["check_function", "check_token", "is_async"]


def is_async(function: object) -> bool:
    """Whether it is an async function, or what is called as one."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return callable(function) and inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


def check_function(function: object, mode: str, args: Sequence[object] = ()) -> None:
    """Raise TypeError and ValueError for what no child can run in that mode."""
    if mode not in ("task", "process"):
        raise ValueError(f"mode is 'task' or 'process', not {mode!r}")
    if not callable(function):
        raise TypeError(f"a child runs an async function of an agent, not what is of type {type(function).__name__}")
    if not is_async(function):
        raise TypeError(
            f"a child runs an async function of an agent, not {function!r}: have asyncio.to_thread run what blocks"
        )
    if mode == "process":
        _check_importable(function)
        _check_picklable("the function", function)
        for index, value in enumerate(args):
            _check_picklable(f"argument {index}, of type {type(value).__name__},", value)


def check_token(token: Token | None) -> None:
    """Raise TypeError for a token that no process can be given."""
    if token is not None and not isinstance(token, str):
        _check_picklable("the function of the token", token)


def _check_importable(function: object) -> None:
    if "<" in getattr(function, "__qualname__", ""):
        raise ValueError(f"a process can only run a function that it can import, not {function!r}")
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None or getattr(sys, "frozen", False):
        return
    path: str | None = getattr(main, "__file__", None)  # a process imports it anew; of `python -c` there is none
    if Path(path).exists() if path is not None else getattr(function, "__module__", "") != "__main__":
        return
    raise ValueError(
        f"a process can only run a function of a module or a program that is a file, not {function!r}: this program was"
        " typed, or read from standard input"
    )


def _check_picklable(what: str, value: object) -> None:
    try:
        ForkingPickler.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise TypeError(f"{what} cannot be sent to a process: {described(error)}") from error
    except RuntimeError:  # what can be sent as a process starts, and only then, such as a lock of multiprocessing
        return
