"""Leases of servers that share one Redis."""

import asyncio

import pytest

from comity_server.errors import LeaseLost, LeaseNotFound
from comity_server.model import Cause, Guard, Put, Revoke, Transaction
from comity_server.record import KEY
from comity_server.stores.redis import journal
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import program
from tests.stores.leases import at, call, expire, keys_of, lives, look_into, looked_into_at, run_out
from tests.stores.sharing import NAME, Shared, before, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


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
