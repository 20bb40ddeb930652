"""Writes to the file, from one thread: whatever has come together while it wrote goes into the next transaction.

So one fsync carries the groups of many namespaces. When a write fails, nothing of its transaction is in the file, and
the writer tries by itself, until it succeeds, whether it can write again.
"""

import asyncio
import errno
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import structlog

from comity_server.errors import StateError, StoreFull, StoreUnavailable
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.turns import Turns

log = structlog.get_logger(__name__)

PROBE_SECONDS: Final = 0.25
ROOM: Final = 1024 * 1024  # bytes that have to be free before a store that failed is well again
NO_ROOM: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
FULL: Final = "the store's disk is full; nothing was done"
GONE: Final = "the store's file was removed or replaced"
DEFECT: Final = "the store failed; the log of the server says why"

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], None]


class _Waiting(NamedTuple):
    work: Work
    done: asyncio.Future[None]


class Writer:
    """Use from one event loop, between `open` and `close`.

    Args:
        path: the file.
        beside: other files without which it must not be written, nor with others in their place.
        take, let_go: called first and last of all, in the thread: so whatever keeps others from the file is held until
            nothing is written any more, also where whoever opens or closes it is cancelled.
    """

    def __init__(
        self, path: Path, beside: Sequence[Path], *, take: Callable[[], None], let_go: Callable[[], None]
    ) -> None:
        self.failure: StateError | None = None  # why the last write failed; None: it did not
        self._path = path
        self._take = take
        self._let_go = let_go
        self._closed = False
        # Nobody would find again what is written to a log that has no name any more.
        self._files = (path, path.with_name(path.name + "-wal"), *beside)
        self._thread = ThreadPoolExecutor(1, "comity-sqlite")
        self._waiting: list[_Waiting] = []
        self._turns = Turns()
        self._task: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._connection: sqlite3.Connection  # from `open` on
        self._identities: Sequence[tuple[int, int]]

    async def open(self) -> bool:
        """Open the file, bring it up to date, and make sure that it can be written. Returns whether it is a new one.
        Raises StateError. Whatever comes of that, it has to be closed."""
        return await self._call(self._open)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something else with the connection, between two transactions. Raises StateError."""
        return await self._call(lambda: work(self._connection))

    async def write(self, work: Work) -> None:
        """Do some work in a transaction, and return when it is on disk. Works are done in the order of these calls.

        Raises StoreFull or StoreUnavailable: then nothing of it is in the file, as far as can be known.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.create_future())
        self._waiting.append(waiting)
        if self._task is None:
            self._task = loop.create_task(self._run())
        await waiting.done

    async def close(self) -> None:
        """Finish what was asked for, and let go of the file. If that is cancelled, the file is let go of once the
        thread is done with what it is at, and what waits behind that is refused."""
        if self._closed:
            return
        try:
            if self._task is not None:
                await asyncio.wait([self._task])
        finally:
            self._closed = True
            if self._probing is not None:  # maybe since that task
                self._probing.cancel()
            done = self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(done))

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            self._turns.begin(asyncio.get_running_loop())
            failure = await self._write(batch)
            self._turns.end()
            for waiting in batch:
                if waiting.done.done():
                    continue
                if failure is None:
                    waiting.done.set_result(None)
                else:
                    waiting.done.set_exception(failure)
        self._task = None

    async def _write(self, batch: Sequence[_Waiting]) -> StateError | None:
        try:
            await self._call(lambda: self._transact([waiting.work for waiting in batch]))
        except Exception as error:
            failure = error if isinstance(error, StateError) else StoreUnavailable(DEFECT)
            if failure is not error:  # whatever it is, whoever waits needs an answer
                log.exception("the store failed in an unforeseen way", file=str(self._path))
            if self.failure is None:
                log.warning("the store cannot be written", reason=failure.message, file=str(self._path))
            self.failure = failure
            if self._probing is None and not self._closed:
                self._probing = asyncio.get_running_loop().create_task(self._probe())
            return failure
        if self.failure is not None:
            log.info("the store can be written again", file=str(self._path))
        self.failure = None
        return None

    async def _probe(self) -> None:
        """Try to write until it succeeds."""
        while self.failure is not None and not self._closed:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._call(self._look_for_room)
                await self.write(lambda connection: _execute(connection, "UPDATE store SET probes = probes + 1"))
            except StateError:
                continue  # `failure` says why
        self._probing = None

    async def _call(self, function: Callable[[], T]) -> T:
        """Call in the thread. What SQLite and the system raise becomes an error that a client may see."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.Error as error:
            log.warning("SQLite failed", error=str(error), code=getattr(error, "sqlite_errorname", ""))
            raise _translate(error) from error
        except UnicodeDecodeError as error:  # sqlite3 cannot even say what is wrong
            raise StoreUnavailable("the store's file is damaged, or no database") from error
        except OSError as error:
            log.warning("the file failed", error=str(error))
            raise StoreUnavailable(f"the store's file cannot be used: {error.strerror}") from error

    def _look_for_room(self) -> None:
        """Raises StoreFull where the disk is nearly full: it may have room for a probe, and none for a group."""
        left = ROOM
        try:
            with tempfile.TemporaryFile(dir=self._path.parent, buffering=0) as file:
                while left:
                    left -= file.write(bytes(left))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StoreFull(FULL) from error

    def _open(self) -> bool:
        self._take()
        schema.create(self._path)
        self._connection = schema.connect(self._path)
        try:
            is_new = not schema.migrate(self._connection)
            self._identities = self._identify()
            self._transact([lambda connection: _execute(connection, "UPDATE store SET probes = probes")])
        except BaseException:
            self._connection.close()
            raise
        return is_new

    def _close(self) -> None:
        try:
            if hasattr(self, "_connection"):
                self._connection.close()
        finally:
            self._let_go()

    def _transact(self, works: Sequence[Work]) -> None:
        if self._identify() != self._identities:
            raise StoreUnavailable(GONE)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for work in works:
                work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself. The connection is kept: what a failed commit left in the log is
            # overwritten by the next one, whereas a new connection might find it.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._turns.written()

    def _identify(self) -> Sequence[tuple[int, int]]:
        try:
            found = [path.stat() for path in self._files]
        except FileNotFoundError:
            raise StoreUnavailable(GONE) from None
        if found[0].st_nlink > 1:
            raise StoreUnavailable(schema.LINKED)
        return [(file.st_dev, file.st_ino) for file in found]


def _execute(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)


def _translate(error: sqlite3.Error) -> StateError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # of a write that may be in the log already
        return StoreUnavailable("the store's disk is full")
    # The low byte is the kind of an error, what is above it a finer distinction.
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(FULL)
        case sqlite3.SQLITE_READONLY:
            return StoreUnavailable("the store's file or disk is read-only")
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable("the store's disk failed: I/O error")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreUnavailable("the store's file is damaged, or no database")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable("the store's file is in use by another program")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable("the store's file cannot be opened")
        case _:
            return StoreUnavailable("the store's file cannot be written")
