"""Forgets history as the retention asks for, one namespace after another, over and over."""

import asyncio
import time
from collections.abc import Callable

import structlog

from comity_server.errors import NamespaceNotFound, StateError
from comity_server.limits import Retention
from comity_server.model import NamespaceInfo
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally

log = structlog.get_logger(__name__)
_PAGE = 200  # namespaces


class Compactor:
    """Compacts all namespaces every `interval` seconds, each as `retention` says of its name."""

    def __init__(self, store: Store, retention: Callable[[str], Retention], interval: float, tally: Tally) -> None:
        self._store = store
        self._retention = retention
        self._interval = interval
        self._tally = tally

    async def run(self) -> None:
        """Compact until cancelled. A failure is logged, and tried again the next time."""
        while True:
            await asyncio.sleep(self._interval)
            begun = time.perf_counter()
            try:
                await self._compact_all()
            except StateError as error:
                self._tally.compaction_failures += 1
                log.warning("compaction failed", error=error.message)
            except Exception:  # whatever it is, without compaction the history would fill the memory
                self._tally.compaction_failures += 1
                log.exception("compaction failed in an unforeseen way")
            self._tally.compactions += 1
            self._tally.compaction_seconds += time.perf_counter() - begun

    async def _compact_all(self) -> None:
        await self._store.sweep()
        after = ""
        while page := await self._store.namespaces("", after=after, limit=_PAGE):
            for info in page:
                await self._compact(info)
            after = page[-1].name
            await asyncio.sleep(0)

    async def _compact(self, info: NamespaceInfo) -> None:
        """Compact one namespace. What fails here keeps nothing from the others."""
        try:
            floor = await self._store.retain(info.name, self._retention(info.name))
        except NamespaceNotFound:
            return  # deleted meanwhile
        except StateError as error:
            self._tally.compaction_failures += 1
            log.warning("compaction failed", namespace=info.name, error=error.message)
        except Exception:
            self._tally.compaction_failures += 1
            log.exception("compaction failed in an unforeseen way", namespace=info.name)
        else:
            if floor > info.floor:
                self._tally.revisions_compacted += floor - info.floor
                log.info("compacted", namespace=info.name, floor=floor, before=info.floor)
