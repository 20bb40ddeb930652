"""The token by which the server knows who calls: a text, what a function returns, or what a file holds."""

import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import grpc

from . import files
from .errors import ComityError, Unauthenticated

__all__ = ["Bearer", "Token", "TokenFile", "checked"]

Token = str | Callable[[], str]
C = TypeVar("C", bound=Callable[..., Any])

MOST_CHARACTERS: Final = 8000  # a server reads 8 KiB of the header
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1

log = logging.getLogger("comity")


class TokenFile:
    """The token that a file holds, for `token` of `comity.connect`. It is read again when the file has changed.

    What cannot be used then is told to the log, and the token that was there before stays.

    Raises TypeError and ValueError for what is no path, ValueError for a file that holds no token.
    """

    def __init__(self, path: files.FilePath) -> None:
        self.path = files.absolute("the token file", path)
        self._state = files.state(self.path)
        self._token = self._read()

    def __call__(self) -> str:
        state = files.state(self.path)
        if state != self._state:
            self._state = state
            try:
                self._token = self._read()
            except ValueError as error:
                log.warning("the token is not renewed: %s", error)
        return self._token

    def __repr__(self) -> str:
        return f"TokenFile({self.path!r})"

    def __reduce__(self) -> tuple[type["TokenFile"], tuple[str]]:
        return TokenFile, (self.path,)  # another process reads it itself

    def _read(self) -> str:
        text = files.read("the token file", self.path).decode("utf-8-sig", errors="replace").strip()
        return checked(text, f"the token in {self.path}")


def checked(token: object, what: str = "the token") -> str:
    """The token. Raises TypeError and ValueError, which do not show it, for what is none."""
    if not isinstance(token, str):
        raise TypeError(f"{what} must be a str, not {type(token).__name__}")
    if not token:
        raise ValueError(f"{what} is empty")
    if len(token) > MOST_CHARACTERS:
        raise ValueError(f"{what} has more than {MOST_CHARACTERS} characters")
    if token != token.strip():
        raise ValueError(f"{what} begins or ends with a space or the end of a line")
    if not TOKEN.fullmatch(token):
        raise ValueError(f"{what} must be of letters, digits and ._~+/- alone")
    return token


class Bearer:
    """Has the calls of one channel bear the token, which it asks for at each: the stubs take it for the channel.

    last: the token that was asked for last.
    """

    def __init__(self, channel: grpc.aio.Channel, token: Token) -> None:
        self.last = ""
        self._channel = channel
        self._token = token

    def is_new(self, since: str) -> bool:
        """Whether the token is another one now."""
        return self._ask() != since

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._bearing(self._channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._bearing(self._channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._bearing(self._channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._bearing(self._channel.stream_stream(*args, **options))

    def _bearing(self, call: C) -> C:
        def begin(*args: Any, metadata: tuple[tuple[str, str], ...] | None = None, **options: Any) -> Any:
            return call(*args, metadata=(*(metadata or ()), ("authorization", f"Bearer {self._ask()}")), **options)

        return cast(C, begin)

    def _ask(self) -> str:
        """The token as it is now. Raises Unauthenticated where there is none."""
        if isinstance(self._token, str):
            self.last = self._token
            return self._token
        try:
            self.last = checked(self._token(), "what the function of the token returns")
        except ComityError:
            raise
        except Exception as error:
            raise Unauthenticated(f"there is no token: {error}", reason="NO_TOKEN") from error
        return self.last
