"""What the log of a namespace in Redis has of leases."""

import msgpack
import pytest

from comity_server.errors import Conflict, LeaseLost, StateError, StoreUnavailable
from comity_server.model import Fork, Grant, Guard, Lease, Put, Revoke, Transaction, Write
from comity_server.stores.redis import codec, compaction, journal, loading, steps
from comity_server.stores.redis.failures import Passing
from tests.contract.leases import stand_still
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import program
from tests.stores.garbage import garbage
from tests.stores.leases import KEEP_ALL, at, call, expire, keys_of, run_out
from tests.stores.sharing import NAME, Shared, after, before, once, redis_store

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


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


@pytest.mark.parametrize("piece", [steps.PIECE, 50])
async def test_a_group_with_all_that_can_become_of_leases(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Also where the entry of the log comes in pieces."""
    monkeypatch.setattr(steps, "PIECE", piece)
    one, other = await shared.spaces()
    time = stand_still(one, monkeypatch)
    first = await one.grant(HOUR)
    assert first.id == time
    second, last = time + 1, time + 3
    writes: list[Write] = [
        Grant(ttl=HOUR),  # the second
        Transaction(then=[Put("a", b"", ttl=SECOND * 60)]),  # the third
        Transaction(then=[Put("a", b"", lease_id=second)]),  # and the third ends
        Revoke(lease_id=first.id),
        Transaction(then=[Put("b", b"")], guard=Guard(first.id)),
        Revoke(lease_id=second),
        Transaction(then=[Put("c", b"", ttl=SECOND * 60)]),  # the last
    ]
    outcomes = await one.group(*writes)
    assert [type(one) for one in outcomes if isinstance(one, StateError)] == [LeaseLost]
    for space in (one, other, Space(await shared.open(), NAME)):
        assert await space.leases() == {last: 1}
        assert await space.keys() == ["c"]
        assert [commit.time - time for commit in await space.log()] == [0, 1, 2, 3, 3, 3]
    of = keys_of(one)
    assert await call(one, "HKEYS", of.leases(1)) == [b"%d" % last]
    assert await call(one, "ZRANGE", of.deadlines(1), 0, -1) == [b"%d" % last]


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
