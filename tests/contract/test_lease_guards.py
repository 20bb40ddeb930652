"""Writes that apply only while a lease lives."""

import pytest

from comity_server.errors import (
    LeaseLost,
    LeaseNotFound,
)
from comity_server.model import (
    Condition,
    Delete,
    DropCheckpoint,
    Fork,
    Grant,
    Guard,
    Increment,
    MakeCheckpoint,
    Merge,
    Outcome,
    Put,
    Restore,
    Revoke,
    Strategy,
    Test,
    Transaction,
    Write,
)
from tests.contract.leases import SHORT, refused, stand_still
from tests.contract.space import HOUR, Space


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
        error = await refused(space, LeaseLost, Transaction(then=[Put("a", b"")], guard=guard))
        said = "does not have the fence 7" if guard.lease_id == lease.id else "has ended"
        assert error.message == f"lease {guard.lease_id}, which guards the write, {said}; nothing was done"
        assert error.metadata == {"lease_id": str(guard.lease_id)}


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


async def test_a_lease_serves_the_writes_behind_it_in_its_group(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    id = stand_still(space, monkeypatch)
    put, guard = Put("a", b"", lease_id=id), Guard(id, id)
    answers = await space.group(
        Grant(ttl=HOUR),
        Transaction(then=[put], guard=guard),
        Revoke(lease_id=id),
        Transaction(then=[put]),
        Transaction(then=[Put("b", b"", ttl=HOUR)]),
        Transaction(then=[Put("c", b"")], guard=Guard(id + 1)),
        Transaction(then=[Delete("b")]),
        Transaction(then=[Put("d", b"")], guard=Guard(id + 1)),
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
