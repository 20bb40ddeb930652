"""Ends leases that have run out. Which those are the store says, by its own clock; the end of each is a commit like any
other, so whoever comes first of several servers makes it, and the others find nothing left to do."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from comity_server.committer import Answer, Committer
from comity_server.errors import Draining, StateError
from comity_server.model import DeleteResult, Expire, Outcome
from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.1  # seconds between looks


class Expiry:
    """Ends the leases of all namespaces.

    Args:
        store: asked which leases have run out.
        committer: where their ends go, ahead of the bound on writes that wait: a server that has much to do must not be
            late with them for it.
    """

    def __init__(self, store: Store, committer: Committer) -> None:
        self._store = store
        self._committer = committer
        self._busy: set[str] = set()  # namespaces whose leases are being ended

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                for namespace, lease_ids in (await self._store.due()).items():
                    self._end(namespace, lease_ids)
            except Draining:
                return
            except StateError as error:
                log.debug("leases that have run out are not known", error=error.message)
            except Exception:  # whatever it is, without this no lease would ever end
                log.exception("leases could not be ended, in an unforeseen way")

    def _end(self, namespace: str, lease_ids: Sequence[int]) -> None:
        if namespace in self._busy:  # those that are left are due again
            return
        writes = [Expire(lease_ids=(id,)) for id in lease_ids]  # each ends its own, however many keys others have
        size = sum(write.weight() for write in writes)
        answer = self._committer.submit_all(namespace, writes, size, len(lease_ids))
        self._busy.add(namespace)
        answer.add_done_callback(partial(self._ended, namespace))

    def _ended(self, namespace: str, answer: Answer) -> None:
        self._busy.discard(namespace)
        for outcome in () if answer.cancelled() else answer.result():
            match outcome:
                case StateError():
                    log.warning("leases could not be ended yet", namespace=namespace, error=outcome.message)
                case Outcome(results=[DeleteResult(deleted)]) if deleted:
                    log.info("leases expired", namespace=namespace, keys=deleted, revision=outcome.revision)
