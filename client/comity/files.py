"""Small files that a client is told of: certificates, keys and tokens, which others replace while it runs."""

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["FilePath", "absolute", "read", "state"]

MOST_BYTES: Final = 1024 * 1024

FilePath = str | os.PathLike[str]


def absolute(what: str, value: object) -> str:
    """A path as an absolute one. Raises TypeError and ValueError for what is none."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise TypeError(f"{what} must be a path, not {type(value).__name__}")
    if not path or "\0" in path:
        raise ValueError(f"{what} must be a path, not {path[:100]!r}")
    return str(Path(path).absolute())


def read(what: str, path: FilePath) -> bytes:
    """What a file holds. Raises ValueError for what cannot be read, is no file, or is larger than 1 MiB."""
    try:
        regular = stat.S_ISREG(Path(path).stat().st_mode)  # else reading might wait for ever
        if regular:
            with Path(path).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{what}: cannot read {path}: {error.strerror}") from None
    if not regular:
        raise ValueError(f"{what}: {path} is no file")
    if len(data) > MOST_BYTES:
        raise ValueError(f"{what}: {path} is larger than {MOST_BYTES} bytes")
    return data


def state(path: FilePath) -> tuple[int, ...] | None:
    """What is another once a file was replaced or written to; None: there is none that can be seen."""
    try:
        seen = Path(path).stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns
