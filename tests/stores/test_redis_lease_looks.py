"""When servers look which leases of a Redis have ended."""

import asyncio
import time
from typing import Any

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.model import Expire, Lease, Revoke
from comity_server.stores.redis import expiries, keys, leasing
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import RedisCluster, program
from tests.stores.leases import KEEP_ALL, at, call, expire, keys_of, lives, look_into, looked_into_at, run_out
from tests.stores.sharing import NAME, Shared, after, before, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


async def deadline(space: Space, lease: Lease | int) -> int:
    id = lease if isinstance(lease, int) else lease.id
    return int(float(await call(space, "ZSCORE", keys_of(space).deadlines(1), id)))


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
    lease = await space.grant(60 * SECOND)
    await call(space, "DEL", keys.expiries(redis_store(space)._target.prefix))
    other = Space(await shared.open(), NAME)
    if is_loaded:
        await other.revision()
    await other.store.retain(NAME, KEEP_ALL)
    assert redis_store(other)._replicas.known(NAME) is not None or not is_loaded
    found = await looked_into_at(space)
    assert found is not None
    assert abs(found - await deadline(space, lease)) < 30 * SECOND


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
    ids = {space.name: [(await space.grant(HOUR)).id] for space in spaces}
    for space in spaces:
        await run_out(space, *ids[space.name])
    trips = 0

    async def count(*_: Any) -> None:
        nonlocal trips
        trips += 1

    before(monkeypatch, store._client, "once", count)
    due = await store.due()
    assert due == ids
    assert trips <= 3
    for name, some in due.items():
        await store.commit(name, [Expire(lease_ids=tuple(some))])
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
    lease = await space.grant(HOUR)
    await run_out(space, lease)
    assert await store.due() == {"z": [lease.id]}


async def test_those_that_are_too_many_for_one_look_are_told_by_the_next(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "LEASES", 3)
    monkeypatch.setattr(expiries, "LEAST", 1)
    monkeypatch.setattr(expiries, "AGAIN", HOUR)
    store = await shared.open()
    many, few = Space(store, "many"), Space(store, "few")
    leases = [await many.grant(HOUR) for _ in range(7)]
    await run_out(many, *leases)
    assert await many.expire() == [lease.id for lease in leases[:3]]
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
    ids: dict[str, list[int]] = {}
    for space in (Space(store, f"n{number}") for number in range(9)):
        ids[space.name] = [(await space.grant(HOUR)).id]
        await run_out(space, *ids[space.name])
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
    assert found == {name: ids[name] for name in well}
    answers.set()
    await until(lambda: has(slow))
    assert found == {name: ids[name] for name in [*well, *slow]}
    await shared.close()


async def test_a_slot_that_is_moved_keeps_nothing_from_the_others_of_its_node(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "AGAIN", HOUR)
    shared = Shared(f"{redis_cluster.url}?prefix=t-{time.time_ns()}")
    store = await shared.open()
    by_port: dict[int, list[Space]] = {}
    ids: dict[str, int] = {}
    for space in (Space(store, f"n{number}") for number in range(9)):
        ids[space.name] = (await space.grant(HOUR)).id
        by_port.setdefault(redis_cluster.master_of(keys_of(space).meta).port, []).append(space)
    moved, *others = max(by_port.values(), key=len)
    await moved.commit(Revoke(lease_id=ids[moved.name]))  # so that a key of its slot is missing
    with redis_cluster.moving(keys_of(moved).meta):
        await look_into(moved)
        for space in others:
            await run_out(space, ids[space.name])
        found: dict[str, Any] = {}

        async def has_all() -> bool:
            found.update(await store.due())
            return len(found) == len(others)

        await until(has_all)
    assert found == {space.name: [ids[space.name]] for space in others}
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
