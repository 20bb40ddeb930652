"""Forks that several servers make, use and delete: what they share stays, and nobody waits for ever."""

import asyncio
from typing import Any

import pytest

from comity_server.errors import Compacted, NamespaceExists, NamespaceNotFound, StateError, StoreUnavailable
from comity_server.limits import Retention
from comity_server.model import Fork, Outcome, Put, Transaction
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.redis import holds, patience
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.journal import APPEND
from tests.contract.space import Space
from tests.redis_servers import RedisServer, program
from tests.stores.sharing import Shared, after, before, once, raise_floor, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


async def fork(space: Space, parent: Space) -> Outcome | StateError:
    (outcome,) = await space.group(Fork(parent=parent.name))
    return outcome


async def test_names_that_go_round(shared: Shared) -> None:
    """What is forked from a fork may have the name of what that one was forked from."""
    (first,) = await shared.spaces(1)
    second = first.sibling("second")
    for turn in range(3):
        await first.put(f"k{turn}")
        await fork(second, first)
        await first.store.delete_namespace(first.name)
        await fork(first, second)
        await second.store.delete_namespace(second.name)
    for one in (await shared.open(), await shared.open()):
        async with asyncio.timeout(10):
            assert await Space(one, first.name).keys() == ["k0", "k1", "k2"]


@pytest.mark.parametrize("when", ["waiting", "held"])
async def test_names_that_go_round_while_they_are_loaded(shared: Shared, when: str) -> None:
    """What a fork shares is deleted, and forked anew from that fork, while its lock is waited for or just taken."""
    spaces = await shared.spaces()
    first, second = spaces[0].sibling("first"), spaces[1].sibling("second")
    await first.put("k")
    await fork(second, first)
    new = await shared.open()
    begun, resumed = asyncio.Event(), asyncio.Event()

    async def turn() -> None:
        await first.store.delete_namespace(first.name)
        assert isinstance(await fork(first, second), Outcome)

    async def wait() -> None:
        begun.set()
        await resumed.wait()

    waits, turns = once(wait), once(turn)

    async def loads(name: str, *_: Any) -> None:
        if when == "waiting" and name == first.name:
            await waits()

    async def advances(name: str, *_: Any) -> None:
        if when == "held" and name == first.name:
            await turns()

    with pytest.MonkeyPatch.context() as patch:
        before(patch, new._replicas._loader, "load", loads)
        before(patch, new._replicas, "advance", advances)
        readers = [asyncio.create_task(Space(new, second.name).keys())]
        if when == "waiting":
            readers.insert(0, asyncio.create_task(Space(new, first.name).keys()))
            await begun.wait()
            lock = new.lock(first.name)
            await until(lambda: "waiters" in repr(lock))
            await turn()
            resumed.set()
        async with asyncio.timeout(10):
            assert {tuple(keys) for keys in await asyncio.gather(*readers)} == {("k",)}


async def test_forks_of_each_other(shared: Shared) -> None:
    """Of which none exists, so that each waits for what the other one is to be."""
    (space,) = await shared.spaces(1)
    names = [space.sibling(name) for name in "abcd"]
    async with asyncio.timeout(10):
        for _ in range(5):
            pairs = [(one, other) for one in names for other in names]
            outcomes = await asyncio.gather(*(fork(one, other) for one, other in pairs))
            assert {type(outcome) for outcome in outcomes} == {NamespaceNotFound}


async def test_a_fork_is_refused_by_what_there_is_now(shared: Shared) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    made = await space.fork("fork")
    assert isinstance(await fork(Space(other.store, made.name), other), NamespaceExists)
    await other.store.delete_namespace(made.name)
    assert isinstance(await fork(made, space), Outcome)


async def test_a_fork_of_which_nobody_knows_whether_it_was_made(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was, and what it shares stays though the server that made it has given up."""
    monkeypatch.setattr(patience, "GIVE_UP_SECONDS", 0.0)
    space, other = await shared.spaces()
    await space.put("k")
    made = space.sibling("fork")

    async def lost(script: Any, names: Any, *_: Any) -> None:
        if script is APPEND and made.name in names[0]:
            raise Passing(StoreUnavailable("the answer is lost"))

    with monkeypatch.context() as patch:
        after(patch, redis_store(space)._client, "run", lost)
        assert isinstance(await fork(made, space), StoreUnavailable)
    await other.delete("k")
    await other.compact()
    (new,) = await shared.spaces(1)
    for one in (new, other, space):
        assert await Space(one.store, made.name).keys() == ["k"]


async def test_what_comes_before_a_fork_that_cannot_be_made_is_answered(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same group: Redis goes away in between."""
    (space,) = await shared.spaces(1)
    await space.put("k")

    async def away(*_: Any) -> None:
        raise StoreUnavailable("Redis is away")

    before(monkeypatch, redis_store(space), "_want", away)
    put, *others = await space.group(
        Transaction(then=[Put("k", b"2")]), Fork(parent="other"), Transaction(then=[Put("k", b"3")])
    )
    assert isinstance(put, Outcome)
    assert put.revision == 2
    assert {type(other) for other in others} == {StoreUnavailable}
    assert await space.contents() == {"k": b"2"}


async def test_a_fork_whose_name_was_used_meanwhile(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what was held for it and its first commit."""
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    space, other = await shared.spaces()
    await space.put("k")
    made = space.sibling("fork")

    async def use() -> None:
        await Space(other.store, made.name).put("own")
        await other.store.delete_namespace(made.name)

    with monkeypatch.context() as patch:
        after(patch, redis_store(space)._holds, "take", once(use))
        assert isinstance(await fork(made, space), Outcome)
    for _ in range(3):
        await other.store.retain(space.name, Retention())
    await other.delete("k")
    await other.compact()
    assert await Space(await shared.open(), made.name).keys() == ["k"]
    await other.store.delete_namespace(made.name)
    assert not (await redis_store(other)._replicas.fresh(space.name)).heirs


async def test_what_was_held_for_a_fork_that_was_not_made_is_let_go(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    space, other = await shared.spaces()
    await space.put("k")
    made = space.sibling("fork")
    dying = await shared.open()

    async def die(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        before(patch, dying._redis, "commit", die)
        with pytest.raises(asyncio.CancelledError):
            await dying.commit(made.name, [Fork(parent=space.name)])
    assert len(redis_store(space)._replicas.find((await space.info()).name).state.heirs) == 1
    await other.position()
    for _ in range(2):
        await other.store.retain(space.name, Retention())
    await space.position()
    assert not redis_store(space)._replicas.find(space.name).state.heirs


async def test_a_fork_whose_server_stands_still_while_it_is_made(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others let go of what it holds, and compact it: so it is made of what there is then."""
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    space, other = await shared.spaces()
    await space.put("k", b"1")
    made = space.sibling("fork")

    async def go_on() -> None:
        assert len((await redis_store(other)._replicas.fresh(space.name)).heirs) == 1
        for _ in range(2):
            await other.store.retain(space.name, Retention())
        assert not (await redis_store(other)._replicas.fresh(space.name)).heirs
        await other.put("k", b"2")
        await other.compact()

    goes_on = once(go_on)

    async def stand_still(name: str, *_: Any, **__: Any) -> None:
        if name == made.name:
            await goes_on()

    with monkeypatch.context() as patch:
        before(patch, redis_store(space)._redis, "_append", stand_still)
        assert isinstance(await fork(made, space), Outcome)
    for one in (space.store, other.store, await shared.open()):
        assert await Space(one, made.name).contents() == {"k": b"2"}


async def test_a_fork_that_lacks_what_it_shares_is_not_shown(shared: Shared) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    made = await space.fork("fork")
    store = redis_store(other)
    parent = (await redis_store(space)._replicas.fresh(made.name)).parent
    assert parent is not None
    await store._replicas.fresh(space.name)
    async with store.lock(space.name):  # as if Redis had lost what holds it
        await store._redis.let_go(parent._replace(namespace=store._replicas.find(space.name).state))
    await other.delete("k")
    await other.compact()
    with pytest.raises(StoreUnavailable, match="lost"):
        await Space(await shared.open(), made.name).keys()


async def lose_pin(server: RedisServer, space: Space, child: Space) -> None:
    """Fork, and then set the parent in Redis back to before: as where only its node of a Cluster fails over."""
    with server.client() as redis:
        pattern = f"{redis_store(space)._target.prefix}:{{{space.name}}}:*"
        dumps = {key: redis.dump(key) for key in redis.keys(pattern)}
        assert isinstance(await fork(child, space), Outcome)
        redis.delete(*redis.keys(pattern))
        for key, dump in dumps.items():
            redis.restore(key, 0, dump)


@pytest.mark.parametrize("how", ["loaded", "compacted"])
async def test_what_a_fork_shares_is_held_again_where_redis_has_lost_that(
    scanned_server: RedisServer, shared: Shared, how: str
) -> None:
    """By who loads the fork, or by who has known of it and compacts its parent."""
    space, other = await shared.spaces()
    child = space.sibling("child")
    for number in range(5):
        await space.put(f"k{number}", b"old")
    await lose_pin(scanned_server, space, child)
    if how == "loaded":
        assert len(await Space(other.store, child.name).keys()) == 5
        (space,) = await shared.spaces(1)
    for number in range(5):
        await space.put(f"k{number}", b"new")
    await space.compact()
    (new,) = await shared.spaces(1)
    for one in (new, other, space):
        assert set((await Space(one.store, child.name).contents()).values()) == {b"old"}
    assert len(redis_store(new)._replicas.find(space.name).state.heirs) == 1


async def test_forks_are_looked_for_together(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and nothing is remembered of those that are gone."""
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 1e9)
    space, other = await shared.spaces()
    await space.put("k")
    for number in range(10):
        await space.fork(f"fork-{number}")
    store = redis_store(other)
    asked = 0

    async def count(*_: Any) -> None:
        nonlocal asked
        asked += 1

    state = await store._replicas.fresh(space.name)
    with monkeypatch.context() as patch:
        before(patch, store._client, "once", count)
        await store._holds.let_go_of_orphans(state)
    assert asked == 1
    with monkeypatch.context() as patch:  # as if none had ever come
        patch.setattr(holds, "_began", lambda *_: False)
        await store._holds.let_go_of_orphans(state)
    assert len(store._holds._orphans[space.name]) == 10
    await store._holds.let_go_of_orphans(state)
    assert not store._holds._orphans


@pytest.mark.parametrize("how", ["used", "unused"])
async def test_a_fork_that_another_server_deletes_holds_nothing(shared: Shared, how: str) -> None:
    """Not a revision, nor memory of who made it."""
    space, other = await shared.spaces()
    await space.put("k", bytes(100))
    made = await space.fork("fork")
    if how == "used":
        await made.put("own")
    deeper = await made.fork("deeper")
    await space.delete("k")
    await space.put("other")
    await space.compact()
    assert await deeper.keys("k") == ["k"]
    for name in (made.name, deeper.name):
        await other.store.delete_namespace(name)
    with pytest.raises(Compacted):
        await space.get("k", 1)
    await space.store.sweep()
    await space.compact()
    assert (await space.info()).history_size_bytes == 0
    assert set(redis_store(space)._replicas._replicas) == {space.name}


async def test_what_a_deleted_fork_held_is_not_named_again(shared: Shared) -> None:
    """The server that made the fork has not heard of its end, and is asked for a checkpoint of what it shared."""
    space, other = await shared.spaces()
    await space.put("k", b"1")
    made = await space.fork("fork")
    await space.put("k", b"2")
    await raise_floor(other, 2)
    await other.store.delete_namespace(made.name)
    with pytest.raises(Compacted):
        await space.checkpoint("mark", 1)


async def test_what_was_loaded_anew_shares_nothing_when_its_forks_are_gone(shared: Shared) -> None:
    space, other = await shared.spaces()
    await space.put("k")
    made = await space.fork("fork")
    deeper = await made.fork("deeper")
    store = redis_store(space)
    store._replicas.distrust(made.name)
    assert await made.keys() == await deeper.keys() == ["k"]
    assert store._replicas.find(space.name).state.forks == 2
    for name in (deeper.name, made.name):
        await other.store.delete_namespace(name)
    await store.sweep()
    assert store._replicas.find(space.name).state.forks == 0


async def test_a_parent_that_is_deleted_while_it_is_forked(shared: Shared) -> None:
    """Between what is held of it and the fork's first commit: by the server itself, or by another one."""
    for by in range(2):
        spaces = await shared.spaces()
        parent, made = (spaces[0].sibling(f"{name}{by}") for name in ("parent", "fork"))
        await parent.put("k")
        with pytest.MonkeyPatch.context() as patch:
            deletes = once(lambda of=spaces[by].store, name=parent.name: of.delete_namespace(name))  # type: ignore[misc]

            async def between(*_: Any, deletes: Any = deletes, **named: Any) -> None:
                if named.get("begins"):
                    await deletes()

            before(patch, redis_store(made)._redis, "commit", between)
            assert isinstance(await fork(made, parent), Outcome)
        for one in (await shared.open(), spaces[0].store, spaces[1].store):
            assert await Space(one, made.name).keys() == ["k"]
            assert await Space(one, parent.name).keys() == []


async def test_a_namespace_that_is_deleted_again_before_the_first_deletion_is_through(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lets go of what its own was forked from."""
    (space,) = await shared.spaces(1)
    store, parents = redis_store(space), [space.sibling(name) for name in ("one", "two")]
    reached, goes_on, lets_go = asyncio.Event(), asyncio.Event(), store._let_go

    async def late(state: Namespace) -> None:
        monkeypatch.undo()
        reached.set()
        await goes_on.wait()
        await lets_go(state)

    for parent in parents:
        await parent.put("k")
    assert isinstance(await fork(space, parents[0]), Outcome)
    monkeypatch.setattr(store, "_let_go", late)
    first = asyncio.create_task(store.delete_namespace(space.name))
    await reached.wait()
    assert isinstance(await fork(space, parents[1]), Outcome)
    await store.delete_namespace(space.name)
    goes_on.set()
    await first
    for parent in parents:
        await parent.put("k")
        assert not store.namespaces_by_name[parent.name].heirs, parent.name
