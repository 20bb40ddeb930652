"""Synchronous methods made of asynchronous ones: with their names, signatures, types and docs."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .thread import run

__all__ = ["Wrapper", "delegating", "documented", "items", "waiting"]

P = ParamSpec("P")
A = TypeVar("A")
T = TypeVar("T")
Given = TypeVar("Given")
F = TypeVar("F", bound=Callable[..., Any])


class Wrapper(Protocol):
    """Stands for something asynchronous, which it has under this name."""

    @property
    def _async(self) -> Any: ...


def waiting(method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The same method, which waits for its end."""

    @functools.wraps(method)
    def wait(self: Wrapper, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._async, *args, **kwargs))

    return wait


def delegating(
    method: Callable[Concatenate[A, P], Given], kind: Callable[[Given], T]
) -> Callable[Concatenate[Any, P], T]:
    """The same method, what it returns made something synchronous."""

    @functools.wraps(method)
    def call(self: Wrapper, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return kind(method(self._async, *args, **kwargs))

    return call


def documented(method: Callable[..., Any]) -> Callable[[F], F]:
    """Give a function the docs of a method."""

    def give(function: F) -> F:
        function.__doc__ = method.__doc__
        return function

    return give


def items(iterator: AsyncIterator[T]) -> Iterator[T]:
    """What it yields, each waited for."""

    async def following() -> T:
        return await anext(iterator)

    while True:
        try:
            item = run(following())
        except StopAsyncIteration:
            return
        yield item
