"""Stored values of one type: checked when they are written, and when they are read."""

import importlib.util
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
    """How values of a type are stored: by pydantic where it is installed. Raises TypeError for one that cannot be."""
    if kind is bytes:
        return RawBytes()
    if importlib.util.find_spec("pydantic") is not None:
        return PydanticTyped(kind)
    return PlainTyped(kind)


class RawBytes:
    """Bytes as they are, whatever the content type."""

    def encode(self, value: Any) -> tuple[bytes, str]:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"a value of type {type(value).__name__} does not fit bytes")
        return codec.encode(value)

    def decode(self, entry: Entry) -> bytes:
        return entry.data


class PydanticTyped:
    """JSON, by pydantic. A model says itself how strict it is; all else is strict: "5" is no int."""

    def __init__(self, kind: Any) -> None:
        import pydantic  # optional, and slow to import
        import pydantic_core

        try:
            self._adapter = pydantic.TypeAdapter[Any](kind)
        except pydantic.PydanticUserError as error:
            raise TypeError(f"values of {_name(kind)} cannot be held: {error}") from error
        self._strict = None if inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel) else True
        self._name = _name(kind)
        self._invalid = pydantic.ValidationError
        self._unwritable = pydantic_core.PydanticSerializationError

    def encode(self, value: Any) -> tuple[bytes, str]:
        try:
            data = codec.to_json(
                self._adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings=False)
            )
            # pydantic writes what does not fit too, such as the None of a function that returned nothing.
            self._adapter.validate_json(data, strict=self._strict)
        except (self._invalid, self._unwritable) as error:
            raise TypeError(f"a value of type {type(value).__name__} does not fit {self._name}: {error}") from error
        return data, codec.JSON

    def decode(self, entry: Entry) -> Any:
        try:
            if entry.content_type.startswith("text/"):
                return self._adapter.validate_python(entry.value, strict=self._strict)
            return self._adapter.validate_json(entry.data, strict=self._strict)
        except self._invalid as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise _misfit(entry, self._name, f"{where}: {first['msg']}" if where else first["msg"]) from error


class PlainTyped:
    """JSON, without pydantic."""

    def __init__(self, kind: Any) -> None:
        self._read: Callable[[Any], Any] = plain.reader(kind)
        self._name = _name(kind)

    def encode(self, value: Any) -> tuple[bytes, str]:
        data = codec.to_json(value)
        try:
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
