"""Copies the file of a store while a server may be writing to it: the copy is the store as it was at one moment."""

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from comity_server.errors import StoreUnavailable
from comity_server.stores.sqlite import schema


def backup(source: Path, target: Path, *, overwrite: bool = False) -> None:
    """Make `target` a copy of the file `source`. It is there when it is whole and on disk, and not before.

    The copy has an epoch of its own: a server that goes on from it gives revisions out anew.

    Raises:
        FileNotFoundError: there is no source, or no folder for the target.
        FileExistsError: the target exists, and is not to be overwritten; or it is the source or no regular file, or a
            server uses it.
        StoreUnavailable: the source is no file of a store.
        OSError, sqlite3.Error: reading or writing failed.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist, or is no file")
    _check_target(source, target, overwrite=overwrite)
    with _unused(target):
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
        os.close(descriptor)
        partial = Path(name)
        try:
            _copy(source, partial)
            _sync(partial)
            for log in _logs(target):  # of what was there before: it would be taken for a part of the copy
                log.unlink(missing_ok=True)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    _sync(target.parent)


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if not target.name:
        raise FileExistsError(f"{target} is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is not a folder")
    own = [source, *_logs(source), schema.lock_path(source)]
    if target.resolve() in [path.resolve() for path in own] or (target.exists() and target.samefile(source)):
        raise FileExistsError(f"{target} is the store itself, or a part of it")
    there = [path for path in (target, *_logs(target)) if os.path.lexists(path)]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} exists")
    if any(path.is_symlink() or not path.is_file() for path in there):
        raise FileExistsError(f"{there[0]} exists, and is no regular file")


def _logs(path: Path) -> list[Path]:
    """What SQLite keeps beside a file while it is in use."""
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm")]


@contextmanager
def _unused(target: Path) -> Iterator[None]:
    """Keep servers from a file that is going to be replaced. Raises FileExistsError if one is using it."""
    if not target.exists():
        yield
        return
    lock = FileLock(schema.lock_path(target))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise FileExistsError(f"{target} is in use by a server") from None
    try:
        yield
    finally:
        lock.release()


def _copy(source: Path, target: Path) -> None:
    reading = schema.connect(source, read_only=True)
    try:
        if not schema.version(reading):
            raise StoreUnavailable(f"{source} is empty: no server has used it yet")
        writing = sqlite3.connect(target, isolation_level=None)
        try:
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE")  # so that it is one file
            writing.execute("UPDATE store SET epoch = ?", (uuid.uuid4().hex,))
        finally:
            writing.close()
    finally:
        reading.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
