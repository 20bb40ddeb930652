"""The compactor: what goes wrong with one namespace is no matter of the others, nor of the next time."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from comity_server.compactor import Compactor
from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import NamespaceInfo, Put, Transaction
from comity_server.stores.memory.store import MemoryStore
from comity_server.telemetry.tally import Tally
from tests.waiting import until

KEEP_ONE = Retention(commits=1)


class Failing(MemoryStore):
    """A store that fails for the namespace `b`, and the first time that it is asked for its namespaces."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(Limits())
        self.failure = failure
        self.listed = 0

    async def namespaces(
        self, prefix: str, *, after: str = "", limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        self.listed += 1
        if self.listed == 1:
            raise self.failure
        return await super().namespaces(prefix, after=after, limit=limit)

    async def retain(self, name: str, retention: Retention) -> int:
        if name == "b":
            raise self.failure
        return await super().retain(name, retention)


@pytest.mark.parametrize("failure", [StoreUnavailable("the disk is full"), ZeroDivisionError("a defect")])
async def test_a_failure_holds_up_no_other_namespace_and_is_not_the_end(failure: Exception) -> None:
    store = Failing(failure)
    for name in ("a", "b", "c"):
        await store.commit(name, [Transaction(then=[Put("k", b"")])] * 5)

    async def floors() -> list[int]:
        return [(await store.position(name)).floor for name in ("a", "b", "c")]

    running = asyncio.create_task(Compactor(store, lambda _: KEEP_ONE, 0.001, Tally()).run())
    try:
        await until(lambda: store.listed > 5 or running.done(), 10)
        assert not running.done()
        assert await floors() == [4, 0, 4]
    finally:
        running.cancel()
        await asyncio.wait([running])
