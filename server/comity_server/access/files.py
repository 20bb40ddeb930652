"""Files that are read at the start, and again whenever they change: certificates, tokens, keys, the policy.

What counts is the content, looked at each second: so it does not matter whether a file is written in place, has
another renamed over it, or is reached by a symbolic link that is set anew, as Kubernetes does with its secrets. What
cannot be used, as a file that is gone or is no longer what it has to be, is told once, and what was in force stays.
"""

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0  # between two looks at the files
SETTLE_SECONDS: Final = 0.1  # a content that is another one after so long is being written
MOST_BYTES: Final = 16 * 1024 * 1024  # of one file

T = TypeVar("T")
Contents = Sequence[bytes]


class FileError(ValueError):
    """A file cannot be read, or is not what it has to be. The message is one line, which names the file."""


class Wrong(NamedTuple):
    """What is wrong with what there is now, of which digest (empty: it cannot be read), and whether that was told."""

    digest: bytes
    message: str
    told: bool = False


class Watched(Generic[T]):
    """What is made of a file, or of several that belong together. `value` is what is in force.

    Args:
        what: what it is, in a word for the log: `tokens`.
        paths: the files.
        parse: makes the value of their contents, given in the order of the paths. It runs in threads, and raises
            FileError, which names the file, where it cannot.

    Raises FileError if there is nothing to begin with.
    """

    def __init__(self, what: str, paths: Sequence[Path], parse: Callable[[Contents], T]) -> None:
        self.what = what
        self.paths = tuple(paths)
        self._parse = parse
        self._listeners: list[Callable[[T], None]] = []
        self._wrong: Wrong | None = None
        contents = _read_all(self.paths)
        self.value: T = parse(contents)
        self._digest = _digest(contents)  # of what is in force

    def on_change(self, listener: Callable[[T], None]) -> None:
        """Have a function called on the event loop with each new value, once it is in force."""
        self._listeners.append(listener)

    async def look(self) -> bool:
        """Look at the files once, and put in force what has changed. Returns whether anything has."""
        found = await asyncio.to_thread(self._find)
        if isinstance(found, Wrong):
            self._bear(found)
            return False
        if self._wrong is not None and self._wrong.told:
            log.info("a file is in order again", what=self.what)
        self._wrong = None
        if found is not None:
            self._digest, self.value = found
            log.info("a file has changed and is in force", what=self.what, files=[str(path) for path in self.paths])
            for listener in self._listeners:
                listener(self.value)
        return found is not None

    def _find(self) -> tuple[bytes, T] | Wrong | None:
        """The digest and the value of what is there; nothing if that is in force, or if it is being written."""
        digest = b""
        try:
            contents = _read_all(self.paths)
            digest = _digest(contents)
            if digest == self._digest:
                return None
            if self._wrong is not None and digest == self._wrong.digest:
                return self._wrong
            time.sleep(SETTLE_SECONDS)
            if _digest(_read_all(self.paths)) != digest:
                return None
            return digest, self._parse(contents)
        except FileError as error:
            return Wrong(digest, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a content does to its parser, the old one stays
            return Wrong(digest, f"{', '.join(map(str, self.paths))}: {type(error).__name__}: {error}")

    def _bear(self, wrong: Wrong) -> None:
        """Tell what is wrong, once, and not before a second look finds the same: files that belong together may be
        replaced one after the other."""
        if self._wrong is None or wrong.message != self._wrong.message:
            self._wrong = wrong
        elif not self._wrong.told:
            self._wrong = wrong._replace(told=True)
            log.error("a file cannot be used, and what was in force stays", what=self.what, error=wrong.message)


class Files:
    """The files that a server watches."""

    def __init__(self) -> None:
        self._watched: list[Watched[Any]] = []
        self._listeners: list[Callable[[], None]] = []
        self._hurry = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._watched)

    def add(self, watched: Watched[Any]) -> None:
        self._watched.append(watched)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have a function called on the event loop after a look at all files that has found changed ones: after the
        listeners of each."""
        self._listeners.append(listener)

    def look(self) -> None:
        """Have `run` look at once. To be called on the event loop."""
        self._hurry.set()

    async def run(self) -> None:
        """Look at the files each second, until cancelled or if there is none."""
        while self._watched:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            await self._look()

    async def _look(self) -> None:
        """Whatever fails, the rest is done: it may be what takes away a right."""
        changed = False
        for watched in self._watched:
            try:
                changed |= await watched.look()
            except Exception:
                changed = True
                log.exception("what a changed file asks for failed", what=watched.what)
        for listener in self._listeners if changed else ():
            try:
                listener()
            except Exception:
                log.exception("what changed files ask for failed")


def read(path: Path) -> bytes:
    """The content of a file. Raises FileError."""
    try:
        # A pipe would wait for its writer, and be empty at the second look.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileError(f"{path}: is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MOST_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{str(path)!r}: is not a path") from None  # it has a NUL
    if len(content) > MOST_BYTES:
        raise FileError(f"{path}: is larger than {MOST_BYTES} bytes")
    return content


def _read_all(paths: Sequence[Path]) -> Contents:
    return [read(path) for path in paths]


def _digest(contents: Contents) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()
