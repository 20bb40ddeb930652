"""A Redis that loses the newest of what was done between two steps of a server, as a failover to a late replica does.

What it keeps of it is always what came first. So it is here saved, and killed later. Nothing older may be lost.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from comity_server.limits import Retention
from comity_server.model import Increment, Put, RequestId, Transaction
from comity_server.stores.redis import compaction
from comity_server.stores.redis.script import Script
from comity_server.stores.redis.store import RedisStore
from tests.redis_servers import RedisServer, program
from tests.stores.sharing import NAME, Shared, redis_store
from tests.stores.small import small_steps

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

ALL = Retention(commits=0, age=1e9, history_bytes=2**50)
COMPACTING = (compaction.PERSIST, compaction.COLLECT, compaction.FREE)


@pytest.fixture(scope="module")
def forgetful() -> Iterator[RedisServer]:
    """A Redis that has when it starts again what it was last told to save."""
    with RedisServer("--appendonly", "no") as running:
        yield running


@pytest.fixture
async def shared(forgetful: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    small_steps(monkeypatch)
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 0.0)
    with forgetful.client() as client:
        client.flushall()
    opened = Shared(forgetful.url)
    yield opened
    await opened.close()


def save(server: RedisServer) -> None:
    with server.client() as client:
        client.save()


def lose(server: RedisServer) -> None:
    """What came after it was saved."""
    server.kill()
    server.start()


class Loss:
    """Has Redis lose what one call of some scripts did, from when it was answered."""

    def __init__(self, server: RedisServer, store: RedisStore, scripts: Sequence[Script], number: int) -> None:
        self.calls = 0
        self._server, self._number = server, number
        self._digests = [script.digest for script in scripts]
        self._run = store._client.run
        store._client.run = self.run  # type: ignore[method-assign]

    async def run(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        self.calls += script.digest in self._digests
        if script.digest not in self._digests or self.calls != self._number:
            return await self._run(script, names, arguments)
        save(self._server)
        answer = await self._run(script, names, arguments)
        lose(self._server)
        return answer


@pytest.mark.parametrize("number", range(1, 13))
async def test_a_compaction_of_which_a_step_is_lost(forgetful: RedisServer, shared: Shared, number: int) -> None:
    (space,) = await shared.spaces(1)
    once = Transaction(then=[Increment("n", 1)], request_id=RequestId("client", 1))
    await space.commit(once)
    for each in range(10):
        await space.apply(*[Put(f"k{each}-{key}", b"v") for key in range(3)])
    await space.put("large", bytes(5000))
    await space.checkpoint("mark")
    expected = await space.contents()
    assert len(expected) == 32

    loss = Loss(forgetful, redis_store(space), COMPACTING, number)
    await space.compact()
    assert loss.calls >= number
    for _ in range(4):  # until the one that was cut short is made up for
        await space.store.retain(NAME, ALL)
        assert await space.contents() == expected
    assert redis_store(space)._replicas.known(NAME) is not None
    (other,) = await shared.spaces(1)
    for one in (space, other):
        assert await one.contents() == expected
        assert (await one.store.checkpoint(NAME, "mark")).revision == 12
        again = await one.commit(once)
        assert again.revision == 1
    meta = await redis_store(other)._replicas.meta(NAME)
    assert meta.base == meta.revision


async def test_a_checkpoint_whose_end_is_lost(forgetful: RedisServer, shared: Shared) -> None:
    """What it keeps stays, though a server has heard that it was dropped."""
    (space,) = await shared.spaces(1)
    await space.put("k", b"old")
    await space.checkpoint("mark")
    await space.put("k", b"new")
    await space.compact()
    store = redis_store(space)
    run = store._client.run

    async def lose_first(script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        if script is compaction.COLLECT:
            store._client.run = run  # type: ignore[method-assign]
            lose(forgetful)
        return await run(script, names, arguments)

    save(forgetful)
    await space.drop("mark")
    store._client.run = lose_first  # type: ignore[method-assign]
    await space.store.retain(NAME, ALL)
    assert store._client.run == run
    (other,) = await shared.spaces(1)
    for each in (other, space):
        assert (await each.store.checkpoint(NAME, "mark")).revision == 1
        assert await each.contents(1) == {"k": b"old"}


@pytest.mark.parametrize("how", ["compacted", "distrusted"])
async def test_a_history_that_others_have_gone_on_from_and_compacted(
    forgetful: RedisServer, shared: Shared, how: str
) -> None:
    """What is shown of it tells, though the log does not any more; or though the server was to load it anew anyway."""
    (space,) = await shared.spaces(1)
    await space.put("old")
    save(forgetful)
    for number in range(5):
        await space.put(f"lost{number}")
    before = await space.position()
    lose(forgetful)
    (other,) = await shared.spaces(1)
    for number in range(8):
        await other.put(f"new{number}")
    replicas = redis_store(space)._replicas
    if how == "compacted":
        await other.compact()
    else:
        replicas.distrust(NAME)
    assert await space.contents() == await other.contents()
    assert replicas.epoch.lost_at is not None
    assert not redis_store(space).writable()
    assert (await space.position()).epoch == (await other.position()).epoch != before.epoch
