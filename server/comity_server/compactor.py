"""Forgets history as the retention asks for, one namespace after another, over and over."""

import asyncio
from collections.abc import Callable

import structlog

from comity_server.errors import NamespaceNotFound, StateError
from comity_server.limits import Retention
from comity_server.model import NamespaceInfo
from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)
_PAGE = 200  # namespaces


class Compactor:
    """Compacts all namespaces every `interval` seconds, each as `retention` says of its name."""

    def __init__(self, store: Store, retention: Callable[[str], Retention], interval: float) -> None:
        self._store = store
        self._retention = retention
        self._interval = interval

    async def run(self) -> None:
        """Compact until cancelled. A failure is logged, and tried again the next time."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._compact_all()
            except StateError as error:
                log.warning("compaction failed", error=error.message)
            except Exception:  # whatever it is, without compaction the history would fill the memory
                log.exception("compaction failed in an unforeseen way")

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
            log.warning("compaction failed", namespace=info.name, error=error.message)
        except Exception:
            log.exception("compaction failed in an unforeseen way", namespace=info.name)
        else:
            if floor > info.floor:
                log.info("compacted", namespace=info.name, floor=floor, before=info.floor)
