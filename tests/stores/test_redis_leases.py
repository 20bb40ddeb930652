"""Leases over Redis: several servers that grant, renew and end them, and namespaces that none of them has in memory."""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import msgpack
import pytest

from comity.v1 import lease_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.errors import Conflict, LeaseLost, LeaseNotFound, StateError, StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import Cause, Expire, Fork, Grant, Guard, Lease, Put, Revoke, Transaction, Write
from comity_server.record import KEY
from comity_server.stores.redis import codec, compaction, expiries, journal, keys, leasing, loading
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests import servers
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import RedisCluster, RedisServer, Replicated, program
from tests.stores.garbage import garbage
from tests.stores.sharing import NAME, Shared, after, before, once, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

KEEP_ALL = Retention(commits=2**40, age=1e9, history_bytes=2**50)


def keys_of(space: Space) -> keys.Keys:
    return redis_store(space)._replicas.keys(space.name)


async def call(space: Space, *command: Any) -> Any:
    return await redis_store(space)._client.call(*command)


async def run_out(space: Space, *leases: Lease | int, generation: int = 1) -> None:
    """Have the time of leases be up, and the namespace looked into."""
    for lease in leases:
        id = lease if isinstance(lease, int) else lease.id
        await call(space, "ZADD", keys_of(space).deadlines(generation), "XX", 1, id)
    await look_into(space)


async def look_into(space: Space) -> None:
    await call(space, "ZADD", keys.expiries(redis_store(space)._target.prefix), 1, space.name)


async def looked_into_at(space: Space) -> int | None:
    """When servers look into a namespace, in µs by the clock of Redis."""
    found = await call(space, "ZSCORE", keys.expiries(redis_store(space)._target.prefix), space.name)
    return None if found is None else int(float(found))


async def deadline(space: Space, lease: Lease | int) -> int:
    id = lease if isinstance(lease, int) else lease.id
    return int(float(await call(space, "ZSCORE", keys_of(space).deadlines(1), id)))


async def expire(space: Space, *leases: Lease) -> None:
    await space.commit(Expire(lease_ids=tuple(lease.id for lease in leases)))


def at(script: Any, does: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of `Client.run` that acts the first time that a script is run."""
    act = once(does)

    async def hook(run: Any, *_: Any) -> None:
        if run is script:
            await act()

    return hook


async def lives(space: Space, lease: Lease | int) -> bool:
    id = lease if isinstance(lease, int) else lease.id
    return not await space.store.ended(space.name, [id])


# Two servers


async def test_what_one_renews_the_other_does_not_end(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await one.put_with(lease, "k")
    await run_out(one, lease)
    assert list((await one.store.due()).values()) == [[lease.id]]
    assert await other.store.keep_alive(NAME, [lease.id]) == [HOUR]
    await expire(one, lease)
    assert await one.keys() == ["k"]
    assert 0 < await one.remaining(lease) <= HOUR
    assert await one.revision() == 2


async def test_what_is_renewed_while_it_is_being_ended_does_not_end(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that ends it has found that it has run out."""
    one, other = await shared.spaces()
    lease, out = await one.grant(HOUR), await one.grant(HOUR)
    await one.put_with(lease, "k")
    await one.put_with(out, "gone")
    await run_out(one, lease, out)
    renew = at(journal.APPEND, lambda: other.store.keep_alive(NAME, [lease.id]))
    before(monkeypatch, redis_store(one)._client, "run", renew)
    await expire(one, lease, out)
    assert await one.keys() == await other.keys() == ["k"]
    assert await lives(other, lease)
    assert not await lives(other, out)
    assert await one.revision() == 5


async def test_one_with_many_keys_that_is_renewed_while_it_is_being_ended(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was staged of its end goes again."""
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await one.put_with(lease, *(f"k{number}" for number in range(100)))
    await run_out(one, lease)
    renew = at(journal.APPEND, lambda: other.store.keep_alive(NAME, [lease.id]))
    with monkeypatch.context() as patch:
        before(patch, redis_store(one)._client, "run", renew)
        await expire(one, lease)
    assert await one.leases() == {lease.id: 100}
    staged = await call(one, "KEYS", f"{redis_store(one)._target.prefix}*staged*")
    assert len(staged) == await call(one, "HLEN", keys_of(one).large(1))
    await run_out(one, lease)
    await expire(one, lease)
    assert await other.keys() == []


async def test_a_guard_is_judged_by_what_others_did(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    guarded = Transaction(then=[Put("k", b"")], guard=Guard(lease.id, lease.id))
    assert (await other.commit(guarded)).revision == 2
    await one.commit(Revoke(lease_id=lease.id))  # which makes no revision
    with pytest.raises(LeaseLost):
        await other.commit(guarded)
    with pytest.raises(LeaseNotFound):
        await other.put_with(lease, "k")


async def test_a_guarded_write_under_way_is_refused_if_the_lease_ends(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    end = at(journal.APPEND, lambda: other.commit(Revoke(lease_id=lease.id)))
    before(monkeypatch, redis_store(one)._client, "run", end)
    with pytest.raises(LeaseLost):
        await one.commit(Transaction(then=[Put("k", b"")], guard=Guard(lease.id)))
    assert await other.keys() == []


async def test_both_end_a_lease_at_once_by_one_commit(shared: Shared) -> None:
    spaces = await shared.spaces(3)
    lease = await spaces[0].grant(HOUR, author="ann")
    await spaces[1].put_with(lease, "a", "b")
    await run_out(spaces[0], lease)
    await asyncio.gather(*(expire(space, lease) for space in spaces))
    for space in spaces:
        assert await space.revision() == 3
        commit = (await space.log())[-1]
        assert commit.message == f"lease {lease.id} of ann expired"
        assert {(event.entry[KEY], event.cause) for event in commit.events} == {
            ("a", Cause.LEASE_EXPIRY),
            ("b", Cause.LEASE_EXPIRY),
        }
        assert await space.leases() == {}
        assert await space.expire() == []


async def test_a_namespace_is_looked_into_by_one_at_a_time(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await run_out(one, lease)
    found = await asyncio.gather(one.store.due(), other.store.due())
    assert sorted(map(len, found)) == [0, 1]


async def test_another_looks_where_one_did_not_end_what_it_found(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await run_out(one, lease)
    assert await one.store.due() == {NAME: [lease.id]}

    async def is_found() -> bool:
        return await other.store.due() == {NAME: [lease.id]}

    await until(is_found)


async def test_time_that_is_left_is_the_same_at_each(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    first = await one.remaining(lease)
    assert first - SECOND * 30 < await other.remaining(lease) <= first
    own = await other.put_for(SECOND * 60, "k")
    (_, info) = await one.store.leases(NAME, limit=10)
    assert (info.lease.id, info.lease.ends_with_keys, info.key_count) == (own, True, 1)
    assert 0 < info.remaining <= SECOND * 60


async def test_leases_end_with_their_namespace(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await one.put_with(lease, "k")
    assert await other.keys() == ["k"]
    await one.store.delete_namespace(NAME)
    assert await other.store.keep_alive(NAME, [lease.id]) == [0]
    assert not await lives(other, lease)
    again = await one.grant(HOUR)
    assert again.id > lease.id
    assert await other.store.keep_alive(NAME, [lease.id, again.id]) == [0, HOUR]
    await run_out(one, again, generation=2)
    assert await other.expire() == [again.id]
    assert await other.leases() == {}


async def test_of_a_deleted_namespace_nothing_is_left_of_leases(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.put_with(await space.grant(HOUR), "k")
    fork = await space.fork("fork")
    await space.store.delete_namespace(NAME)
    of = keys_of(space)
    assert not await call(space, "EXISTS", of.leases(1), of.deadlines(1))
    await look_into(space)
    assert await space.expire() == []
    assert await looked_into_at(space) is None
    other = Space(await shared.open(), fork.name)
    assert await other.keys() == ["k"]
    assert await other.leases() == {}
    await fork.store.delete_namespace(fork.name)
    assert not await call(space, "KEYS", f"{redis_store(space)._target.prefix}*leases*")


# When servers look


async def test_a_namespace_that_nobody_has_in_memory_is_seen_to(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    began = time.monotonic()
    await space.put_for(SECOND // 5, "k")
    await redis_store(space).close()
    shared._stores.clear()
    other = Space(await shared.open(), NAME)
    await until(other.expire)  # type: ignore[arg-type]
    assert time.monotonic() - began >= 0.2
    assert await other.keys() == []


async def test_none_ends_early_whatever_servers_believe(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    for space in (one, other):
        redis_store(space)._health.ahead += 2 * HOUR
        held = redis_store(space).state(NAME).leases.get(lease.id)
        if held is not None:
            held.deadline = 0
        assert await space.store.due() == {}
        await expire(space, lease)
        assert await lives(space, lease)


async def test_what_is_renewed_is_looked_into_later(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    await look_into(one)
    assert await other.store.due() == {}
    found = await looked_into_at(one)
    assert found is not None
    assert abs(found - await deadline(one, lease)) < 30 * SECOND
    await one.commit(Revoke(lease_id=lease.id))
    await look_into(one)
    assert await other.store.due() == {}
    assert await looked_into_at(one) is None


@pytest.mark.parametrize("hook", [before, after])
async def test_what_is_granted_while_one_looks_is_not_forgotten(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, hook: Any
) -> None:
    """Another server that has a lease looked for is not heard, since the one that looks is about to anyway."""
    one, other = await shared.spaces()
    await one.grant(HOUR)
    await look_into(one)
    granted: list[Lease] = []

    async def grant() -> None:
        granted.append(await other.grant(60 * SECOND))

    hook(monkeypatch, redis_store(one)._client, "run", at(expiries.DOZE, grant))
    assert await one.store.due() == {}
    found = await looked_into_at(one)
    assert found is not None
    assert found <= await deadline(other, granted[0]) + SECOND


async def test_what_is_granted_where_the_last_has_ended_is_not_forgotten(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await shared.spaces()
    await one.put("k")
    await look_into(one)
    before(monkeypatch, redis_store(one)._client, "run", at(expiries.DOZE, other.grant))
    assert await one.store.due() == {}
    assert await looked_into_at(one) is not None


async def test_grants_after_another_one_are_looked_for_without_saying_so(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as somebody looks early enough for them."""
    (space,) = await shared.spaces(1)
    said = 0

    async def count(script: Any, *_: Any) -> None:
        nonlocal said
        said += script is expiries.WAKE

    before(monkeypatch, redis_store(space)._client, "run", count)
    for _ in range(5):
        await space.grant(HOUR)
    assert said == 1
    await space.grant(60 * SECOND)
    assert said == 2
    await space.grant(HOUR)
    assert said == 2
    said = 0
    await look_into(space)
    assert await space.store.due() == {}  # from then on others may have said otherwise
    await space.grant(HOUR)
    assert said == 1


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_what_redis_has_lost_of_when_to_look_is_said_again(shared: Shared, is_loaded: bool) -> None:
    (space,) = await shared.spaces(1)
    await space.grant(60 * SECOND)
    await call(space, "DEL", keys.expiries(redis_store(space)._target.prefix))
    other = Space(await shared.open(), NAME)
    if is_loaded:
        await other.revision()
    await other.store.retain(NAME, KEEP_ALL)
    assert redis_store(other)._replicas.known(NAME) is not None or not is_loaded
    found = await looked_into_at(space)
    assert found is not None
    assert abs(found - await deadline(space, 1)) < 30 * SECOND


async def test_where_nothing_lives_by_a_lease_no_question_is_asked(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    (space,) = await shared.spaces(1)
    await space.commit(Revoke(lease_id=(await space.grant(HOUR)).id))

    async def refuse(*_: Any) -> None:
        raise AssertionError

    before(monkeypatch, redis_store(space)._client, "look_by_all", refuse)
    await space.store.retain(NAME, KEEP_ALL)
    other = await shared.open()
    before(monkeypatch, other._client, "look_by_all", refuse)
    await other.retain(NAME, KEEP_ALL)
    assert await call(space, "HGET", keys_of(space).meta, "leases") == b"0"


async def test_what_cannot_be_said_at_once_is_said_later(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    (space,) = await shared.spaces(1)

    async def fail(script: Any, *_: Any) -> None:
        if script is expiries.WAKE:
            raise StoreUnavailable("Redis is away")

    with pytest.MonkeyPatch.context() as patch:
        before(patch, redis_store(space)._client, "run", fail)
        await space.grant(HOUR)
        assert await looked_into_at(space) is None
        with pytest.raises(StoreUnavailable):
            await space.store.due()
    assert await space.store.due() == {}
    assert await looked_into_at(space) is not None


async def test_what_another_program_wrote_keeps_nothing_from_other_namespaces(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    lease = await space.grant(HOUR)
    of = redis_store(space)._replicas.keys("broken")
    key = keys.expiries(redis_store(space)._target.prefix)
    await call(space, "SET", of.deadlines(1), "else")
    for member in ("broken", b"\xff", "a}b{c", ""):
        await call(space, "ZADD", key, 0, member)
    await run_out(space, lease)
    assert await space.store.due() == {NAME: [lease.id]}
    assert space.store.writable()
    assert await space.expire() == []  # they are not looked at again and again


async def test_what_another_program_wrote_of_a_lease_is_told(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    lease = await space.grant(HOUR)
    await call(space, "HSET", keys_of(space).leases(1), lease.id, "else")
    assert await space.store.keep_alive(NAME, [lease.id]) == [0]
    with pytest.raises(StoreUnavailable):
        await (await shared.open()).position(NAME)


async def test_many_that_run_out_at_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "LEASES", 7)
    monkeypatch.setattr(expiries, "LEAST", 1)
    monkeypatch.setattr(leasing, "LEASES", 3)
    one, other = await shared.spaces()
    leases = [await one.grant(HOUR) for _ in range(20)]
    await run_out(one, *leases)
    ended: list[int] = []

    async def all_ended() -> bool:
        ended.extend(await other.expire())
        return len(ended) == 20

    await until(all_ended)
    assert sorted(ended) == [lease.id for lease in leases]
    assert await one.leases() == {}
    assert await other.store.keep_alive(NAME, [lease.id for lease in leases]) == [0] * 20


async def test_many_namespaces_at_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "NAMESPACES", 3)
    store = await shared.open()
    spaces = [Space(store, f"n{number}") for number in range(10)]
    for space in spaces:
        await run_out(space, await space.grant(HOUR))
    found: set[str] = set()

    async def all_found() -> bool:
        due = await store.due()
        assert len(due) <= 3
        found.update(due)
        return len(found) == 10

    await until(all_found)


async def test_many_namespaces_cost_few_round_trips(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await shared.open()
    spaces = [Space(store, f"n{number}") for number in range(50)]
    for space in spaces:
        await run_out(space, await space.grant(HOUR))
    trips = 0

    async def count(*_: Any) -> None:
        nonlocal trips
        trips += 1

    before(monkeypatch, store._client, "once", count)
    due = await store.due()
    assert due == {space.name: [1] for space in spaces}
    assert trips <= 3
    for name, ids in due.items():
        await store.commit(name, [Expire(lease_ids=tuple(ids))])
    assert trips <= 3 + len(spaces)
    for space in spaces:
        await look_into(space)
    assert await store.due() == {}
    assert trips <= 3 + len(spaces) + len(spaces) + 5  # to have them looked into is a trip each


async def test_namespaces_without_any_do_not_have_others_wait_for_the_next_look(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "NAMESPACES", 3)
    store = await shared.open()
    for number in range(10):
        space = Space(store, f"a{number}")
        await space.grant(HOUR)
        await look_into(space)
    space = Space(store, "z")
    await run_out(space, await space.grant(HOUR))
    assert await store.due() == {"z": [1]}


async def test_those_that_are_too_many_for_one_look_are_told_by_the_next(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "LEASES", 3)
    monkeypatch.setattr(expiries, "LEAST", 1)
    monkeypatch.setattr(expiries, "AGAIN", HOUR)
    store = await shared.open()
    many, few = Space(store, "many"), Space(store, "few")
    await run_out(many, *[await many.grant(HOUR) for _ in range(7)])
    assert await many.expire() == [1, 2, 3]
    await run_out(few, *[await few.grant(HOUR) for _ in range(2)])
    told: list[tuple[int, int]] = []
    for _ in range(5):
        due = await store.due()
        told.append((len(due.get("many", ())), len(due.get("few", ()))))
        for name, ids in due.items():
            await store.commit(name, [Expire(lease_ids=tuple(ids))])
    assert told == [(1, 1), (1, 1), (1, 0), (1, 0), (0, 0)]


async def test_redis_is_not_asked_once_more_before_it_ends_what_it_has_told(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    (space,) = await shared.spaces(1)
    await run_out(space, await space.grant(HOUR))
    due = await space.store.due()

    async def refuse(*_: Any) -> None:
        raise AssertionError

    before(monkeypatch, redis_store(space)._client, "look_by", refuse)
    await space.commit(Expire(lease_ids=tuple(due[NAME])))
    assert await space.leases() == {}


async def test_deadlines_that_are_of_no_lease_are_dropped(shared: Shared) -> None:
    """Another program wrote them."""
    (space,) = await shared.spaces(1)
    lease = await space.grant(HOUR)
    key = keys_of(space).deadlines(1)
    for member, at_time in (("77", 1), ("else", 2), (b"\xff", "-inf"), ("78", "+inf")):
        await call(space, "ZADD", key, at_time, member)
    await look_into(space)
    assert await space.store.due() == {}
    assert await call(space, "ZRANGE", key, 0, -1) == [b"%d" % lease.id, b"78"]
    found = await looked_into_at(space)
    assert found is not None
    assert abs(found - await deadline(space, lease)) < 30 * SECOND
    await run_out(space, lease)
    assert await space.expire() == [lease.id]


async def test_a_node_that_does_not_answer_keeps_nothing_from_the_others(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "AGAIN", HOUR)
    monkeypatch.setattr(expiries, "LOOK_SECONDS", 0.01)
    shared = Shared(f"{redis_cluster.url}?prefix=t-{time.time_ns()}")
    store = await shared.open()
    by_port: dict[int, list[Space]] = {}
    for space in (Space(store, f"n{number}") for number in range(9)):
        await run_out(space, await space.grant(HOUR))
        by_port.setdefault(redis_cluster.master_of(keys_of(space).meta).port, []).append(space)
    slow, refused, well = ([space.name for space in spaces] for spaces in by_port.values())
    answers = asyncio.Event()

    async def wait(_: Any, calls: Any) -> None:
        if f"{{{slow[0]}}}" in str(calls):
            await answers.wait()
        if f"{{{refused[0]}}}" in str(calls):
            raise StoreUnavailable("Redis refused")

    before(monkeypatch, store._client, "look_by_all", wait)
    found: dict[str, Any] = {}

    async def has(names: list[str]) -> bool:
        found.update(await store.due())
        return set(names) <= set(found)

    await until(lambda: has(well))
    assert found == {name: [1] for name in well}
    answers.set()
    await until(lambda: has(slow))
    assert found == {name: [1] for name in [*well, *slow]}
    await shared.close()


async def test_a_slot_that_is_moved_keeps_nothing_from_the_others_of_its_node(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "AGAIN", HOUR)
    shared = Shared(f"{redis_cluster.url}?prefix=t-{time.time_ns()}")
    store = await shared.open()
    by_port: dict[int, list[Space]] = {}
    for space in (Space(store, f"n{number}") for number in range(9)):
        await space.grant(HOUR)
        by_port.setdefault(redis_cluster.master_of(keys_of(space).meta).port, []).append(space)
    moved, *others = max(by_port.values(), key=len)
    await moved.commit(Revoke(lease_id=1))  # so that a key of its slot is missing
    with redis_cluster.moving(keys_of(moved).meta):
        await look_into(moved)
        for space in others:
            await run_out(space, 1)
        found: dict[str, Any] = {}

        async def has_all() -> bool:
            found.update(await store.due())
            return len(found) == len(others)

        await until(has_all)
    assert found == {space.name: [1] for space in others}
    assert await moved.expire() == []
    await shared.close()


async def test_a_store_ends_while_it_looks(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "LOOK_SECONDS", 0.01)
    (space,) = await shared.spaces(1)
    await run_out(space, await space.grant(HOUR))
    before(monkeypatch, redis_store(space)._client, "look_by_all", lambda *_: asyncio.Event().wait())
    assert await space.store.due() == {}
    await redis_store(space).close()
    assert not [task for task in asyncio.all_tasks() if "_due_of" in repr(task)]


# What the log has of them


async def test_a_long_entry_with_leases(shared: Shared) -> None:
    one, other = await shared.spaces()
    id = await one.put_for(HOUR, *(f"k{number}" for number in range(20)), value=bytes(500))
    assert await call(one, "HLEN", keys_of(one).large(1)) == 1
    assert await other.leases() == {id: 20}
    assert await Space(await shared.open(), NAME).leases() == {id: 20}
    await run_out(one, id)
    assert await other.expire() == [id]
    assert await one.keys() == []


@pytest.mark.parametrize("step", ["load_leases", "load_base", "load_checkpoints", "load_log", "load_requests"])
@pytest.mark.parametrize("compacts", [False, True])
async def test_leases_that_come_and_go_while_others_load(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, step: str, compacts: bool
) -> None:
    (space,) = await shared.spaces(1)
    stays, goes, moves = [await space.grant(HOUR) for _ in range(3)]
    await space.put_with(stays, "stays")
    await space.put_with(goes, "goes")
    await space.put_with(moves, "moves")
    await space.compact()
    came: list[Lease] = []

    async def come_and_go() -> None:
        came.append(await space.grant(HOUR))
        await space.put_with(came[0], "came", "moves")
        brief = await space.grant(HOUR)
        await space.put_with(brief, "brief")
        await space.revoke(brief)
        await space.revoke(goes)
        await space.put_for(HOUR, "own")
        if compacts:
            await space.compact()

    before(monkeypatch, loading._Loading, step, once(come_and_go))
    other = Space(await shared.open(), NAME)
    await other.revision()
    assert await other.leases() == await space.leases()
    assert (await other.leases())[came[0].id] == 2
    assert await other.keys() == ["came", "moves", "own", "stays"]
    await run_out(space, came[0])
    assert await other.expire() == [came[0].id]
    assert await space.keys() == await other.keys() == ["own", "stays"]


async def test_leases_outlive_what_the_log_has_of_them(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR, author="ann with  blanks")
    await one.put_with(lease, "k")
    own = await one.put_for(HOUR, "own")
    for _ in range(10):
        await one.commit(Revoke(lease_id=(await one.grant(HOUR)).id))
    await one.compact()
    await one.store.retain(NAME, KEEP_ALL)
    assert await call(one, "XLEN", keys_of(one).log(1)) <= compaction.SPARE
    late = Space(await shared.open(), NAME)
    for space in (other, late):
        assert await space.leases() == {lease.id: 1, own: 1}
        found, _, _ = await space.store.lease(NAME, lease.id)
        assert found == lease
    await late.put("own")
    assert await other.leases() == {lease.id: 1}
    await other.revoke(lease)
    await other.compact()
    assert await garbage(redis_store(other), [NAME], spare=20) == []


async def test_ends_without_a_revision_are_heard_by_others(shared: Shared) -> None:
    one, other = await shared.spaces()
    lease = await one.grant(HOUR)
    assert await other.leases() == {lease.id: 0}
    await one.revoke(lease)
    assert await other.leases() == {}
    assert await other.revision() == 1
    assert await Space(await shared.open(), NAME).leases() == {}


async def test_entries_that_say_nothing_of_leases_are_read() -> None:
    """As servers have written them that knew of none."""
    entry = codec.unpack_entry(msgpack.packb((b"token", 1, [], [], [], None)))
    assert entry.leases == codec.Leases([], ())


async def test_a_lease_as_it_is_kept() -> None:
    for lease in (Lease(2**53, HOUR, "", 0), Lease(1, 1, " é \n\0", 2**52, ends_with_keys=True)):
        assert codec.unpack_lease(b"%d" % lease.id, codec.pack_lease(lease)) == lease


async def test_a_group_with_all_that_can_become_of_leases(shared: Shared) -> None:
    one, other = await shared.spaces()
    first = await one.grant(HOUR)
    writes: list[Write] = [
        Grant(ttl=HOUR),  # 2
        Transaction(then=[Put("a", b"", ttl=SECOND * 60)]),  # 3
        Transaction(then=[Put("a", b"", lease_id=2)]),  # 4, and 3 ends
        Revoke(lease_id=first.id),
        Transaction(then=[Put("b", b"")], guard=Guard(first.id)),
        Revoke(lease_id=2),  # 5
        Transaction(then=[Put("c", b"", ttl=SECOND * 60)]),  # 6
    ]
    outcomes = await one.group(*writes)
    assert [type(one) for one in outcomes if isinstance(one, StateError)] == [LeaseLost]
    for space in (one, other, Space(await shared.open(), NAME)):
        assert await space.leases() == {6: 1}
        assert await space.keys() == ["c"]
    of = keys_of(one)
    assert await call(one, "HKEYS", of.leases(1)) == [b"6"]
    assert await call(one, "ZRANGE", of.deadlines(1), 0, -1) == [b"6"]


async def test_an_answer_that_was_lost_is_found_in_the_log(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt finds that the lease has ended, by the first."""
    (space,) = await shared.spaces(1)
    lease = await space.grant(HOUR)
    await space.put_with(lease, "k")
    await run_out(space, lease)

    async def lose() -> None:
        raise Passing(StoreUnavailable("Redis cannot be reached"))

    after(monkeypatch, redis_store(space)._client, "run", at(journal.APPEND, lose))
    await expire(space, lease)
    assert await space.revision() == 3
    assert await space.leases() == {}


async def test_a_fork_has_none_of_the_leases(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    lease = await space.grant(HOUR)
    await space.put_with(lease, "k")
    fork = await space.fork("fork")
    other = Space(await shared.open(), fork.name)
    assert await other.leases() == {}
    assert await other.store.keep_alive(fork.name, [lease.id]) == [0]
    await space.revoke(lease)
    assert await other.keys() == ["k"]
    own = await fork.grant(HOUR)
    await other.put_with(own, "k")
    await run_out(fork, own)
    assert await other.expire() == [own.id]
    assert await fork.keys() == []


async def test_a_fork_begins_above_the_leases_of_one_that_had_its_name(shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    fork = space.sibling("fork")
    lease = await fork.grant(HOUR)
    with pytest.raises(Conflict):
        await fork.store.delete_namespace(fork.name, 7)
    await fork.store.delete_namespace(fork.name)
    await fork.commit(Fork(parent=NAME))
    assert await fork.leases() == {}
    assert (await fork.grant(HOUR)).id > lease.id


# What may happen to Redis and to servers


async def test_renewals_and_ends_go_on_where_redis_is_full() -> None:
    with RedisServer("--appendonly", "no") as server:
        shared = Shared(server.url)
        (space,) = await shared.spaces(1)
        lease = await space.grant(HOUR)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        assert await space.store.keep_alive(NAME, [lease.id]) == [HOUR]
        await shared.close()


async def test_leases_that_redis_starts_again_with() -> None:
    """Their time has gone on."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        shared = Shared(server.url)
        one, other = await shared.spaces()
        brief, lease = await one.grant(SECOND // 2), await one.grant(HOUR)
        await one.put_with(brief, "brief")
        await one.put_with(lease, "long")
        server.kill()
        with pytest.raises(StoreUnavailable):
            await one.store.due()
        with pytest.raises(StoreUnavailable):
            await one.store.keep_alive(NAME, [lease.id])
        server.start()
        ended: list[int] = []

        async def is_through() -> bool:
            with suppress(StoreUnavailable):
                ended.extend(await other.expire())
            return bool(ended)

        await until(is_through)
        assert ended == [brief.id]
        assert await one.keys() == ["long"]
        assert await one.store.keep_alive(NAME, [brief.id, lease.id]) == [0, HOUR]
        await shared.close()


async def test_leases_that_redis_has_lost() -> None:
    """What it has of them counts, and servers do not go on as if they had it still."""
    with RedisServer("--appendonly", "no") as server:
        shared = Shared(server.url)
        one, other = await shared.spaces()
        kept, gone = await one.grant(HOUR), await one.grant(HOUR)
        await one.put_with(kept, "kept")
        with server.client() as client:
            client.save()
        await one.revoke(gone)
        lost = await one.grant(HOUR)
        await one.put_with(lost, "lost")
        assert await other.leases() == {kept.id: 1, lost.id: 1}
        server.kill()
        server.start()
        assert await one.store.keep_alive(NAME, [kept.id, gone.id, lost.id]) == [HOUR, HOUR, 0]
        with pytest.raises(LeaseLost):
            await one.commit(Transaction(then=[Put("k", b"")], guard=Guard(lost.id)))
        for space in (one, other):
            assert await space.leases() == {kept.id: 1, gone.id: 0}
            assert await space.keys() == ["kept"]
        await run_out(other, kept, gone)
        assert await one.expire() == [kept.id, gone.id]
        assert await other.keys() == []
        await shared.close()


async def test_replicas_that_are_waited_for_have_renewals(replicated: Replicated) -> None:
    target = parse(f"{replicated.url}?prefix=t-{uuid.uuid4().hex}")
    store = RedisStore(target, Limits(), wait_replicas=2)
    await store.open()
    space = Space(store, NAME)
    lease = await space.grant(HOUR)
    await run_out(space, lease)
    assert await store.keep_alive(NAME, [lease.id]) == [HOUR]
    deadlines = [_deadline(server, keys_of(space).deadlines(1), lease) for server in replicated.servers]
    assert len(set(deadlines)) == 1
    assert deadlines[0] > 1
    await store.close()
    strict = RedisStore(target, Limits(), wait_replicas=3)
    await strict.open()
    with pytest.raises(StoreUnavailable):
        await strict.keep_alive(NAME, [lease.id])
    await strict.close()


def _deadline(server: RedisServer, key: str, lease: Lease) -> float:
    with server.client() as client:
        score = client.zscore(key, str(lease.id))
    assert isinstance(score, float)
    return score


async def test_leases_on_each_node_of_a_cluster(redis_cluster: RedisCluster) -> None:
    shared = Shared(f"{redis_cluster.url}?prefix=t-{time.time_ns()}")
    one, other = await shared.open(), await shared.open()
    spaces = [Space(one, f"n{number}") for number in range(9)]
    for space in spaces:
        await space.put_for(SECOND // 5, "k")
        await space.put_for(HOUR, "stays")
    assert len({redis_cluster.master_of(keys_of(space).meta).port for space in spaces}) == 3
    ended: set[str] = set()

    async def all_ended() -> bool:
        for name, ids in (await other.due()).items():
            assert ids == [1]
            await Space(other, name).commit(Expire(lease_ids=tuple(ids)))
            ended.add(name)
        return len(ended) == len(spaces)

    await until(all_ended)
    for space in spaces:
        assert await space.keys() == ["stays"]
        assert (await other.keep_alive(space.name, [1, 2]))[0] == 0
    await shared.close()


class Stubs:
    """Of one server process."""

    def __init__(self, server: servers.Server) -> None:
        self._channel = grpc.insecure_channel(server.address)
        self.state: Any = state_pb2_grpc.StateServiceStub(self._channel)
        self.leases: Any = lease_pb2_grpc.LeaseServiceStub(self._channel)

    def has(self, key: str) -> bool:
        return bool(self.state.Get(s.GetRequest(namespace=NAME, key=key), timeout=30).HasField("entry"))

    def close(self) -> None:
        self._channel.close()


async def test_a_server_that_is_killed_leaves_its_leases_to_another(redis_server: RedisServer) -> None:
    """Neither early, nor never. The other one has not been asked for the namespace."""
    prefix = f"t-{uuid.uuid4().hex}"
    url = f"{redis_server.url}?prefix={prefix}"
    with servers.start("--store", url) as one, servers.start("--store", url) as other, redis_server.client() as redis:
        first, second = Stubs(one), Stubs(other)
        put = s.PutRequest(namespace=NAME, key="k", value=b"v")
        put.ttl.FromMilliseconds(1500)
        began = time.monotonic()
        first.state.Put(put, timeout=30)
        one.kill()
        leases = keys.Keys(prefix, NAME).leases(1)
        assert redis.exists(leases)
        await until(lambda: not redis.exists(leases))
        assert time.monotonic() - began >= 1.5
        assert not second.has("k")
        first.close()
        second.close()


async def test_all_servers_that_are_killed_at_once(redis_url: str) -> None:
    with servers.start("--store", redis_url) as server:
        stubs = Stubs(server)
        for key, milliseconds in (("brief", 1000), ("long", 3_600_000)):
            put = s.PutRequest(namespace=NAME, key=key, value=b"v")
            put.ttl.FromMilliseconds(milliseconds)
            stubs.state.Put(put, timeout=30)
        server.kill()
        server.restart()
        stubs.close()
        stubs = Stubs(server)
        await until(lambda: not stubs.has("brief"))
        assert stubs.has("long")
        stubs.close()
