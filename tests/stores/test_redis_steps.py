"""What other servers do between two steps of one that compacts, loads or follows a namespace over Redis."""

import asyncio
from typing import Any

import pytest

from comity_server.errors import Compacted, StoreUnavailable
from comity_server.limits import Retention
from comity_server.model import Commit, Increment, Outcome, Put, RequestId, Transaction
from comity_server.record import KEY
from comity_server.stores.memory import namespace
from comity_server.stores.redis import compaction, keys
from tests.contract.space import Space, plain
from tests.redis_servers import program
from tests.stores.sharing import NAME, Shared, after, before, once, raise_floor, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

ALL = Retention(commits=0, age=1e9, history_bytes=2**50)


@pytest.fixture(autouse=True)
def claims_that_are_not_waited_for(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 0.0)


class Heard:
    """Listens to a namespace."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.resets = 0

    def publish(self, commits: Any) -> None:
        self.commits += commits

    def reset(self) -> None:
        self.commits.clear()
        self.resets += 1


async def persist(space: Space) -> None:
    store = redis_store(space)
    async with store.lock(NAME):
        replica = await store._replicas.advance(NAME)
        assert await store._compaction.persist(replica.state)


async def names_of(space: Space, key: str) -> list[str]:
    return [name.decode() for name in await redis_store(space)._client.call("HKEYS", key)]


# A server that falls behind


@pytest.mark.parametrize("how", ["untouched", "busy", "following"])
async def test_a_server_that_fell_behind_loads_anew(shared: Shared, how: str) -> None:
    """What it knew is in the log no more, which is no loss."""
    slow, quick = await shared.spaces()
    store, heard = redis_store(slow), Heard()
    for number in range(5):
        await slow.put(f"k{number}")
    if how == "following":
        await store.follow(NAME, heard)
    before = await slow.position()
    lock = store.lock(NAME)
    if how != "untouched":
        await lock.acquire()
    for number in range(20):
        await quick.put(f"k{number % 7}", b"%d" % number)
        await quick.compact()
    await quick.checkpoint("mark")
    await quick.put("large", bytes(5000))
    await quick.compact()
    assert await redis_store(quick)._client.call("XLEN", keys.Keys(store._target.prefix, NAME).log(1)) <= 1
    if how != "untouched":
        lock.release()
    assert await slow.contents() == await quick.contents()
    assert await slow.contents(25) == await quick.contents(25)
    assert await slow.put("own") == 27
    position = await slow.position()
    assert (position.revision, position.floor, position.epoch) == (27, 26, before.epoch)
    assert store._replicas.epoch.lost_at is None
    assert store.writable()
    if how == "following":
        assert heard.resets == 1
        assert [commit.revision for commit in heard.commits] == [27]


async def test_whoever_follows_what_is_loaded_anew_is_told_what_came_between(shared: Shared) -> None:
    """The history has not ended, though the server has lost sight of it."""
    space, other = await shared.spaces()
    store, heard = redis_store(space), Heard()
    for number in range(10):
        await space.put("k", b"%d" % number)
    await store.follow(NAME, heard)

    async def fail(script: Any, *_: Any) -> None:
        if script is compaction.COLLECT:
            raise StoreUnavailable("Redis is away")

    with pytest.MonkeyPatch.context() as patch:
        before(patch, store._client, "run", fail)
        with pytest.raises(StoreUnavailable):
            await space.compact(5)
    state = store._replicas.find(NAME).state
    async with store.lock(NAME):  # so that it does not follow yet
        for number in range(10, 13):
            await other.put("k", b"%d" % number)
        await other.checkpoint("mark")
    assert await space.contents() == {"k": b"12"}
    assert store._replicas.find(NAME).state is not state
    assert await space.put("own") == 14
    assert heard.resets == 0
    assert [commit.revision for commit in heard.commits] == [11, 12, 13, 14]


async def test_a_server_that_fell_behind_what_is_deleted(shared: Shared) -> None:
    """Between what it read of the log and its look at where that was trimmed the namespace ended."""
    slow, quick = await shared.spaces()
    await slow.put("k")
    epoch = (await slow.position()).epoch
    for number in range(5):
        await quick.put("k", b"%d" % number)
    await quick.compact(4)
    store = redis_store(slow)

    async def delete() -> None:
        await quick.store.delete_namespace(NAME)
        await quick.put("k", b"new")

    deletes = once(delete)

    async def delete_then(*command: Any) -> None:
        if command[0] == "XRANGE":
            await deletes()

    with pytest.MonkeyPatch.context() as patch:
        after(patch, store._client, "ask", delete_then)
        assert await slow.contents() == {"k": b"new"}
    assert (await slow.position()).epoch == epoch
    assert store._replicas.epoch.lost_at is None


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_follower_that_ends_while_it_takes_in_a_large_commit(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """What it took in of the commit it does not take in again."""
    monkeypatch.setattr(namespace, "_APPLIED", 10)
    space, other = await shared.spaces()
    await other.put("k")
    store, heard = redis_store(space), Heard()
    await store.follow(NAME, heard)
    state = (await store._replicas.fresh(NAME)).versions
    reached = asyncio.Event()
    original = state.apply

    def apply(event: Any) -> None:
        original(event)
        if event.entry[KEY] == "k15":
            reached.set()
            if ends == "failed":
                raise ValueError("out of order")

    monkeypatch.setattr(state, "apply", apply)
    await other.apply(*(Put(f"k{number:02}", b"") for number in range(50)))
    await reached.wait()
    if ends == "cancelled":
        await store.unfollow(NAME)
        await store.follow(NAME, heard)
    else:  # it goes on by itself
        await until(lambda: heard.resets > 0 or bool(heard.commits))
    assert plain(await space.info()) == plain(await other.info())
    commits = [(await one.store.commits(NAME, first=2, last=2, limit=1)).commits[0] for one in (space, other)]
    assert plain(commits[0]) == plain(commits[1])
    await other.put("k15", b"later")
    assert await space.contents() == await other.contents()


# Compactions at once


async def test_what_a_slower_compaction_keeps_does_not_come_back(shared: Shared) -> None:
    """One that has a lower floor writes a version into the base, after another one has dropped it from there."""
    slow, quick = await shared.spaces()
    await slow.put("k")
    await slow.put("other")

    async def overtake() -> None:
        await quick.delete("k")
        with pytest.MonkeyPatch.context() as inner:
            before(inner, redis_store(quick)._compaction, "_collect_some", wait_for_last)
            await quick.compact()

    resumed, finished = asyncio.Event(), asyncio.Event()

    async def wait_for_last(replica: Any, since: int, base: int, *_: Any, **__: Any) -> None:
        if base > since:  # all is in the base, and it is about to reach further
            resumed.set()
            await finished.wait()

    overtaking: list[asyncio.Task[None]] = []

    async def begin() -> None:
        overtaking.append(asyncio.create_task(overtake()))
        await resumed.wait()

    async def end(*_: Any, **__: Any) -> None:
        finished.set()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(slow)._compaction, "_collect_some", once(begin))
        after(patch, redis_store(slow)._compaction, "_collect_some", end)
        await slow.compact()
        await overtaking[0]
    (new,) = await shared.spaces(1)
    assert await new.keys() == ["other"]


async def test_a_large_commit_is_kept_whole_though_a_part_was_refused(shared: Shared) -> None:
    """Another server claims the compaction for the time of one step."""
    space, other = await shared.spaces()
    await space.apply(*(Put(f"k{number:02}", b"") for number in range(50)))
    steps = 0

    async def claim(*_: Any, **__: Any) -> None:
        nonlocal steps
        steps += 1
        if steps <= 2:
            await persist(other if steps == 1 else space)

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._compaction, "collect", claim)
        await space.compact()
    assert steps > 2
    for store in (redis_store(space), redis_store(other)):
        for _ in range(3):
            await store.retain(NAME, ALL)
    (new,) = await shared.spaces(1)
    assert len(await new.keys()) == 50
    base = keys.Keys(redis_store(new)._target.prefix, NAME).base(1)
    assert len(await names_of(new, base)) == 50, "whoever finds that nobody goes on does"


async def test_a_floor_that_is_raised_while_what_lies_below_is_moved(shared: Shared) -> None:
    """What came after the outcomes were written down is in the log still, though the base reaches beyond."""
    space, other = await shared.spaces()
    for number in range(10):
        await space.put(f"k{number}")
    request = RequestId("c", 1)
    named = Transaction(then=[Increment("sum", 1)], request_id=request)

    async def more() -> None:
        await other.commit(named)
        await other.checkpoint("mark")
        await other.put("k0", b"last")
        await raise_floor(other, 12)
        await space.position()  # it has heard of that

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._compaction, "_collect_some", once(more))
        await space.compact(9)
    (new,) = await shared.spaces(1)
    assert (await new.position()).floor == 12
    assert (await new.store.checkpoint(NAME, "mark")).revision == 11
    assert (await new.contents(11))["k0"] == b"v"
    assert (await new.commit(named)).revision == 11
    assert await new.revision() == 12


async def test_what_another_server_put_into_the_base_is_dropped_too(shared: Shared) -> None:
    """By one that had not, and hears of the end of the checkpoint that it was kept for."""
    first, second = await shared.spaces()
    await first.put("k", b"1")
    await first.checkpoint("mark")
    await first.put("k", b"2")
    await second.position()
    await first.compact()
    await second.drop("mark")
    await second.put("k", b"3")
    await second.compact()
    for _ in range(3):
        await second.store.retain(NAME, ALL)
    base = keys.Keys(redis_store(second)._target.prefix, NAME).base(1)
    assert await names_of(second, base) == ["k\x003"]


async def test_servers_that_compact_at_once_do_not_hold_up_each_other(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has many outcomes to write down, which takes longer than the other one takes to come."""
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 5.0)
    spaces = await shared.spaces(3)
    for number in range(1, 100):
        await spaces[0].apply(Put("k", b"%d" % number), request_id=RequestId("c", number))
    for _ in range(3):
        async with asyncio.timeout(20):
            await asyncio.gather(*(space.compact() for space in spaces))
        await spaces[1].put("k")
    async with asyncio.timeout(20):
        await asyncio.gather(*(space.store.retain(NAME, ALL) for space in spaces))


async def test_retention_ends_where_another_server_compacts(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may ask for more than one look at the log, and does so only if the log has moved."""
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    monkeypatch.setattr("comity_server.stores.memory.namespace._LOOKED_THROUGH", 3)
    space, other = await shared.spaces()
    for number in range(20):
        await space.put("k", bytes(number))
    await raise_floor(other, 1)
    await persist(other)
    async with asyncio.timeout(20):
        assert await space.store.retain(NAME, Retention(commits=100, age=1e9, history_bytes=10)) < 20


# Loading


async def test_a_key_does_not_come_back_where_its_tombstone_is_dropped_while_it_is_loaded(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.apply(*(Put(f"k{number}", b"") for number in range(40)))
    await space.checkpoint("mark")
    await space.delete_prefix("k")
    await space.put("other")
    await space.compact()
    new = await shared.open()
    scans = 0

    async def drop(*command: Any) -> None:
        nonlocal scans
        scans += command[0] == "HSCAN"
        if command[0] == "HSCAN" and scans == 5:
            await space.drop("mark")
            await space.compact()

    with pytest.MonkeyPatch.context() as patch:
        after(patch, new._client, "ask", drop)
        assert await Space(new, NAME).keys() == ["other"]
    assert scans > 5


async def test_a_scan_that_shows_fields_twice(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k", b"1")
    await space.checkpoint("mark")
    await space.apply(Put("k", b"2"), request_id=RequestId("c", 1))
    await space.compact()
    new = await shared.open()
    scans: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        original = new._client.ask

        async def call(*command: Any) -> Any:
            answer = await original(*command)
            scans.append(command[2]) if command[0] == "HSCAN" else None
            if command[0] == "HSCAN" and command[2] == 0 and answer[0] == 0:
                return (-1, answer[1])  # and the same again
            if command[0] == "HSCAN" and command[2] == -1:
                return (0, (await original("HSCAN", command[1], 0, "COUNT", 1000))[1])
            return answer

        patch.setattr(new._client, "ask", call)
        again = Space(new, NAME)
        assert plain(await again.info()) == plain(await space.info())
    assert -1 in scans
    (outcome,) = await new.commit(NAME, [Transaction(then=[Put("k", b"2")], request_id=RequestId("c", 1))])
    assert isinstance(outcome, Outcome)
    assert outcome.revision == 2


async def test_a_long_entry_that_is_trimmed_while_it_is_read(shared: Shared) -> None:
    slow, quick = await shared.spaces()
    await slow.put("k")
    await quick.put("large", bytes(5000))
    with pytest.MonkeyPatch.context() as patch:
        store = redis_store(slow)
        original, reads = store._client.call, 0

        async def call(*command: Any) -> Any:
            nonlocal reads
            if command[0] == "HGET":
                reads += 1
                if reads == 2:
                    await quick.compact()
            return await original(*command)

        patch.setattr(store._client, "call", call)
        assert await slow.get("large") is not None
    assert reads >= 2


async def test_compactions_while_a_namespace_is_loaded(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    for number in range(20):
        await space.put(f"k{number}")
    new = await shared.open()
    loads = 0

    async def compact(*_: Any, **__: Any) -> None:
        nonlocal loads
        loads += 1
        if loads <= 5:
            await space.put("k0", b"%d" % loads)
            await space.compact()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, new._replicas._loader, "meta", compact)
        assert await Space(new, NAME).contents() == await space.contents()
    with pytest.raises(Compacted):
        await Space(new, NAME).get("k0", 3)
