"""What a server leaves behind that ends in the middle of something, and what becomes of that."""

import asyncio
from typing import Any

import pytest

from comity_server.errors import Compacted, Conflict, NamespaceNotFound, QuotaExceeded, StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import Condition, Outcome, Put, RequestId, Test, Transaction
from comity_server.stores.memory.requests import Requests
from comity_server.stores.redis import compaction
from comity_server.stores.redis.compaction import CLAIM
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.journal import APPEND, DELETE, STAGE
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.transfer import Counter
from tests.contract.space import Space
from tests.redis_servers import program
from tests.stores.garbage import garbage
from tests.stores.sharing import NAME, Shared, after, before, once, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

LARGE = bytes(5000)


async def dies(*_: Any, **__: Any) -> None:
    raise asyncio.CancelledError


async def keys_like(space: Space, part: str) -> dict[str, int]:
    """The keys that have something in their names, and how long they stay, in seconds."""
    call = redis_store(space)._client.call
    found = await call("KEYS", f"{redis_store(space)._target.prefix}:*{part}*")
    return {key.decode(): await call("TTL", key) for key in found}


async def compacted(space: Space, *others: str) -> list[str]:
    """What is left in Redis of a namespace when it is compacted, and of others."""
    await space.compact()
    await space.store.retain(space.name, Retention())
    return await garbage(redis_store(space), [space.name, *others])


async def test_an_entry_that_was_staged_and_not_appended_goes_by_itself(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    for step in range(1, 6):
        dying = await shared.open()
        calls = 0

        async def die(*_: Any, step: int = step) -> None:
            nonlocal calls
            calls += 1
            if calls == step:
                raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            before(patch, dying._client, "run", die)
            with pytest.raises(asyncio.CancelledError):
                await dying.commit(NAME, [Transaction(then=[Put("k", LARGE)])])
    assert await space.revision() == 1
    left = await keys_like(space, "staged")
    assert len(left) == 4
    assert all(seconds > 0 for seconds in left.values())
    assert await keys_like(space, "large") == {}


async def test_an_entry_that_was_staged_in_vain_is_staged_anew(shared: Shared) -> None:
    """Another server was faster; or what was staged has expired meanwhile."""
    space, other = await shared.spaces()
    await space.put("k")

    async def overtake() -> None:
        await other.put("k", b"other")

    async def expire() -> None:
        for key, seconds in (await keys_like(space, "staged")).items():
            if seconds > 0:
                await redis_store(space)._client.call("DEL", key)

    for comes_between in (overtake, expire):
        hook = once(comes_between)

        async def before_append(script: Any, *_: Any, hook: Any = hook) -> None:
            if script is APPEND:
                await hook()

        with pytest.MonkeyPatch.context() as patch:
            before(patch, redis_store(space)._client, "run", before_append)
            await space.put("k", LARGE)
        assert await Space(await shared.open(), NAME).contents() == {"k": LARGE}
    assert [seconds for seconds in (await keys_like(space, "staged")).values() if seconds > 0] == []
    assert await space.revision() == 4


async def test_an_entry_whose_first_pieces_have_expired_is_staged_anew(shared: Shared) -> None:
    """As where its server stood still while it brought them: without them nobody could read the log any more."""
    (space,) = await shared.spaces(1)
    pieces = 0

    async def expire(script: Any, names: Any, *_: Any) -> None:
        nonlocal pieces
        pieces += script is STAGE
        if script is STAGE and pieces == 3:
            await redis_store(space)._client.call("DEL", *names)

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", expire)
        await space.put("k", LARGE)
    assert await Space(await shared.open(), NAME).contents() == {"k": LARGE}
    assert len(await keys_like(space, "staged")) == 1


async def test_nothing_is_left_of_long_entries(shared: Shared) -> None:
    space, other = await shared.spaces()
    for _ in range(3):
        await space.put("k", LARGE)
        await other.put("k", LARGE)
    assert len(await keys_like(space, "staged")) == 6
    assert await compacted(space) == []
    made = await space.fork("fork")
    await space.put("k", LARGE)
    await made.put("k", LARGE)
    for name in (space.name, made.name):
        await other.store.delete_namespace(name)
    assert await garbage(redis_store(other), [space.name, made.name]) == []


async def test_a_long_entry_for_what_is_deleted_meanwhile(shared: Shared) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    delete = once(lambda: other.store.delete_namespace(NAME))

    async def before_append(script: Any, *_: Any) -> None:
        if script is APPEND:
            await delete()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", before_append)
        await space.put("k", LARGE)
    await other.store.delete_namespace(NAME)
    assert await garbage(redis_store(other), [NAME]) == []


async def test_names_of_namespaces_that_did_not_begin_or_are_gone(shared: Shared) -> None:
    limits = Limits(namespaces=3)
    space = Space(await shared.open(limits), NAME)
    await space.put("k")
    for step in ("commit", "delete"):
        dying = Space(await shared.open(limits), step)
        with pytest.MonkeyPatch.context() as patch:
            if step == "commit":
                before(patch, redis_store(dying)._redis, "_append", dies)
                with pytest.raises(asyncio.CancelledError):
                    await dying.put("k")
            else:
                await dying.put("k")
                before(patch, redis_store(dying)._names, "unlist", dies)
                with pytest.raises(asyncio.CancelledError):
                    await dying.store.delete_namespace(step)
    with pytest.raises(QuotaExceeded):
        await space.sibling("new").put("k")
    assert [info.name for info in await space.store.namespaces("", limit=10)] == [NAME]
    await space.sibling("new").put("k")


async def test_the_name_of_a_namespace_that_may_not_begin_after_all(shared: Shared) -> None:
    """Another server was faster, and so the write is refused."""
    space, other = await shared.spaces()
    await space.position()
    await other.put("k")
    await other.store.delete_namespace(NAME)
    with pytest.raises(Compacted):
        await space.apply(Put("k", b""), conditions=[Condition("k", Test.UNCHANGED_SINCE, 0)])
    assert await garbage(redis_store(space), [NAME]) == []


async def test_a_namespace_that_is_not_listed_is_listed_again(shared: Shared) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    prefix = redis_store(space)._target.prefix
    await redis_store(space)._client.call("ZREM", f"{prefix}:names", NAME)
    assert await other.store.namespaces("", limit=10) == []
    await space.store.sweep()
    assert [info.name for info in await other.store.namespaces("", limit=10)] == [NAME]


async def test_names_that_were_only_asked_for_or_deleted_are_forgotten(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    store = redis_store(space)
    await space.put("k")
    for number in range(20):
        await Space(store, f"none-{number}").get("k")
    for number in range(5):
        await Space(store, f"gone-{number}").put("k")
        await store.delete_namespace(f"gone-{number}")
    await store.sweep()
    assert set(store._replicas._replicas) == {NAME}
    assert not store.deleted
    assert not store._deletions


async def test_a_deletion_whose_answer_is_lost(shared: Shared) -> None:
    """It is told once that it was done, and not that there was nothing to do."""
    (space,) = await shared.spaces(1)
    await space.put("k")
    made = await space.fork("fork")

    async def lost() -> None:
        raise Passing(StoreUnavailable("the answer is lost"))

    for one in (made, space):
        hook = once(lost)

        async def after_delete(script: Any, *_: Any, hook: Any = hook) -> None:
            if script is DELETE:
                await hook()

        with pytest.MonkeyPatch.context() as patch:
            after(patch, redis_store(one)._client, "run", after_delete)
            await one.store.delete_namespace(one.name)
        with pytest.raises(NamespaceNotFound):
            await one.store.delete_namespace(one.name)
    assert await garbage(redis_store(space), [space.name, made.name]) == []


async def test_deletions_at_once(shared: Shared) -> None:
    """One is made, the others find nothing; also while it is compacted."""
    spaces = await shared.spaces(3)
    for turn in range(5):
        for number in range(100 * turn + 1, 100 * turn + 40):
            await spaces[0].apply(Put("k", b"%d" % number), request_id=RequestId("c", number))
        deletions = [space.store.delete_namespace(NAME) for space in spaces]
        async with asyncio.timeout(20):
            compactions = [space.compact() for space in spaces]
            found = await asyncio.gather(*deletions, *compactions, return_exceptions=True)
        assert [type(one) for one in found[:3]].count(NamespaceNotFound) == 2
        assert {type(one) for one in found} <= {NamespaceNotFound, type(None), int}


async def test_a_deletion_beside_one_who_writes_at_another_server(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets no other write come first twice."""
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    space, other = await shared.spaces()
    await space.put("k")
    tries = 0

    async def overtake(script: Any, *_: Any) -> None:
        nonlocal tries
        if script is CLAIM:
            tries += 1
            if tries == 1:
                await other.put("k", b"other")
                waiting.clear()
            else:
                writes.append(asyncio.create_task(other.put("k", b"late")))
                await until(lambda: bool(waiting))

    async def wait(script: Any, names: Any, *_: Any) -> None:
        if script is APPEND:
            waiting.append(1)

    writes: list[asyncio.Task[int]] = []
    waiting: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", overtake)
        after(patch, redis_store(other)._client, "run", wait)
        async with asyncio.timeout(20):
            await space.store.delete_namespace(NAME)
    assert tries == 2
    assert await writes[0] == 4, "it is written to what begins after the deletion"
    assert await Space(await shared.open(), NAME).contents() == {"k": b"late"}


async def test_a_deletion_that_is_refused_holds_up_nobody(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    space, other = await shared.spaces()
    await space.put("k")
    overtakes = once(lambda: other.put("k", b"other"))

    async def overtake(script: Any, *_: Any) -> None:
        if script is CLAIM:
            await overtakes()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", overtake)
        with pytest.raises(Conflict):
            await space.store.delete_namespace(NAME, 1)
    assert await other.put("k") == 3
    await other.store.delete_namespace(NAME)


@pytest.mark.parametrize("what", ["compact", "delete"])
async def test_a_store_that_is_closed_ends_what_it_has_begun(shared: Shared, what: str) -> None:
    """Though nobody waits for it any more."""
    space, other = await shared.spaces()
    for _ in range(3):
        await space.put("k")
    claimed = asyncio.Event()

    async def claim(script: Any, *_: Any) -> None:
        if script is CLAIM:
            claimed.set()
            await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", claim)
        work = space.store.delete_namespace(NAME) if what == "delete" else space.compact()
        asking = asyncio.ensure_future(work)
        await claimed.wait()
        asking.cancel()
        await redis_store(space).close()
    meta = await redis_store(other)._replicas.meta(NAME)
    assert not meta.exists if what == "delete" else meta.base == 3


@pytest.mark.parametrize("what", ["compact", "delete"])
async def test_a_claim_whose_answer_is_lost(shared: Shared, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    (space,) = await shared.spaces(1)
    for _ in range(2):
        await space.put("k")

    async def lost() -> None:
        raise Passing(StoreUnavailable("the answer is lost"))

    loses = once(lost)

    async def after_claim(script: Any, *_: Any) -> None:
        if script is CLAIM:
            await loses()

    with pytest.MonkeyPatch.context() as patch:
        after(patch, redis_store(space)._client, "run", after_claim)
        async with asyncio.timeout(20):
            if what == "delete":
                await space.store.delete_namespace(NAME)
            else:
                await space.compact()
    if what == "compact":
        assert (await redis_store(space)._replicas.meta(NAME)).base == 2


async def marked(space: Space, mark: str, ahead: int) -> None:
    """As by another server, when the clock of Redis was ahead by so many seconds."""
    store = redis_store(space)
    at = store.time() // 1000 + ahead * 1000
    await store._client.call("HSET", Keys(store._target.prefix, NAME).meta, "mark", mark, "marked", at)


async def test_claims_from_a_clock_that_was_ahead(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    (space,) = await shared.spaces(1)
    for _ in range(2):
        await space.put("k")
    await marked(space, "c00", 3600)
    await space.compact()
    assert (await redis_store(space)._replicas.meta(NAME)).base == 2
    await marked(space, "d00", 3600)
    assert await space.put("k") == 3
    async with asyncio.timeout(20):
        await space.store.delete_namespace(NAME)


async def test_a_deletion_that_another_server_does_not_end(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 60.0)
    monkeypatch.setattr("comity_server.stores.redis.store.DELETION_SECONDS", 0.0)
    (space,) = await shared.spaces(1)
    await space.put("k")
    await marked(space, "d00", -1)
    with pytest.raises(StoreUnavailable):
        await space.store.delete_namespace(NAME)


async def test_outcomes_of_deleted_namespaces_go_by_themselves(shared: Shared) -> None:
    space, other = await shared.spaces()
    named = Transaction(then=[Put("k", b"1")], request_id=RequestId("c", 1))
    await space.commit(named)
    await space.store.delete_namespace(NAME)
    name = Keys(redis_store(space)._target.prefix, NAME).requests
    (seconds,) = (await keys_like(space, "requests")).values()
    assert 0 < seconds <= Limits().request_window + 1
    for one in (other, *await shared.spaces(1)):
        outcome = await one.commit(named)
        assert outcome.revision == 1
    await other.put("k", b"2")
    await other.compact()
    assert await keys_like(space, "requests") == {name: -1}


async def test_a_counter_that_comes_where_a_namespace_has_begun_changes_nothing(shared: Shared) -> None:
    """Not even for how long its outcomes are remembered."""
    (space,) = await shared.spaces(1)
    await space.apply(Put("k", b""), request_id=RequestId("c", 1))
    await space.compact()
    before = await keys_like(space, "requests")
    coming = Requests(Limits())
    coming.remember(RequestId("theirs", 1), 0, Outcome(True, 9, ()), 0.0)
    counter = Counter(NAME, 9, 0, coming)
    assert await redis_store(space).arrivals().raise_counters([counter]) == [NAME]
    assert await keys_like(space, "requests") == before
    assert (await Space(await shared.open(), NAME).position()).revision == 1
    new = await redis_store(space)._client.call("HKEYS", Keys(redis_store(space)._target.prefix, NAME).requests)
    assert not [field for field in new if field.startswith(b"theirs")]


async def test_clients_that_are_long_silent_do_not_come_back(shared: Shared) -> None:
    """With a load, as long as the log has what they wrote; but of the others nothing is forgotten."""
    (space,) = await shared.spaces(1)
    store = redis_store(space)
    begun, window = store.time(), int(Limits().request_window * 1e6)
    revisions: dict[RequestId, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        for at, clients in ((0, ("old", "both")), (window - 1, ("both", "new")), (window + 1, ("last",))):
            patch.setattr(store, "time", lambda at=at: begun + at)
            for client in clients:
                request = RequestId(client, 1 + at)
                revisions[request] = (await space.apply(Put("k", b""), request_id=request)).revision
    (new,) = await shared.spaces(1)
    state = await redis_store(new)._replicas.fresh(NAME)
    assert sorted(state.requests.names()) == ["both", "last", "new"]
    for request, revision in revisions.items():
        if request.client != "old":
            assert (await new.apply(Put("k", b""), request_id=request)).revision == revision


async def test_a_compaction_that_nobody_ends_is_gone_on_with(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CLAIM_SECONDS", 0.0)
    for step in range(1, 12):
        space, other = (one.sibling(str(step)) for one in await shared.spaces())
        first = Transaction(then=[Put(f"k{number:02}", b"") for number in range(30)], request_id=RequestId("c", 1))
        await space.commit(first)
        await space.checkpoint("mark")
        await space.put("k00", b"2")
        await other.position()
        calls = 0

        async def die(*_: Any, step: int = step, **__: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == step:
                raise asyncio.CancelledError

        dying = await shared.open()
        with pytest.MonkeyPatch.context() as patch:
            before(patch, dying._client, "run", die)
            with pytest.raises(asyncio.CancelledError):
                await _compact(dying, space.name)
        await other.put("k01", b"3")
        await other.drop("mark")
        assert await compacted(other, *(f"{NAME}.{earlier}" for earlier in range(1, step))) == []
        for store in (await shared.open(), redis_store(space)):
            assert len(await Space(store, space.name).keys()) == 30
            (again,) = await store.commit(space.name, [first])
            assert isinstance(again, Outcome)
            assert again.revision == 1


async def _compact(store: RedisStore, name: str) -> None:
    """As `compact` does, which would go on to the end."""
    state = await store._replicas.fresh(name)
    await store._compact(state, state.revision)
