"""Pages of history: others have their turn while one is made."""

import asyncio

import pytest

from comity.v1 import state_pb2
from comity_server import turns
from comity_server.access.gate import ANYBODY
from comity_server.limits import Limits
from comity_server.model import Put, Transaction
from comity_server.services import history
from comity_server.stores.memory.store import MemoryStore

KEYS = 40
LIMITS = Limits(page_bytes=4000)


@pytest.fixture
async def store() -> MemoryStore:
    """Commits of one key, and of many, every other one under a."""
    made = MemoryStore(Limits())
    for size in (1, KEYS, 2, 3 * KEYS, 1):
        puts = [Put(f"{'ab'[number % 2]}{number}", b"x" * 20) for number in range(size)]
        await made.commit("n", [Transaction(then=puts, author=f"of {size}")])
    return made


async def pages(store: MemoryStore, **asked: str) -> list[state_pb2.HistoryResponse]:
    """All of them."""
    found: list[state_pb2.HistoryResponse] = []
    token = ""
    while token or not found:
        request = state_pb2.HistoryRequest(namespace="n", page_token=token, **asked)  # type: ignore[arg-type]
        found.append(await history.read(store, LIMITS, ANYBODY, request))
        token = found[-1].next_page_token
    return found


@pytest.mark.parametrize("asked", [{}, {"prefix": "a"}, {"author": f"of {KEYS}"}, {"prefix": "nothing"}])
async def test_a_page_is_made_a_little_at_a_time(
    store: MemoryStore, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await pages(store, **asked)
    monkeypatch.setattr(history, "STEP", 7)
    monkeypatch.setattr(turns, "STEPS", 7 * history.TAKES)
    monkeypatch.setattr(turns, "SECONDS", 0)
    making = asyncio.create_task(pages(store, **asked))
    passed = 0
    while not making.done():
        await asyncio.sleep(0)
        passed += 1
    assert await making == whole
    looked_at = 4 * KEYS if "author" not in asked else KEYS
    assert passed >= looked_at // 7
    if not asked:
        assert len(whole) > 1
        assert sum(len(commit.events) for page in whole for commit in page.commits) == 4 + 4 * KEYS
