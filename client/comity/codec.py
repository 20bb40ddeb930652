"""From Python values to stored bytes and back, by content type."""

import dataclasses
import datetime
import enum
import json
import sys
import uuid
from typing import Any

from .errors import DecodeError

__all__ = ["BYTES", "JSON", "decode", "encode", "from_json", "is_json", "to_json"]

JSON = "application/json"
BYTES = "application/octet-stream"


def encode(value: object, content_type: str | None = None) -> tuple[bytes, str]:
    """The bytes to store for a value, and their content type.

    bytes, bytearray and memoryview stay as they are (application/octet-stream); everything else is written as JSON
    (application/json): what `json` knows, and dataclasses, pydantic models, enums, dates, times and UUIDs in it.
    `content_type` says another type; a str with one that is not JSON, such as text/plain, is written as UTF-8.

    Raises TypeError for what JSON cannot hold, ValueError for NaN, infinities, text that is not Unicode, and what is
    nested too deeply.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES if content_type is None else content_type
    if isinstance(value, str) and content_type is not None and not is_json(content_type):
        try:
            return value.encode(), content_type
        except UnicodeEncodeError as error:
            raise ValueError(f"the value has text that is not Unicode: {error}") from error
    return to_json(value), JSON if content_type is None else content_type


def decode(data: bytes, content_type: str, *, key: str) -> Any:
    """The value of stored bytes: JSON is parsed, text/* becomes str, all else stays bytes. The key is for messages.

    Raises DecodeError if the bytes are not what the content type says.
    """
    if is_json(content_type):
        return from_json(data, key=key)
    if content_type.startswith("text/"):
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(
                f"the value of {key!r} is {content_type}, but not UTF-8: {error}", metadata={"key": key}
            ) from error
    return data


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON: application/json, or one that ends with +json; parameters do not matter."""
    if content_type == JSON:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == JSON or essence.endswith("+json")


def to_json(value: object) -> bytes:
    """A value as compact JSON in UTF-8. Raises TypeError and ValueError as `encode` does."""
    try:
        return _compact(value).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the value has text that is not Unicode: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the value cannot be written as JSON: {error}") from error


def from_json(data: bytes, *, key: str) -> Any:
    """The value of JSON. Raises DecodeError, which names the key, if it is malformed."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(
            f"the value of {key!r} is not the JSON that it should be: {error}", metadata={"key": key}
        ) from error


def _plain(value: object) -> object:
    """One step towards what `json` knows; it asks again for what is inside."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    # Whoever has a pydantic model has imported pydantic; the base install need not have it.
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON; encode it to bytes yourself")


_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode
