"""Reads the file of a store to be copied from. It is left as it is, and no server may use it meanwhile."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.load import load
from comity_server.stores.sqlite.store import adopt
from comity_server.stores.transfer import Ancestor, Loaded, NoStore


class SqliteReader:
    """Implements `stores.transfer.Reader`."""

    def __init__(self, path: Path) -> None:
        self.least_revision = 0
        self.path = path
        self._lock = FileLock(schema.lock_path(path), thread_local=False)
        self._store = MemoryStore(Limits())
        self._clock = 0  # what leases go by, which rests with the file

    async def open(self) -> None:
        if not self.path.is_file():
            raise NoStore(f"{self.path} does not exist, or is no file")
        try:
            await asyncio.to_thread(self._read)
        except StateError as error:
            raise StoreUnavailable(f"{self.path}: {error.message}") from error

    async def close(self) -> None:
        self._lock.release()

    async def names(self, prefix: str = "") -> Sequence[str]:
        store = self._store
        names = {*store.namespaces_by_name, *store.deleted, *store.counters}
        return sorted(name for name in names if name.startswith(prefix))

    async def lineage(self, name: str) -> Sequence[Ancestor]:
        state: Namespace | None = self._store.state(name)
        found = []
        while state is not None:
            exists = self._store.namespaces_by_name.get(state.name) is state
            found.append(Ancestor(state.name, state.id if state.create_time else 0, exists))
            state = state.parent.namespace if state.parent is not None else None
        return found

    async def load(self, names: Sequence[str]) -> Loaded:
        return Loaded(self._store, dict.fromkeys(names, 0))

    async def remaining(self, name: str) -> Mapping[int, int]:
        return {held.lease.id: max(0, held.deadline - self._clock) for held in self._store.state(name).leases}

    def _read(self) -> None:
        try:
            schema.look(self.path)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise StoreUnavailable("a server uses it: stop that first") from None
        except OSError as error:
            raise StoreUnavailable(f"it cannot be used: {error.strerror}") from None
        try:
            self._load()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error | UnicodeDecodeError):
                raise StoreUnavailable(f"it is damaged, or no database: {error}") from error
            raise

    def _load(self) -> None:
        connection = schema.connect(self.path, read_only=True, at_rest=schema.is_at_rest(self.path))
        try:
            found = schema.version(connection)
            if not found:
                raise StoreUnavailable("it is empty: no server has used it yet")
            if found < len(schema.MIGRATIONS):
                raise StoreUnavailable(f"it has version {found} of the format: a start of `comity serve` migrates it")
            loaded = load(connection, Limits(), 0.0)
            adopt(self._store, loaded)
            self._clock = loaded.clock
        finally:
            connection.close()
        self.least_revision = self._store.least_revision
