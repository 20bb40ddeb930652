"""Ends leases that have run out. Which those are the store says, by its own clock; the end of each is a commit like any
other, so whoever comes first of several servers makes it, and the others find nothing left to do."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from comity_server.committer import Answer, Committer
from comity_server.errors import Draining, StateError
from comity_server.model import DeleteResult, Expire, Outcome
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.1  # seconds between looks
TOGETHER: Final = 1000  # leases of a namespace that are ended before others have their turn there
LOT: Final = 100  # leases that a look finds, after which there may be more


class Expiry:
    """Ends the leases of all namespaces.

    Args:
        store: asked which leases have run out.
        committer: where their ends go, ahead of all that waits, and whatever the bound on that: a server that has much
            to do must not be late with them for it.
        tally: where they are counted.
    """

    def __init__(self, store: Store, committer: Committer, tally: Tally) -> None:
        self._store = store
        self._committer = committer
        self._tally = tally
        self._busy: dict[str, Answer] = {}  # namespaces whose leases are being ended
        self._trouble = ""  # why it is not known which have run out, as the log was told

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        due: Mapping[str, Sequence[int]] = {}
        goes_on = False
        while True:
            await self._pause(goes_on)
            try:
                before, due = due, await self._store.due()
                # Where those are told that were to be ended before there is no hurry: it is tried again.
                goes_on = sum(map(len, due.values())) >= LOT and all(
                    namespace in self._busy or before.get(namespace) != lease_ids
                    for namespace, lease_ids in due.items()
                )
                for namespace, lease_ids in due.items():
                    self._end(namespace, lease_ids)
                self._note("")
            except Draining:
                return
            except StateError as error:
                goes_on = False
                self._note(error.message)
            except Exception as error:  # noqa: BLE001 - told to the log, and without this no lease would ever end
                goes_on = False
                self._note(repr(error), exc_info=error)

    async def _pause(self, goes_on: bool) -> None:
        """Wait until the next look. Where there was a lot there may be more: then only until half of that is ended, so
        that there is always some under way."""
        under_way = list(self._busy.values())
        if goes_on and under_way:
            await asyncio.wait(under_way[: (len(under_way) + 1) // 2], timeout=INTERVAL)
        else:
            await asyncio.sleep(INTERVAL)

    def _end(self, namespace: str, lease_ids: Sequence[int]) -> None:
        if namespace not in self._busy:  # else those that are left are due again
            self._begin(namespace, lease_ids)

    def _begin(self, namespace: str, lease_ids: Sequence[int]) -> None:
        some, rest = lease_ids[:TOGETHER], lease_ids[TOGETHER:]
        writes = [Expire(lease_ids=(id,)) for id in some]  # each ends its own, however many keys others have
        size = sum(write.weight() for write in writes)
        answer = self._committer.submit_all(namespace, writes, size, len(writes), ahead=True)
        self._busy[namespace] = answer
        answer.add_done_callback(partial(self._ended, namespace, rest))

    def _note(self, trouble: str, **said: object) -> None:
        """Tell the log when leases cannot be looked at, and when they can be again."""
        if trouble and trouble != self._trouble:
            log.warning("leases that have run out are not ended", error=trouble, **said)
        elif self._trouble and not trouble:
            log.info("leases that have run out are ended again")
        self._trouble = trouble

    def _ended(self, namespace: str, rest: Sequence[int], answer: Answer) -> None:
        del self._busy[namespace]
        outcomes = () if answer.cancelled() else answer.result()
        failed = [outcome.message for outcome in outcomes if isinstance(outcome, StateError)]
        deleted = [
            outcome.results[0].deleted
            for outcome in outcomes
            if isinstance(outcome, Outcome) and outcome.results and isinstance(outcome.results[0], DeleteResult)
        ]
        if failed:
            log.warning("leases could not be ended yet", namespace=namespace, leases=len(failed), error=failed[0])
        self._tally.leases_expired += len(deleted)
        self._tally.lease_keys_deleted += sum(deleted)
        if any(deleted):
            log.info("leases expired", namespace=namespace, leases=len(deleted), keys=sum(deleted))
        if rest and not failed and not answer.cancelled():
            with contextlib.suppress(Draining):
                self._begin(namespace, rest)
