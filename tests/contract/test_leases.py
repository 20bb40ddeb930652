"""Leases: grants, the keys that live by them, and limits."""

import pytest

from comity_server.errors import (
    LeaseNotFound,
    NamespaceNotFound,
    NotANumber,
    QuotaExceeded,
)
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    Grant,
    Increment,
    Lease,
    Operator,
    Put,
    Test,
    Transaction,
)
from comity_server.record import LEASE_ID
from tests.contract.conftest import OpenSpace
from tests.contract.leases import SHORT, newest, refused, stand_still
from tests.contract.space import HOUR, Space, plain

# Grants


async def test_grant_makes_a_revision_without_events_whose_time_is_the_id(space: Space) -> None:
    await space.put("a")
    outcome = await space.commit(Grant(ttl=HOUR, author="ann", trace_parent="00-1-2-01"))
    assert (outcome.committed, outcome.revision) == (True, 2)
    commit = await newest(space)
    lease = Lease(commit.time, HOUR, "ann", commit.time)
    assert plain(outcome.results) == plain([lease])
    said = (commit.revision, commit.author, commit.message, list(commit.events))
    assert said == (2, "ann", f"grant lease {lease.id}", [])
    assert commit.trace_parent == "00-1-2-01"
    found, remaining, keys = await space.store.lease(space.name, lease.id)
    assert (found, keys) == (lease, 0)
    assert 0 < remaining <= HOUR
    assert await space.put("a") == 3


async def test_grant_says_why_if_it_is_told(space: Space) -> None:
    await space.commit(Grant(ttl=HOUR, message="to work"))
    assert (await newest(space)).message == "to work"


async def test_grant_begins_a_namespace(space: Space) -> None:
    lease = await space.grant()
    assert (await space.info())[1:5] == (1, 0, 0, 0)
    assert await space.leases() == {lease.id: 0}


async def test_ids_grow_and_no_two_commits_of_them_have_one_time(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clock does not move on, or is set back."""
    time = stand_still(space, monkeypatch)
    put = Transaction(then=[Put("a", b"", ttl=HOUR)])
    await space.outcomes(Transaction(then=[Put("b", b"")]), Grant(ttl=HOUR), put, Transaction(then=[Put("b", b"")]))
    monkeypatch.setattr(space.store, "time", lambda: time - HOUR)
    await space.outcomes(put, Grant(ttl=HOUR))
    assert [commit.time - time for commit in await space.log()] == [0, 0, 1, 2, 3, 4]
    assert set(await space.leases()) == {time, time + 3, time + 4}, "that of the first put ended as it was put again"


async def test_leases_are_listed_in_the_order_of_their_ids(space: Space) -> None:
    with pytest.raises(NamespaceNotFound):
        await space.store.leases(space.name, limit=1)
    ids = [(await space.grant(author=f"a{turn}")).id for turn in range(12)]
    assert ids == sorted(set(ids))
    found = await space.store.leases(space.name, limit=5)
    assert [(info.lease.id, info.lease.author) for info in found] == [(ids[turn], f"a{turn}") for turn in range(5)]
    found = await space.store.leases(space.name, after=ids[4], limit=100)
    assert [info.lease.id for info in found] == ids[5:]
    assert await space.store.leases(space.name, after=ids[-1], limit=1) == []


async def test_what_never_was_a_lease_is_none(space: Space) -> None:
    for id in (1, 2, 2**62):
        with pytest.raises(LeaseNotFound):
            await space.store.lease(space.name, id)
    await space.put("a")
    with pytest.raises(LeaseNotFound) as raised:
        await space.store.lease(space.name, 1)
    assert raised.value.metadata == {"lease_id": "1", "namespace": space.name}
    assert list(await space.store.ended(space.name, [1, 7])) == [1, 7]


# Keys


async def test_keys_that_are_put_with_a_lease_say_so(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "a", "b")
    assert [entry[LEASE_ID] for entry in await space.entries()] == [lease.id, lease.id]
    assert await space.leases() == {lease.id: 2}
    assert (await space.store.lease(space.name, lease.id)).key_count == 2


async def test_a_key_lives_by_the_lease_that_it_was_last_put_with(space: Space) -> None:
    one, other = await space.grant(), await space.grant()
    await space.put_with(one, "a", "b", "c", "d")
    await space.put("a")
    await space.put_with(other, "b")
    await space.put_with(one, "c")
    await space.delete("d")
    assert [entry[LEASE_ID] for entry in await space.entries()] == [0, other.id, one.id]
    assert await space.leases() == {one.id: 1, other.id: 1}
    assert await space.revoke(one) == 1
    assert await space.keys() == ["a", "b"]


async def test_a_group_that_moves_keys_about_counts_them_right(space: Space) -> None:
    one, other = await space.grant(), await space.grant()
    await space.put_with(one, "a", "b")
    await space.outcomes(
        Transaction(then=[Put("a", b"", lease_id=other.id), Put("c", b"", lease_id=one.id)]),
        Transaction(then=[Put("a", b"", lease_id=one.id), Delete("b")]),
        Transaction(then=[Put("b", b"", lease_id=other.id), Put("c", b"")]),
        Transaction(then=[Put("c", b"", lease_id=one.id)]),
        Transaction(then=[Delete("a")]),
    )
    assert await space.leases() == {one.id: 1, other.id: 1}
    assert await space.revoke(one) == 1
    assert await space.revoke(other) == 1
    assert await space.keys() == []


async def test_a_put_with_no_such_lease_is_refused(space: Space) -> None:
    await space.put("a")
    ended = await space.grant()
    await space.revoke(ended)
    elsewhere = await space.sibling("other").grant()
    for id in (1, ended.id, elsewhere.id, 2**62):
        error = await refused(space, LeaseNotFound, Transaction(then=[Put("b", b"", lease_id=id)]))
        assert error.metadata == {"lease_id": str(id), "namespace": space.name}


async def test_a_transaction_that_fails_attaches_nothing(space: Space) -> None:
    lease = await space.grant()
    await space.put("text", b"x")
    await refused(space, NotANumber, Transaction(then=[Put("a", b"", lease_id=lease.id), Increment("text", 1)]))
    await refused(space, NotANumber, Transaction(then=[Put("a", b"", ttl=HOUR), Increment("text", 1)]))
    outcome = await space.apply(Put("a", b"", lease_id=lease.id), conditions=[Condition("a", Test.EXISTS, 1)])
    assert not outcome.committed
    assert await space.leases() == {lease.id: 0}


async def test_increments_keep_the_lease(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "n", value=b"1")
    await space.apply(Increment("n", 4))
    assert (await space.entry("n"))[1] == b"5"
    assert (await space.entry("n"))[LEASE_ID] == lease.id
    own = await space.put_for(HOUR, "m", value=b"1")
    await space.apply(Increment("m", 1))
    assert await space.leases() == {lease.id: 1, own: 1}


async def test_deleting_a_prefix_takes_keys_from_their_leases(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "a/1", "a/2", "b")
    own = await space.put_for(HOUR, "a/3", "a/4")
    await space.delete_prefix("a/")
    assert await space.leases() == {lease.id: 1}
    with pytest.raises(LeaseNotFound):
        await space.revoke(own)


async def test_conditions_see_the_lease_of_a_key(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "a")
    for operand, operator, holds in (
        (lease.id, Operator.EQUAL, True),
        (lease.id, Operator.NOT_EQUAL, False),
        (0, Operator.EQUAL, False),
        (0, Operator.NOT_EQUAL, True),
    ):
        outcome = await space.apply(conditions=[Condition("a", Test.LEASE_ID, operand, operator)])
        assert outcome.committed == holds


async def test_compaction_and_checkpoints_do_nothing_to_leases(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "a", "b")
    await space.checkpoint("held")
    await space.delete("b")
    await space.put("c")
    await space.compact()
    assert await space.leases() == {lease.id: 1}
    assert await space.revoke(lease) == 1
    assert await space.keys() == ["c"]
    assert [entry[LEASE_ID] for entry in await space.entries(revision=2)] == [lease.id, lease.id]


# Limits


async def test_quota_of_leases(open_space: OpenSpace) -> None:
    space = await open_space(Limits(leases=2))
    first = await space.grant()
    await space.put_for(HOUR, "a", "b")
    error = await refused(space, QuotaExceeded, Grant(ttl=HOUR))
    assert error.metadata == {"quota": "leases", "limit": "2"}
    await refused(space, QuotaExceeded, Transaction(then=[Put("c", b"", ttl=HOUR)]))
    await space.revoke(first)
    await space.grant()
    await space.sibling("other").grant()


async def test_quota_of_the_keys_of_a_lease(open_space: OpenSpace) -> None:
    space = await open_space(Limits(lease_keys=3))
    lease = await space.grant()
    await space.put_with(lease, "a", "b")
    too_many = Transaction(then=[Put("c", b"", lease_id=lease.id), Put("d", b"", lease_id=lease.id)])
    error = await refused(space, QuotaExceeded, too_many)
    assert error.metadata == {"quota": "keys of a lease", "limit": "3"}
    await space.put_with(lease, "c", "a")
    await refused(space, QuotaExceeded, Transaction(then=[Put("d", b"", lease_id=lease.id)]))
    await space.put_with(lease, "a", "b", "c", value=b"those that live by it already may be put again")
    await space.delete("a")
    await space.put_with(lease, "d")
    assert await space.leases() == {lease.id: 3}


async def test_leases_end_however_full_the_namespace_is(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_keys=2, leases=2, lease_keys=2))
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a", "b")
    await space.grant()
    await space.expired(lease)
    assert await space.keys() == []
