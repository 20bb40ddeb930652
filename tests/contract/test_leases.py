"""Leases: who lives by them, what ends them, and that nothing is written under one that has ended."""

import asyncio
import time

import pytest

from comity_server.errors import (
    Conflict,
    InvalidRequest,
    LeaseLost,
    LeaseNotFound,
    NamespaceNotFound,
    NotANumber,
    PermissionDenied,
    QuotaExceeded,
    RequestIdReused,
    StateError,
)
from comity_server.limits import Limits
from comity_server.model import (
    Cause,
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    DropCheckpoint,
    Expire,
    Fork,
    Grant,
    Guard,
    Increment,
    Lease,
    MakeCheckpoint,
    Merge,
    Operator,
    Outcome,
    Put,
    RequestId,
    Restore,
    Revoke,
    Strategy,
    Test,
    Transaction,
    Write,
)
from comity_server.record import CREATE_REVISION, KEY, LEASE_ID, VERSION
from tests.contract.conftest import OpenSpace
from tests.contract.space import HOUR, SECOND, Space, plain
from tests.contract.test_following import Heard
from tests.waiting import until

SHORT = SECOND // 20


async def newest(space: Space) -> Commit:
    return (await space.log())[-1]


async def run_out(space: Space, lease: Lease | int) -> None:
    """Wait until a lease is due. Nobody ends it."""

    async def is_out() -> bool:
        return await space.remaining(lease) == 0

    await until(is_out)


async def lives(space: Space, lease: Lease | int) -> bool:
    return not await space.store.ended(space.name, [lease if isinstance(lease, int) else lease.id])


async def refused(space: Space, error: type[StateError], write: Write) -> StateError:
    """That a write is refused and leaves nothing."""

    async def all_of_it() -> object:
        exists = await space.store.namespaces(space.name, limit=1)
        return await space.revision(), await space.entries(), await space.leases() if exists else {}

    before = await all_of_it()
    with pytest.raises(error) as raised:
        await space.commit(write)
    assert await all_of_it() == before
    return raised.value


# Grants


async def test_grant_makes_a_revision_without_events_which_is_the_id(space: Space) -> None:
    await space.put("a")
    outcome = await space.commit(Grant(ttl=HOUR, author="ann", trace_parent="00-1-2-01"))
    assert (outcome.committed, outcome.revision) == (True, 2)
    commit = await newest(space)
    lease = Lease(2, HOUR, "ann", commit.time)
    assert plain(outcome.results) == plain([lease])
    assert (commit.revision, commit.author, commit.message, list(commit.events)) == (2, "ann", "grant lease 2", [])
    assert commit.trace_parent == "00-1-2-01"
    found, remaining, keys = await space.store.lease(space.name, 2)
    assert (found, keys) == (lease, 0)
    assert 0 < remaining <= HOUR
    assert await space.put("a") == 3


async def test_grant_says_why_if_it_is_told(space: Space) -> None:
    await space.commit(Grant(ttl=HOUR, message="to work"))
    assert (await newest(space)).message == "to work"


async def test_grant_begins_a_namespace(space: Space) -> None:
    lease = await space.grant()
    assert lease.id == 1
    assert (await space.info())[1:5] == (1, 0, 0, 0)
    assert await space.leases() == {1: 0}


async def test_leases_are_listed_in_the_order_of_their_ids(space: Space) -> None:
    with pytest.raises(NamespaceNotFound):
        await space.store.leases(space.name, limit=1)
    ids = [(await space.grant(author=f"a{turn}")).id for turn in range(12)]
    assert ids == sorted(set(ids))
    found = await space.store.leases(space.name, limit=5)
    assert [(info.lease.id, info.lease.author) for info in found] == [(id, f"a{id - 1}") for id in ids[:5]]
    found = await space.store.leases(space.name, after=5, limit=100)
    assert [info.lease.id for info in found] == ids[5:]
    assert await space.store.leases(space.name, after=12, limit=1) == []


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
    assert elsewhere.id == 1
    for id in (1, ended.id, 99, 2**62):
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


# Ends


async def test_a_lease_that_runs_out_ends_in_one_commit_that_deletes_its_keys(space: Space) -> None:
    lease = await space.grant(SHORT, author="ann")
    await space.put_with(lease, "b", "a", "c")
    await space.put("d")
    entries = [await space.entry(key) for key in "abc"]
    heard = Heard()
    await space.store.follow(space.name, heard)
    await space.expired(lease)
    (commit,) = await heard.hears(1)
    await space.store.unfollow(space.name)
    assert plain(commit) == plain(await newest(space))
    assert (commit.revision, commit.author, commit.message) == (4, "", f"lease {lease.id} of ann expired")
    assert [event.cause for event in commit.events] == [Cause.LEASE_EXPIRY] * 3
    assert [event.entry[KEY] for event in commit.events] == ["a", "b", "c"]
    assert all(event.is_delete for event in commit.events)
    assert [event.previous for event in commit.events] == entries
    assert await space.keys() == ["d"]
    assert await space.leases() == {}
    with pytest.raises(LeaseNotFound):
        await space.store.lease(space.name, lease.id)


async def test_a_lease_without_an_author_says_so(space: Space) -> None:
    await space.expired(await space.put_for(SHORT, "a"))
    assert (await newest(space)).message == "lease 1 expired"


async def test_a_lease_without_keys_ends_without_a_revision(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.expired(lease)
    revoked = await space.grant()
    outcome = await space.commit(Revoke(lease_id=revoked.id))
    assert (outcome.committed, outcome.revision, plain(outcome.results)) == (True, 2, plain([DeleteResult(0)]))
    assert await space.revision() == 2
    assert await space.leases() == {}


async def test_a_lease_never_ends_early(space: Space) -> None:
    began = time.monotonic()
    leases = [await space.grant(turn * SHORT) for turn in (3, 1, 5, 2, 4)]
    for lease in sorted(leases, key=lambda lease: lease.ttl):
        await space.expired(lease)
        assert time.monotonic() - began >= lease.ttl / SECOND
    assert await space.leases() == {}


async def test_a_lease_that_has_not_run_out_does_not_expire(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "a")
    own = await space.put_for(HOUR, "b")
    assert await space.expire() == []
    outcome = await space.commit(Expire(lease_ids=(lease.id, own, 99)))
    assert plain(outcome) == plain(Outcome(True, 3))
    assert await space.keys() == ["a", "b"]


async def test_a_lease_that_has_run_out_lives_until_its_end_is_committed(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a")
    await run_out(space, lease)
    assert await lives(space, lease)
    assert await space.keys() == ["a"]
    await space.put_with(lease, "b")
    await space.commit(Transaction(then=[Put("c", b"")], guard=Guard(lease.id)))
    assert await space.leases() == {lease.id: 2}
    await space.expired(lease)
    assert await space.keys() == ["c"]


async def test_several_leases_that_are_due_at_once_end_each_by_its_own_commit(space: Space) -> None:
    leases = [await space.grant(SHORT, author=f"a{turn}") for turn in range(4)]
    for turn, lease in enumerate(leases):
        await space.put_with(lease, f"{turn}/a", f"{turn}/b")
    before = await space.revision()
    for lease in leases:
        await run_out(space, lease)
    await space.commit(Expire(lease_ids=tuple(lease.id for lease in leases)))
    commits = (await space.log())[before:]
    assert [commit.message for commit in commits] == [f"lease {turn + 1} of a{turn} expired" for turn in range(4)]
    assert [[event.entry[KEY] for event in commit.events] for commit in commits] == [
        [f"{turn}/a", f"{turn}/b"] for turn in range(4)
    ]
    assert await space.keys() == []


async def test_leases_of_several_namespaces_are_due(space: Space) -> None:
    other = space.sibling("other")
    ids = {one.name: await one.put_for(SHORT, "a") for one in (space, other)}
    await run_out(space, ids[space.name])
    await run_out(other, ids[other.name])
    found: dict[str, list[int]] = {}

    async def both() -> bool:
        for name, due in (await space.store.due()).items():
            found.setdefault(name, []).extend(due)
        return found.keys() >= ids.keys()

    await until(both)
    assert {name: set(due) for name, due in found.items()} == {name: {id} for name, id in ids.items()}


async def test_what_was_due_and_not_ended_is_due_again(space: Space) -> None:
    lease = await space.grant(SHORT)
    for _ in range(2):

        async def is_due() -> bool:
            return lease.id in (await space.store.due()).get(space.name, ())

        await until(is_due)
    assert await lives(space, lease)


async def test_two_that_end_a_lease_at_once_end_it_once(space: Space) -> None:
    lease = await space.grant(SHORT)
    await space.put_with(lease, "a")
    await run_out(space, lease)
    expire = Expire(lease_ids=(lease.id,))
    await asyncio.gather(*(space.group(expire, expire) for _ in range(3)))
    assert await space.revision() == 3


async def test_revoking_ends_a_lease_now(space: Space) -> None:
    lease = await space.grant()
    await space.put_with(lease, "b", "a")
    outcome = await space.commit(Revoke(lease_id=lease.id, author="rex"))
    assert plain(outcome) == plain(Outcome(True, 3, (DeleteResult(2),)))
    commit = await newest(space)
    assert (commit.author, commit.message) == ("rex", f"revoke lease {lease.id}")
    assert [(event.entry[KEY], event.cause) for event in commit.events] == [("a", Cause.CLIENT), ("b", Cause.CLIENT)]
    await refused(space, LeaseNotFound, Revoke(lease_id=lease.id))
    other = await space.put_for(HOUR, "a")
    await space.commit(Revoke(lease_id=other, message="enough"))
    assert (await newest(space)).message == "enough"


async def test_a_lease_is_revoked_by_whose_it_is(space: Space) -> None:
    ids = [(await space.grant(author=author)).id for author in ("ann", "ann/part", "anna", "")]
    denied = await refused(space, PermissionDenied, Revoke(lease_id=ids[2], principal="ann"))
    where = {"principal": "ann", "access": "WRITE", "namespace": space.name, "lease_id": str(ids[2])}
    assert denied.metadata == where
    await refused(space, PermissionDenied, Revoke(lease_id=ids[3], principal="ann"))
    await refused(space, PermissionDenied, Revoke(lease_id=ids[0], principal=""))
    await refused(space, LeaseNotFound, Revoke(lease_id=99, principal="ann"))
    revokes = [Revoke(lease_id=id, principal=who) for id, who in zip(ids, ("ann", "ann", None, ""), strict=True)]
    assert [type(outcome) for outcome in await space.group(*revokes)] == [Outcome] * 4


async def test_whose_a_lease_is_is_judged_in_the_order_of_the_writes(space: Space) -> None:
    guessed, grant = Revoke(lease_id=1, principal="eve"), Grant(ttl=HOUR, author="ann")
    answers = await space.group(guessed, grant, guessed, Revoke(lease_id=2, principal="eve"))
    assert [type(answer) for answer in answers] == [LeaseNotFound, Outcome, PermissionDenied, LeaseNotFound]
    assert await space.leases() == {1: 0}


async def test_a_repeated_revoke_is_the_same_whatever_its_principal_may_do_by_then(space: Space) -> None:
    lease = await space.grant(author="ann")
    await space.put_with(lease, "a")
    name = RequestId("c", 1)
    first = await space.commit(Revoke(lease_id=lease.id, principal="ann", request_id=name))
    assert plain(await space.commit(Revoke(lease_id=lease.id, request_id=name))) == plain(first)


# Renewals


async def test_keep_alive_answers_for_each_what_it_has_left(space: Space) -> None:
    long, short = await space.grant(HOUR), await space.grant(10 * SECOND)
    ended = await space.grant()
    await space.revoke(ended)
    found = await space.store.keep_alive(space.name, [short.id, ended.id, 99, long.id, short.id])
    assert 0 < found[0] <= 10 * SECOND < found[3] <= HOUR
    assert 0 < found[4] <= 10 * SECOND
    assert (found[1], found[2]) == (0, 0)
    assert await space.store.keep_alive(space.name, []) == []
    assert list(await space.store.keep_alive(space.sibling("none").name, [1, 2])) == [0, 0]


async def test_keep_alive_makes_no_revision(space: Space) -> None:
    lease = await space.grant()
    await space.store.keep_alive(space.name, [lease.id])
    assert await space.revision() == lease.id


async def test_a_lease_that_is_renewed_does_not_expire(space: Space) -> None:
    """Whoever renews it late finds it alive, unless its end was committed."""
    ttl = 10 * SHORT
    kept, dropped = await space.grant(ttl), await space.grant(ttl)
    await space.put_with(kept, "a")
    await run_out(space, kept)
    sent = time.monotonic()
    (left,) = await space.store.keep_alive(space.name, [kept.id])
    assert 0 < left <= ttl
    await run_out(space, dropped)
    await space.commit(Expire(lease_ids=(kept.id, dropped.id)))
    if not await lives(space, kept):
        assert time.monotonic() - sent >= ttl / SECOND
    assert not await lives(space, dropped)
    await space.expired(kept)
    assert time.monotonic() - sent >= ttl / SECOND
    assert list(await space.store.keep_alive(space.name, [kept.id])) == [0]


async def test_renewed_again_and_again_a_lease_lives_on(space: Space) -> None:
    lease = await space.grant(10 * SHORT)
    began = sent = time.monotonic()
    while time.monotonic() - began < 3 * lease.ttl / SECOND:
        before, sent = sent, time.monotonic()
        (left,) = await space.store.keep_alive(space.name, [lease.id])
        await space.expire()
        if time.monotonic() - before < lease.ttl / SECOND:
            assert left > 0
            assert await lives(space, lease)
        await asyncio.sleep(0.05)


# Guards


async def guarded(space: Space, guard: Guard) -> dict[str, Write]:
    """A write of each kind, of a namespace that has a fork."""
    fork = await space.fork("fork")
    await fork.put("theirs")
    await space.checkpoint("there")
    revocable = await space.grant()
    return {
        "put": Transaction(then=[Put("b", b"2")], guard=guard),
        "condition": Transaction([Condition("none", Test.EXISTS, 1)], [], [Put("b", b"3")], guard=guard),
        "read": Transaction(then=[Delete("none")], guard=guard),
        "checkpoint": MakeCheckpoint(name="made", guard=guard),
        "drop": DropCheckpoint(name="there", guard=guard),
        "restore": Restore(ref=1, prefix="a", guard=guard),
        "merge": Merge(fork=fork.name, strategy=Strategy.THEIRS, guard=guard),
        "grant": Grant(ttl=HOUR, guard=guard),
        "revoke": Revoke(lease_id=revocable.id, guard=guard),
    }


async def test_a_write_is_guarded_by_a_lease_that_lives(space: Space) -> None:
    await space.put("a", b"1")
    lease = await space.grant()
    await space.put("a", b"2")
    for name, write in (await guarded(space, Guard(lease.id, lease.id))).items():
        outcome = await space.commit(write)
        assert outcome.committed or name == "condition"
    assert (await space.contents()) == {"a": b"1", "b": b"3", "theirs": b"v"}


async def test_no_write_is_applied_whose_guard_has_ended(space: Space) -> None:
    await space.put("a", b"1")
    lease = await space.grant(SHORT)
    await space.put("a", b"2")
    writes = await guarded(space, Guard(lease.id))
    await space.expired(lease)
    for write in writes.values():
        error = await refused(space, LeaseLost, write)
        assert error.metadata == {"lease_id": str(lease.id)}
    assert [checkpoint.name for checkpoint in await space.store.checkpoints(space.name, {}, limit=9)] == ["there"]


async def test_a_guard_must_have_the_fence_of_its_lease(space: Space) -> None:
    lease = await space.grant()
    for guard in (Guard(lease.id), Guard(lease.id, lease.id)):
        await space.commit(Transaction(then=[Put("a", b"")], guard=guard))
    for guard in (Guard(lease.id, 7), Guard(7), Guard(7, lease.id), Guard(2**62)):
        await refused(space, LeaseLost, Transaction(then=[Put("a", b"")], guard=guard))


async def test_a_guard_is_no_lease_of_another_namespace(space: Space) -> None:
    lease = await space.grant()
    other = space.sibling("other")
    await refused(other, LeaseLost, Transaction(then=[Put("a", b"")], guard=Guard(lease.id)))
    fork = other.sibling("fork")
    await refused(fork, LeaseLost, Fork(parent=space.name, guard=Guard(lease.id)))


async def test_guards_are_judged_in_the_order_of_the_writes(space: Space) -> None:
    lease = await space.grant()
    write = Transaction(then=[Increment("n", 1)], guard=Guard(lease.id))
    answers = await space.group(write, Revoke(lease_id=lease.id), write, Grant(ttl=HOUR), write)
    assert [type(answer) for answer in answers] == [Outcome, Outcome, LeaseLost, Outcome, LeaseLost]
    assert (await space.contents()) == {"n": b"1"}


async def test_a_lease_serves_the_writes_behind_it_in_its_group(space: Space) -> None:
    put, guard = Put("a", b"", lease_id=1), Guard(1, 1)
    answers = await space.group(
        Grant(ttl=HOUR),
        Transaction(then=[put], guard=guard),
        Revoke(lease_id=1),
        Transaction(then=[put]),
        Transaction(then=[Put("b", b"", ttl=HOUR)]),
        Transaction(then=[Put("c", b"")], guard=Guard(4)),
        Transaction(then=[Delete("b")]),
        Transaction(then=[Put("d", b"")], guard=Guard(4)),
    )
    kinds = [Outcome, Outcome, Outcome, LeaseNotFound, Outcome, Outcome, Outcome, LeaseLost]
    assert [type(answer) for answer in answers] == kinds
    assert await space.keys() == ["c"]
    assert await space.leases() == {}


async def test_the_guard_comes_before_the_conditions(space: Space) -> None:
    write = Transaction([Condition("a", Test.EXISTS, 1)], [Put("a", b"")], guard=Guard(9))
    await refused(space, LeaseLost, write)


async def test_a_holder_that_comes_late_writes_nothing_whoever_holds_then(space: Space) -> None:
    first = await space.grant(SHORT)
    await space.put_with(first, "lock")
    await space.expired(first)
    second = await space.grant()
    assert second.id > first.id
    await space.put_with(second, "lock")
    late = Transaction(then=[Put("work", b"late")], guard=Guard(first.id, first.id))
    await refused(space, LeaseLost, late)
    await space.commit(Transaction(then=[Put("work", b"done")], guard=Guard(second.id, second.id)))


# Puts with a ttl


async def test_a_put_with_a_ttl_has_a_lease_of_its_own(space: Space) -> None:
    await space.put("first")
    outcome = await space.commit(Transaction(then=[Put("a", b"1", ttl=HOUR)], author="ann"))
    entry = await space.entry("a")
    assert (entry[CREATE_REVISION], entry[LEASE_ID]) == (2, 2)
    lease = (await space.store.lease(space.name, 2)).lease
    assert lease == Lease(2, HOUR, "ann", (await newest(space)).time, ends_with_keys=True)
    assert outcome.revision == 2
    assert await space.leases() == {2: 1}


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
    [Put("a", b""), Put("a", b"", ttl=HOUR), Put("a", b"", lease_id=1), Delete("a"), DeletePrefix("")],
    ids=lambda operation: type(operation).__name__,
)
async def test_a_lease_of_its_own_ends_with_its_key(space: Space, operation: Put | Delete | DeletePrefix) -> None:
    lease = await space.grant()
    id = await space.put_for(HOUR, "a")
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
    await space.apply(Put("a", b"", ttl=HOUR), Put("b", b"", lease_id=lease.id), Put("c", b""))
    assert await space.leases() == {lease.id: 1, 2: 1}


async def test_a_key_may_pass_from_an_own_lease_to_the_next_within_a_group(space: Space) -> None:
    put = Transaction(then=[Put("a", b"", ttl=HOUR)])
    await space.outcomes(put, put, Transaction(then=[Delete("a")]), put)
    assert await space.leases() == {4: 1}


# Limits


async def test_quota_of_leases(open_space: OpenSpace) -> None:
    space = await open_space(Limits(leases=2))
    await space.grant()
    await space.put_for(HOUR, "a", "b")
    error = await refused(space, QuotaExceeded, Grant(ttl=HOUR))
    assert error.metadata == {"quota": "leases", "limit": "2"}
    await refused(space, QuotaExceeded, Transaction(then=[Put("c", b"", ttl=HOUR)]))
    await space.revoke(1)
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


# Request ids


async def test_a_repeated_grant_is_the_same_lease(space: Space) -> None:
    grant = Grant(ttl=HOUR, author="ann", request_id=RequestId("c", 1))
    first = await space.commit(grant)
    await space.put("a")
    assert plain(await space.commit(grant)) == plain(first)
    assert plain((await space.group(grant, grant))[1]) == plain(first)
    await space.revoke(1)
    assert plain(await space.commit(grant)) == plain(first)
    assert await space.leases() == {}
    with pytest.raises(RequestIdReused):
        await space.commit(Grant(ttl=HOUR + 1, request_id=RequestId("c", 1)))


async def test_a_repeated_revoke_answers_as_the_first(space: Space) -> None:
    lease, empty = await space.grant(), await space.grant()
    await space.put_with(lease, "a", "b")
    for sequence, id, keys in ((1, lease.id, 2), (2, empty.id, 0)):
        revoke = Revoke(lease_id=id, request_id=RequestId("c", sequence))
        first = await space.commit(revoke)
        assert plain(first.results) == plain([DeleteResult(keys)])
        await space.put("later")
        assert plain(await space.commit(revoke)) == plain(first)


async def test_a_guarded_write_that_is_repeated_after_its_lease_ended_answers_as_the_first(space: Space) -> None:
    lease = await space.grant()
    write = Transaction(then=[Increment("n", 1)], request_id=RequestId("c", 1), guard=Guard(lease.id))
    mark = MakeCheckpoint(name="m", request_id=RequestId("c", 2), guard=Guard(lease.id))
    first = [await space.commit(one) for one in (write, mark)]
    await space.revoke(lease)
    assert [plain(await space.commit(one)) for one in (write, mark)] == [plain(one) for one in first]
    late = write._replace(request_id=RequestId("c", 3))
    await refused(space, LeaseLost, late)
    await refused(space, LeaseLost, late)
    assert await space.contents() == {"n": b"1"}


async def test_a_repeated_put_with_a_ttl_does_not_bring_the_key_back(space: Space) -> None:
    write = Transaction(then=[Put("a", b"", ttl=SHORT)], request_id=RequestId("c", 1))
    first = await space.commit(write)
    await space.expired(first.revision)
    assert plain(await space.commit(write)) == plain(first)
    assert await space.keys() == []


# Restores, forks, merges, deletions


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
