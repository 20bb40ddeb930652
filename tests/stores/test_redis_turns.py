"""However much there is to do for one namespace, others get their turns meanwhile."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from comity_server import turns as loop_turns
from comity_server.model import Cause, Commit, Event, Put, RequestId, Transaction
from comity_server.stores.memory import collector
from comity_server.stores.memory.requests import Requests
from comity_server.stores.redis import codec, portions
from comity_server.stores.redis.compaction import PERSIST
from comity_server.stores.redis.loading import _Loading
from tests.contract.space import Space
from tests.redis_servers import program
from tests.stores.sharing import NAME, Shared, after, before, once, redis_store

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

KEYS = 300
STEPS = 10  # in one go
LEAST = KEYS // STEPS  # turns while each of so many things is looked at once


class Turns:
    """How often another task had its turn."""

    def __init__(self) -> None:
        self.count = 0

    async def take(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@pytest.fixture
async def turns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Turns]:
    monkeypatch.setattr(loop_turns, "STEPS", STEPS)
    monkeypatch.setattr(loop_turns, "SECONDS", 0)
    turns = Turns()
    task = asyncio.create_task(turns.take())
    yield turns
    task.cancel()


def watch(patch: pytest.MonkeyPatch, turns: Turns, owner: Any, name: str) -> set[int]:
    """How often the other task had had its turn, at any of the calls of a function."""
    found: set[int] = set()
    original: Callable[..., Any] = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        found.add(turns.count)
        return original(*arguments, **named)

    patch.setattr(owner, name, watched)
    return found


async def test_a_load(shared: Shared, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    (space,) = await shared.spaces(1)
    await space.apply(*(Put(f"k{number}", b"") for number in range(KEYS)))
    named = [Transaction(then=[Put("k", b"")], request_id=RequestId("c", number)) for number in range(KEYS)]
    await space.outcomes(*named)
    changes = watch(monkeypatch, turns, codec, "change")
    outcomes = watch(monkeypatch, turns, Requests, "remember")
    counts: list[int] = []

    async def count(*_: Any) -> None:
        counts.append(turns.count)

    before(monkeypatch, _Loading, "finish", count)
    after(monkeypatch, _Loading, "finish", count)
    await Space(await shared.open(), NAME).keys()
    assert len(changes) >= 2 * LEAST
    assert len(outcomes) >= LEAST
    assert counts[1] - counts[0] >= 5 * LEAST, "each key twice, each commit and its change twice"
    packs = watch(monkeypatch, turns, codec, "pack_outcome")
    await space.compact()
    assert len(packs) >= LEAST
    monkeypatch.setattr(portions, "FIRST", 10 * KEYS)
    monkeypatch.setattr(portions, "FIELDS", 10 * KEYS)
    outcomes = watch(monkeypatch, turns, Requests, "load_outcome")
    await Space(await shared.open(), NAME).keys()
    assert len(outcomes) >= LEAST


async def test_a_follower(shared: Shared, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    await other.position()
    await space.apply(*(Put(f"k{number}", b"") for number in range(KEYS)))
    changes = watch(monkeypatch, turns, codec, "change")
    await other.position()
    assert len(changes) >= LEAST


async def test_a_long_entry_is_read_as_a_short_one_is(turns: Turns) -> None:
    change = ("k", b"v", "text/plain", 1, 1, 0, 0)
    commits = [Commit(3, 9, "ann", "why", "trace", []), Commit(4, 9, "", "", "", [])]
    made = [
        head._replace(events=[Event((*change[:5], head.revision, 0, 9), None, Cause.CLIENT)] * KEYS) for head in commits
    ]
    data = codec.pack_commits(b"token", made)
    before = turns.count
    assert await codec.unpack_long_entry(data, loop_turns.Pace()) == codec.unpack_entry(data)
    assert turns.count - before >= 2 * LEAST
    control = codec.pack_control(b"token", 9, codec.Control("pin", 3, "1.a:n", 1, 2))
    assert await codec.unpack_long_entry(control, loop_turns.Pace()) == codec.unpack_entry(control)


async def test_writes_while_outcomes_are_written_down(shared: Shared, turns: Turns) -> None:
    """A compaction does so without holding up who writes to the namespace."""
    (space,) = await shared.spaces(1)
    for number in range(5):
        await space.apply(Put("k", b"%d" % number), request_id=RequestId("c", number))
    writes = once(lambda: space.apply(Put("k", b"5"), request_id=RequestId("c", 5)))

    async def write(script: Any, *_: Any) -> None:
        if script is PERSIST:
            await writes()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", write)
        async with asyncio.timeout(20):
            await space.compact()
    assert (await redis_store(space)._replicas.meta(NAME)).base == 5
    new = Space(await shared.open(), NAME)
    for number in range(6):
        assert (await new.apply(Put("k", b"%d" % number), request_id=RequestId("c", number))).revision == number + 1
    assert await new.revision() == 6


async def test_the_garbage_collector_waits_for_all_who_load(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    enabled: list[bool] = []

    async def look(*_: Any) -> None:
        with collector.held_off():
            pass
        enabled.append(gc.isenabled())

    before(monkeypatch, _Loading, "finish", look)
    assert gc.isenabled()
    await Space(await shared.open(), NAME).keys()
    assert enabled == [False]
    assert gc.isenabled()


async def test_what_was_loaded_is_old_for_the_garbage_collector(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first collection afterwards does not look through all of it."""
    monkeypatch.setattr(collector, "_MUCH", 500)
    gc.unfreeze()  # what a store of another kind has frozen in this process
    (space,) = await shared.spaces(1)
    await space.outcomes(*(Transaction(then=[Put(f"k{number}", b"")]) for number in range(1000)))
    new = await shared.open()
    looked: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] < 2:
            looked.append(sum(isinstance(thing, tuple) for thing in gc.get_objects(0)))

    gc.callbacks.append(look)
    try:
        await new.position(NAME)
    finally:
        gc.callbacks.remove(look)
    assert max(looked, default=0) < 1000
