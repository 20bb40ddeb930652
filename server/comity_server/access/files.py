"""Files that are read at the start, and again whenever they change: certificates, tokens, keys, the policy.

What counts is the content, looked at each second: so it does not matter whether a file is written in place, has
another renamed over it, or is reached by a symbolic link that is set anew, as Kubernetes does with its secrets. A new
content is taken when it and the times of its files are the same at a second look: of what is being written a part may
be read, and a policy that ends too early may allow more than the whole. What cannot be used, as a file that is gone or
is no longer what it has to be, is told once, and what was in force stays.
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
SETTLE_SECONDS: Final = 0.9  # how long a file must have been as it is: from one look to the next, and no less on SIGHUP
RESTLESS_SECONDS: Final = 10.0  # after which a content counts although its file is written again and again
MOST_BYTES: Final = 16 * 1024 * 1024  # of one file

T = TypeVar("T")
Contents = Sequence[bytes]


class FileError(ValueError):
    """A file cannot be read, or is not what it has to be. The message is one line, which names the file."""

    place: int | None = None  # of what is wrong with one of several that belong together: which, from 0


class Seen(NamedTuple):
    """What a look has found."""

    what: bytes | str
    """The digest of the contents, or why they cannot be read."""
    contents: Contents
    times: tuple[int, ...]
    """What changes with each write."""


class Settling(NamedTuple):
    """What is to be seen once more before it counts, and since when it and its times have been the same."""

    what: bytes | str
    times: tuple[int, ...]
    since: float
    untouched: float


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
        self._settling: Settling | None = None
        self._wrong: bytes | str | None = None  # what cannot be used, and was told
        seen = _see(self.paths)
        if isinstance(seen.what, str):
            raise FileError(seen.what)
        self.value: T = parse(seen.contents)
        self._in_force: bytes | str = seen.what

    def on_change(self, listener: Callable[[T], None]) -> None:
        """Have a function called on the event loop with each new value, once it is in force."""
        self._listeners.append(listener)

    async def look(self) -> bool:
        """Look at the files once, and put in force what has changed and settled. Returns whether anything has."""
        seen = await asyncio.to_thread(_see, self.paths)
        if seen.what in (self._in_force, self._wrong):
            self._settling = None
            if seen.what == self._in_force:
                self._recover()
            return False
        if not self._is_settled(seen):
            return False
        value = await asyncio.to_thread(self._make, seen)
        if isinstance(value, FileError):
            self._wrong = seen.what
            log.error("a file cannot be used, and what was in force stays", what=self.what, error=str(value))
            return False
        self._settling = None
        self._recover()
        self._in_force, self.value = seen.what, value
        log.info("a file has changed and is in force", what=self.what, files=[str(path) for path in self.paths])
        for listener in self._listeners:
            listener(self.value)
        return True

    def _make(self, seen: Seen) -> T | FileError:
        if isinstance(seen.what, str):
            return FileError(seen.what)
        try:
            return self._parse(seen.contents)
        except FileError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever a content does to its parser, the old one stays
            return FileError(f"{', '.join(map(str, self.paths))}: {type(error).__name__}: {error}")

    def _is_settled(self, seen: Seen) -> bool:
        """Whether nobody has written to the files for a while. It goes by this process's clock alone: that of a file
        system in the network may be another."""
        now = time.monotonic()
        before = self._settling
        if before is None or before.what != seen.what:
            self._settling = Settling(seen.what, seen.times, now, now)
            return False
        if before.times != seen.times:
            self._settling = before = before._replace(times=seen.times, untouched=now)
        return now - before.untouched >= SETTLE_SECONDS or now - before.since >= RESTLESS_SECONDS

    def _recover(self) -> None:
        if self._wrong is not None:
            self._wrong = None
            log.info("a file is in order again", what=self.what)


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
    return _read(path)[0]


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """The content of a file, and what changes with each write to it. Raises FileError."""
    try:
        # A pipe would wait for its writer, and be empty at the second look.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
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
    return content, (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


def _see(paths: Sequence[Path]) -> Seen:
    try:
        contents, times = zip(*map(_read, paths), strict=True)
    except FileError as error:
        return Seen(str(error), (), ())
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()
    return Seen(digest, contents, sum(times, ()))
