"""What restores, forks, merges and deletions do to leases."""

import asyncio

import pytest

from comity_server.errors import (
    Conflict,
    LeaseLost,
    LeaseNotFound,
)
from comity_server.model import (
    Expire,
    Fork,
    Guard,
    Increment,
    Put,
    Revoke,
    Strategy,
    Transaction,
)
from comity_server.record import KEY, LEASE_ID
from tests.contract.leases import SHORT, lives, refused
from tests.contract.space import HOUR, SECOND, Space
from tests.waiting import until


async def test_restore_brings_back_keys_and_no_leases(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a")
    own = await space.put_for(SHORT, "b")
    at = await space.revision()
    await space.expired(lease, own)
    await space.restore(at)
    assert [(entry[KEY], entry[LEASE_ID]) for entry in await space.entries()] == [("a", 0), ("b", 0)]
    assert await space.leases() == {}


async def test_restore_takes_what_it_writes_from_its_lease(space: Space) -> None:
    await space.apply(Put("a", b"1"), Put("b", b"1"), Put("c", b"1"))
    lease = await space.grant()
    await space.put_with(lease, "a", "d", value=b"2")
    own = await space.put_for(HOUR, "b", value=b"2")
    await space.put_with(lease, "c", value=b"1")
    await space.restore(1)
    assert await space.leases() == {lease.id: 1}, "c is equal, and so was left as it is"
    assert not await lives(space, own)
    assert await space.revoke(lease) == 1
    assert await space.keys() == ["a", "b"]


async def test_a_fork_inherits_no_leases(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a", "n", value=b"1")
    own = await space.put_for(HOUR, "b")
    fork = await space.fork("fork")
    assert await fork.leases() == {}
    assert [entry[LEASE_ID] for entry in await fork.entries()] == [lease.id, own, lease.id]
    await refused(fork, LeaseNotFound, Transaction(then=[Put("x", b"", lease_id=lease.id)]))
    await refused(fork, LeaseLost, Transaction(then=[Put("x", b"")], guard=Guard(lease.id)))
    await refused(fork, LeaseNotFound, Revoke(lease_id=lease.id))
    assert list(await fork.store.keep_alive(fork.name, [lease.id, own])) == [0, 0]
    await space.expired(lease)
    assert await space.keys() == ["b"]
    assert await fork.keys() == ["a", "b", "n"]
    await fork.apply(Increment("n", 1))
    assert (await fork.entry("n"))[LEASE_ID] == 0
    own_of_fork = await fork.grant()
    assert own_of_fork.id > (await fork.info()).fork_revision
    await fork.put_with(own_of_fork, "a")
    await fork.delete("b")
    assert await fork.leases() == {own_of_fork.id: 1}
    assert await fork.revoke(own_of_fork) == 1
    assert await space.leases() == {own: 1}


async def test_merged_keys_live_by_no_lease(space: Space) -> None:
    await space.apply(Put("a", b"1"), Put("b", b"1"))
    lease = await space.grant()
    fork = await space.fork("fork")
    theirs = await fork.grant()
    await fork.put_with(theirs, "a", "c", value=b"2")
    await fork.put_for(HOUR, "d")
    await fork.delete("b")
    await space.put_with(lease, "b", value=b"1")
    await space.merge(fork, Strategy.THEIRS)
    assert [(entry[KEY], entry[LEASE_ID]) for entry in await space.entries()] == [("a", 0), ("c", 0), ("d", 0)]
    assert await space.leases() == {lease.id: 0}
    assert await fork.revoke(theirs) == 2
    assert await space.keys() == ["a", "c", "d"]


async def test_deleting_a_namespace_ends_its_leases(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a")
    long = await space.grant()
    await space.store.delete_namespace(space.name)
    assert list(await space.store.ended(space.name, [lease.id, long.id])) == [lease.id, long.id]
    assert list(await space.store.keep_alive(space.name, [lease.id, long.id])) == [0, 0]
    with pytest.raises(LeaseNotFound):
        await space.store.lease(space.name, long.id)
    await refused(space, LeaseLost, Transaction(then=[Put("a", b"")], guard=Guard(long.id)))
    await refused(space, LeaseNotFound, Transaction(then=[Put("a", b"", lease_id=long.id)]))
    await space.put("a")
    assert await space.leases() == {}
    again = await space.grant(2 * SHORT)
    assert again.id > long.id
    await space.put_with(again, "b")
    await space.expired(again)
    assert await space.keys() == ["a"]


async def test_ids_grow_whatever_becomes_of_the_namespace(space: Space) -> None:
    ids = []
    for _ in range(3):
        ids.append((await space.grant()).id)
        ids.append(await space.put_for(HOUR, "a"))
        await space.revoke(ids[-1])
        await space.store.delete_namespace(space.name)
    parent = space.sibling("parent")
    await parent.grant()
    await space.commit(Fork(parent=parent.name))
    ids.append((await space.grant()).id)
    assert ids == sorted(set(ids))


async def test_a_deletion_that_is_refused_ends_no_leases(space: Space) -> None:
    id = await space.put_for(SHORT, "a")
    with pytest.raises(Conflict):
        await space.store.delete_namespace(space.name, if_revision=7)
    await space.expired(id)
    assert (await space.info()).key_count == 0


async def test_a_lease_that_is_being_ended_is_not_renewed(space: Space) -> None:
    """However long it takes to delete its keys: who was told that it lives can rely on that."""
    lease = await space.grant(SECOND // 5)
    await space.apply(*[Put(f"k{number:04}", b"", lease_id=lease.id) for number in range(5000)])

    async def is_out() -> bool:
        return await space.remaining(lease) == 0

    await until(is_out)
    ending = asyncio.create_task(space.commit(Expire(lease_ids=(lease.id,))))
    answers: list[int] = []
    while not ending.done():
        await asyncio.sleep(0)
        answers += await space.store.keep_alive(space.name, [lease.id])
    assert (lease.id in await space.leases()) == any(answers)
