"""How leases end, and how they are renewed."""

import asyncio
import time

import pytest

from comity_server.errors import LeaseNotFound, PermissionDenied
from comity_server.model import (
    Cause,
    DeleteResult,
    Expire,
    Grant,
    Guard,
    Lease,
    Outcome,
    Put,
    RequestId,
    Revoke,
    Transaction,
)
from comity_server.record import KEY
from tests.contract.leases import SHORT, lives, newest, refused, stand_still
from tests.contract.space import HOUR, SECOND, Space, plain
from tests.contract.test_following import Heard
from tests.waiting import until


async def run_out(space: Space, lease: Lease | int) -> None:
    """Wait until a lease is due. Nobody ends it."""

    async def is_out() -> bool:
        return await space.remaining(lease) == 0

    await until(is_out)


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
    id = await space.put_for(SHORT, "a")
    await space.expired(id)
    assert (await newest(space)).message == f"lease {id} expired"


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
    assert [commit.message for commit in commits] == [
        f"lease {lease.id} of a{turn} expired" for turn, lease in enumerate(leases)
    ]
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


async def test_keys_come_to_live_by_leases_of_their_owner(space: Space) -> None:
    anns, eves = [(await space.grant(author=author)).id for author in ("ann/part", "eve")]
    await space.commit(Transaction(then=[Put("a", b"", lease_id=anns), Put("b", b"", lease_id=eves)]))
    for then in ([Put("c", b"", lease_id=eves)], [Put("c", b"", lease_id=anns), Put("a", b"", lease_id=eves)]):
        denied = await refused(space, PermissionDenied, Transaction(then=then, lease_owner="ann"))
        assert denied.metadata["lease_id"] == str(eves)
    kept = [Put("a", b"", lease_id=anns), Put("b", b"", lease_id=eves), Put("c", b"", lease_id=anns)]
    name = RequestId("c", 1)
    first = await space.commit(Transaction(then=kept, lease_owner="ann", request_id=name))
    assert plain(await space.commit(Transaction(then=kept, request_id=name))) == plain(first)  # whatever it may by then
    assert await space.leases() == {anns: 2, eves: 1}


async def test_whose_a_lease_is_is_judged_in_the_order_of_the_writes(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = stand_still(space, monkeypatch)
    guessed, grant = Revoke(lease_id=id, principal="eve"), Grant(ttl=HOUR, author="ann")
    answers = await space.group(guessed, grant, guessed, Revoke(lease_id=id + 1, principal="eve"))
    assert [type(answer) for answer in answers] == [LeaseNotFound, Outcome, PermissionDenied, LeaseNotFound]
    assert await space.leases() == {id: 0}


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
    assert await space.revision() == 1


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
