"""Stored values of one type: checked when they are written, and when they are read."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from . import codec, plain
from .errors import DecodeError
from .model import Entry

__all__ = ["Typed", "typed"]


class Typed(Protocol):
    """How values of one type are stored."""

    def encode(self, value: Any) -> tuple[bytes, str]:
        """The bytes and their content type. Raises TypeError if the value does not fit the type."""

    def decode(self, entry: Entry) -> Any:
        """The value. Raises DecodeError if it does not fit the type."""


def typed(kind: Any) -> Typed:
    """How values of a type are stored. Raises TypeError for one that cannot be."""
    return RawBytes() if kind is bytes else JsonTyped(kind)


class RawBytes:
    """Bytes as they are, whatever the content type."""

    def encode(self, value: Any) -> tuple[bytes, str]:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"a value of type {type(value).__name__} does not fit bytes")
        return codec.encode(value)

    def decode(self, entry: Entry) -> bytes:
        return entry.data


class JsonTyped:
    """JSON, as `plain` reads it."""

    def __init__(self, kind: Any) -> None:
        self._read: Callable[[Any], Any] = plain.reader(kind)
        self._name = _name(kind)

    def encode(self, value: Any) -> tuple[bytes, str]:
        data = codec.to_json(value)
        try:
            # JSON is written of what does not fit too, such as the None of a function that returned nothing.
            self._read(codec.from_json(data, key=""))
        except plain.Misfit as error:
            raise TypeError(f"a value of type {type(value).__name__} does not fit {self._name}: {error}") from error
        return data, codec.JSON

    def decode(self, entry: Entry) -> Any:
        text = entry.content_type.startswith("text/")
        try:
            return self._read(entry.value if text else codec.from_json(entry.data, key=entry.key))
        except plain.Misfit as error:
            raise _misfit(entry, self._name, str(error)) from error


def _name(kind: Any) -> str:
    return kind.__name__ if inspect.isclass(kind) else str(kind)


def _misfit(entry: Entry, name: str, why: str) -> DecodeError:
    return DecodeError(f"the value of {entry.key!r} does not fit {name}: {why}", metadata={"key": entry.key})
