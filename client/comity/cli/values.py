"""Values: from the command line and JSON documents to what is stored, and back to what is shown."""

import base64
import binascii
import json
import math
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comity.model import Entry

__all__ = ["TEXT", "argument_bytes", "from_json", "inline", "lines", "parse", "pretty", "strict_json", "to_json"]

TEXT = "text/plain; charset=utf-8"
BASE64 = "base64"
LAYOUT = str.maketrans("", "", "\t\r\n")


def strict_json(data: bytes | str) -> Any:
    """The value of JSON. Raises ValueError for what is none, and for what others could not read: NaN, infinities,
    numbers past a float's range, text that is not Unicode, nesting past all measure."""
    try:
        value = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(f"{half} stands for half a character: surrogates come in pairs") from error
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number


def parse(data: bytes, *, as_bytes: bool, content_type: str | None) -> tuple[bytes, str]:
    """What to store for a VALUE, and its content type: JSON if it parses, else text, or bytes where it is no UTF-8.

    as_bytes, content_type: nothing is guessed, and nothing of the value is touched.
    """
    from comity.codec import BYTES, JSON

    if as_bytes or content_type is not None:
        return data, BYTES if content_type is None else content_type
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data, BYTES
    try:
        strict_json(text)
    except ValueError:
        return data, TEXT
    # White space around it says nothing in JSON, and would make "3\n" of a piped number.
    return text.strip(" \t\r\n").encode(), JSON


def argument_bytes(text: str) -> bytes:
    """An argument of the command line as the bytes that it was."""
    return os.fsencode(text)


def to_json(entry: "Entry") -> Any:
    """The value of an entry as --json shows it: JSON where it is JSON, and {"base64": ...} else."""
    from comity.codec import is_json

    if is_json(entry.content_type):
        try:
            return strict_json(entry.data)
        except ValueError:
            pass  # it is not what its content type says: then it is bytes
    return {BASE64: base64.b64encode(entry.data).decode()}


def from_json(value: Any) -> Any:
    """What a document's value stands for: bytes of {"base64": ...}, else the JSON itself. Raises ValueError."""
    if isinstance(value, dict) and value.keys() == {BASE64} and isinstance(value[BASE64], str):
        try:
            return base64.b64decode(value[BASE64], validate=True)
        except binascii.Error as error:
            raise ValueError(f"it is not base64: {error}") from error
    return value


def inline(entry: "Entry") -> str:
    """The value of an entry for people; JSON on one line."""
    from comity.codec import is_json

    if is_json(entry.content_type):
        try:
            return json.dumps(strict_json(entry.data), ensure_ascii=False, separators=(",", ":"))
        except ValueError:
            pass
    try:
        text = entry.data.decode()
    except UnicodeDecodeError:
        pass
    else:
        if entry.content_type.startswith("text/") or text.isprintable():
            return text
    return f"<{len(entry.data)} bytes>"


def pretty(data: bytes | str) -> str:
    """JSON as it is laid out for people. Raises ValueError as `strict_json` does."""
    value = strict_json(data)
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError as error:  # laying it out goes less deep than reading it
        raise ValueError("it is nested too deeply") from error


def lines(entry: "Entry | None") -> list[str] | None:
    """The value of an entry as lines to compare: JSON as it is laid out for people, text as it is. None: it is neither.

    An absent entry has no lines, and no more has an empty text. A line break at the end is not one line more.
    """
    from comity.codec import is_json

    if entry is None:
        return []
    if is_json(entry.content_type):
        try:
            return pretty(entry.data).split("\n")
        except ValueError:
            pass
    try:
        text = entry.data.decode()
    except UnicodeDecodeError:
        return None
    is_text = entry.content_type.startswith("text/") and "\0" not in text
    if not is_text and not text.translate(LAYOUT).isprintable():
        return None
    return text.removesuffix("\n").split("\n") if text else []
