"""Keys that are put with a ttl: each has a lease of its own."""

import pytest

from comity_server.errors import (
    InvalidRequest,
    LeaseLost,
)
from comity_server.model import (
    Cause,
    Delete,
    DeletePrefix,
    Guard,
    Lease,
    Put,
    PutResult,
    Transaction,
)
from comity_server.record import CREATE_REVISION, KEY, LEASE_ID, VERSION
from tests.contract.leases import SHORT, lives, newest, refused
from tests.contract.space import HOUR, Space, own_lease

OTHER = -1  # stands for a lease that was granted before


async def test_a_put_with_a_ttl_has_a_lease_of_its_own(space: Space) -> None:
    await space.put("first")
    outcome = await space.commit(Transaction(then=[Put("a", b"1", ttl=HOUR)], author="ann"))
    entry = await space.entry("a")
    time = (await newest(space)).time
    assert (entry[CREATE_REVISION], entry[LEASE_ID], own_lease(outcome.results[0])) == (2, time, time)
    lease = (await space.store.lease(space.name, time)).lease
    assert lease == Lease(time, HOUR, "ann", time, ends_with_keys=True)
    assert outcome.revision == 2
    assert await space.leases() == {time: 1}


async def test_a_put_says_by_which_lease_the_key_lives(space: Space) -> None:
    lease = await space.grant()
    puts = [Put("a", b"", ttl=HOUR), Put("b", b"", lease_id=lease.id), Put("c", b""), Put("d", b"", ttl=HOUR)]
    said = [result.lease_id for result in (await space.apply(*puts)).results if isinstance(result, PutResult)]
    assert said == [entry[LEASE_ID] for entry in await space.entries()]
    assert said == [said[0], lease.id, 0, said[0]]


async def test_a_put_with_a_ttl_expires(space: Space) -> None:
    id = await space.put_for(SHORT, "a")
    await space.expired(id)
    (event,) = (await newest(space)).events
    assert (event.entry[KEY], event.cause) == ("a", Cause.LEASE_EXPIRY)
    assert await space.keys() == []


async def test_a_put_with_a_ttl_may_be_kept_alive_revoked_and_shared(space: Space) -> None:
    id = await space.put_for(HOUR, "a")
    (left,) = await space.store.keep_alive(space.name, [id])
    assert 0 < left <= HOUR
    await space.put_with(id, "b")
    await space.delete("a")
    assert await space.leases() == {id: 1}
    await space.commit(Transaction(then=[Put("c", b"")], guard=Guard(id, id)))
    assert await space.revoke(id) == 1
    assert await space.keys() == ["c"]


@pytest.mark.parametrize(
    "operation",
    [Put("a", b""), Put("a", b"", ttl=HOUR), Put("a", b"", lease_id=OTHER), Delete("a"), DeletePrefix("")],
    ids=lambda operation: type(operation).__name__,
)
async def test_a_lease_of_its_own_ends_with_its_key(space: Space, operation: Put | Delete | DeletePrefix) -> None:
    lease = await space.grant()
    id = await space.put_for(HOUR, "a")
    if isinstance(operation, Put) and operation.lease_id == OTHER:
        operation = operation._replace(lease_id=lease.id)
    await space.apply(operation)
    assert not await lives(space, id)
    assert await lives(space, lease)
    revision = await space.revision()
    await refused(space, LeaseLost, Transaction(then=[Put("b", b"")], guard=Guard(id)))
    assert await space.revision() == revision == 3


async def test_a_put_with_a_ttl_that_is_put_again_lives_for_the_new_one(space: Space) -> None:
    old = await space.put_for(SHORT, "a")
    new = await space.put_for(HOUR, "a")
    await space.expired(old)
    assert await space.expire() == []
    entry = await space.entry("a")
    assert (entry[VERSION], entry[LEASE_ID]) == (2, new)


async def test_puts_of_one_transaction_share_their_lease(space: Space) -> None:
    id = await space.put_for(SHORT, "a", "b", "c")
    assert await space.leases() == {id: 3}
    await space.delete("a")
    assert await space.leases() == {id: 2}
    before = await space.revision()
    await space.expired(id)
    assert await space.revision() == before + 1
    assert await space.keys() == []


async def test_puts_of_one_transaction_with_different_ttls_are_refused(space: Space) -> None:
    await refused(space, InvalidRequest, Transaction(then=[Put("a", b"", ttl=HOUR), Put("b", b"", ttl=HOUR + 1)]))
    lease = await space.grant()
    own, *_ = (await space.apply(Put("a", b"", ttl=HOUR), Put("b", b"", lease_id=lease.id), Put("c", b""))).results
    assert await space.leases() == {lease.id: 1, own_lease(own): 1}


async def test_a_key_may_pass_from_an_own_lease_to_the_next_within_a_group(space: Space) -> None:
    put = Transaction(then=[Put("a", b"", ttl=HOUR)])
    *_, last = await space.outcomes(put, put, Transaction(then=[Delete("a")]), put)
    assert await space.leases() == {own_lease(last.results[0]): 1}
