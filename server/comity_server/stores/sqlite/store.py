"""The embedded store: memory for reading, a file for keeping."""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.memory import collector
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.arrivals import SqliteArrivals
from comity_server.stores.sqlite.journal import DROP_COMMIT, SqliteJournal
from comity_server.stores.sqlite.load import Loaded, load
from comity_server.stores.sqlite.writer import Writer

log = structlog.get_logger(__name__)

CLOCK_EVERY: Final = 500_000  # µs, after which the clock is written down again, while there are leases


class SqliteStore(MemoryStore):
    """Implements `stores.protocol.Store` over one file. One process has it open at a time.

    Args:
        path: the file, which is made if need be. Beside it are its write-ahead log and a `.lock`.
        limits: see there.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        lock = schema.lock_path(path)
        self._lock_file = FileLock(lock, thread_local=False)
        # Without the lock another server might be writing too.
        self._writer = Writer(path, [lock], take=self._take, let_go=self._lock_file.release)
        self._sqlite = SqliteJournal(self._writer, self.clock)
        super().__init__(limits, self._sqlite)
        self._path = path
        self._clock_kept = 0  # when it was written down last
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises StoreUnavailable, which names the file: another process has it open, or it cannot be used."""
        try:
            await self._open()
        except StateError as error:
            raise StoreUnavailable(f"{self._path}: {error.message}") from error

    async def _open(self) -> None:
        try:
            if await self._writer.open():
                log.info("a new store was made", file=str(self._path))  # which a path that is misspelt has, too
            await self._load()
        except BaseException:
            await self._writer.close()
            raise

    async def close(self) -> None:
        try:
            await self._sqlite.close()
            await self._stop_clock()
        finally:
            await self._writer.close()
            collector.let_go()

    def arrivals(self) -> SqliteArrivals:
        """Lets it take in what comes from another store. Afterwards it has to be closed and opened anew."""
        return SqliteArrivals(self, self._writer)

    def trouble(self) -> str:
        return self._writer.failure.message if self._writer.failure is not None else ""

    async def due(self) -> Mapping[str, Sequence[int]]:
        """Beside it the clock is kept: after a start leases have what they had left when it was written down last."""
        now = self.clock()
        if self._keeping is None and self._deadlines and self.writable() and now - self._clock_kept >= CLOCK_EVERY:
            self._clock_kept = now
            self._keeping = asyncio.get_running_loop().create_task(self._keep_clock())
        return await super().due()

    async def _keep_clock(self) -> None:
        try:
            await self._sqlite.keep_clock()
        except StateError as error:  # the writer says so, and tries again
            log.debug("the clock of leases could not be written down", reason=error.message)
        finally:
            self._keeping = None

    async def _stop_clock(self) -> None:
        """While the store is closed, leases have the time that they have now."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
        if self._deadlines:
            await self._keep_clock()

    def _take(self) -> None:
        try:
            schema.make_folder(self._path.parent)
            schema.look(self._path)
            self._lock_file.acquire(blocking=False)
        except Timeout:
            raise StoreUnavailable("it is in use by another server") from None
        except OSError as error:
            raise StoreUnavailable(f"it cannot be used: {error.strerror}") from None

    async def _load(self) -> None:
        with collector.held_off():
            began = time.monotonic()
            loaded = await self._writer.read(lambda connection: load(connection, self.limits, began))
            adopt(self, loaded)
            collector.keep()
        if loaded.leftovers:
            try:
                await self._writer.write(lambda connection: _drop_commits(connection, loaded))
            except StateError as error:
                log.warning("what was compacted could not be cleared away yet", reason=error.message)
        self._sqlite.purge(loaded.doomed)
        log.info("loaded", namespaces=len(loaded.namespaces), seconds=round(time.monotonic() - began, 3))


def adopt(store: MemoryStore, loaded: Loaded) -> None:
    """Have a store hold what a file does."""
    store.epoch = loaded.epoch
    store.least_revision = loaded.least_revision
    store.ids = itertools.count(loaded.next_id)
    store.set_clock(loaded.clock)
    for state in loaded.namespaces:
        store.namespaces_by_name[state.name] = state
        store.watch_leases(state)
        state.requests = loaded.requests.pop(state.name, state.requests)
    for name, (revision, at) in loaded.names.items():
        requests = loaded.requests.get(name)
        if requests is None:
            store.counters[name] = (revision, at)
            continue
        empty = Namespace(name, store.limits, store.epoch, id=next(store.ids), revision=revision, time=at)
        empty.requests = requests
        store.keep_deleted(empty)


def _drop_commits(connection: sqlite3.Connection, loaded: Loaded) -> None:
    connection.executemany(DROP_COMMIT, loaded.leftovers)
