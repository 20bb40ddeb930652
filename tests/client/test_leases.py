"""Leases as a program holds them: kept alive, lived by, guarded by, revoked."""

import asyncio
import datetime
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Lease, LeaseGuard, LeaseLost, LeaseNotFound, Put
from comity.leases import keeper
from tests.client.leases import KEPT, LONG, SHORT, gone, renewed, revoked_by_another, value_of
from tests.client.states import value
from tests.client.streams import Watched
from tests.servers import Server
from tests.waiting import until


def is_alive(lease: Lease) -> bool:
    """A function, so that nobody takes it for a constant."""
    return lease.alive


# Holding one


async def test_a_block_holds_a_lease(state: Client) -> None:
    async with state.lease(10) as lease:
        put = await state.put("agents/a", 1, lease=lease)
        assert lease.alive
        assert 9 < lease.remaining <= 10
        assert (lease.fence, lease.guard, lease.ttl) == (lease.id, LeaseGuard(lease.id, lease.id), 10)
        entry = await state.get("agents/a")
        assert entry is not None
        assert entry.lease_id == put.lease_id == lease.id
        found = await state.get_lease(lease)
        assert (found.id, found.ttl, found.author, found.key_count) == (lease.id, 10, "ann", 1)
        assert not found.ends_with_keys
    assert await state.get("agents/a") is None
    assert await gone(state, lease)
    assert not is_alive(lease)
    assert lease.remaining == 0
    assert [commit.author async for commit in state.history(keys_only=True)] == ["ann"] * 3


async def test_it_is_kept_alive(state: Client) -> None:
    async with state.lease(KEPT) as lease:
        first = await state.get_lease(lease)
        later = first.expire_time + datetime.timedelta(seconds=KEPT)

        async def was_renewed() -> bool:
            return (await state.get_lease(lease)).expire_time > later

        await until(was_renewed, seconds=20)
        lease.check()
        assert 0 < lease.remaining <= KEPT


async def test_many_are_kept_alive_on_one_stream(state: Client) -> None:
    leases = await asyncio.gather(*(state.grant_lease(LONG) for _ in range(300)))
    assert len({lease.id for lease in leases}) == 300
    latest = max([found.expire_time async for found in state.list_leases(page_size=70)])

    async def all_were_renewed() -> bool:
        return all([found.expire_time > latest async for found in state.list_leases()])

    await until(all_were_renewed, seconds=20)
    assert all(lease.alive for lease in leases)
    assert [found.id async for found in state.list_leases(page_size=7)] == sorted(lease.id for lease in leases)
    await asyncio.gather(*(lease.revoke() for lease in leases))
    assert [found async for found in state.list_leases()] == []


async def test_revoking(state: Client) -> None:
    lease = await state.grant_lease(10, message="to try")
    await state.transact(then=[Put("a", 1, lease=lease), Put("b", 2, lease=lease.id)])
    await lease.revoke(message="enough")
    await lease.revoke()
    last = (await state.history().all())[0]
    assert (last.message, {event.key for event in last.events}) == ("enough", {"a", "b"})
    with pytest.raises(LeaseLost, match="it was revoked here"):
        lease.check()
    with pytest.raises(LeaseNotFound):
        await state.revoke_lease(lease)
    other = await state.grant_lease(10)
    await state.put("c", 1, lease=other)
    assert await state.revoke_lease(other) == 1


async def test_a_closed_lease_lives_for_as_long_as_it_has_left(state: Client) -> None:
    lease = await state.grant_lease(KEPT)
    await state.put("a", 1, lease=lease)
    await lease.close()
    found = await state.get_lease(lease)
    assert 0 < lease.remaining <= found.remaining
    assert is_alive(lease)
    await until(lambda: gone(state, lease), seconds=20)
    assert not is_alive(lease)
    await lease.lost()
    assert await state.get("a") is None


async def test_a_lease_is_taken_up_by_another(state: Client, server: Server, namespace: str) -> None:
    put = await state.put("a", 1, ttl=LONG)
    async with comity.connect(server.address, namespace=namespace) as other:
        lease = await other.keep_alive(put.lease_id)
        again = await other.keep_alive(lease)
        assert (lease.id, lease.ttl) == (put.lease_id, LONG)
        found = await state.get_lease(lease.id)
        assert found.ends_with_keys
        later = found.expire_time + datetime.timedelta(seconds=0.1)

        async def was_renewed() -> bool:
            return (await state.get_lease(lease.id)).expire_time > later

        await until(was_renewed, seconds=20)
        assert lease.alive
        await lease.close()
        assert again.alive
        await state.put("a", 2)  # by no lease
        await again.lost()
    with pytest.raises(LeaseNotFound) as error:
        await state.keep_alive(put.lease_id)
    assert error.value.lease_id == put.lease_id


@pytest.mark.parametrize("ttl", [LONG, LONG / 10, LONG * 10])
async def test_a_ttl_that_is_known_need_not_be_asked_for(state: Client, ttl: float) -> None:
    """And one that is wrong is asked for all the same."""
    put = await state.put("a", 1, ttl=LONG)
    lease = await state.keep_alive(put.lease_id, ttl=ttl)
    assert lease.ttl == LONG
    there = await state.get_lease(lease)
    assert 0 < lease.remaining <= there.remaining
    await lease.revoke()


async def test_a_renewal_by_hand(state: Client) -> None:
    lease = await state.grant_lease(60)
    await lease.close()
    assert 59 < await state.renew_lease(lease) <= 60
    await state.revoke_lease(lease)
    with pytest.raises(LeaseNotFound) as error:
        await state.renew_lease(lease.id)
    assert error.value.lease_id == lease.id


async def test_a_client_that_is_closed_revokes_nothing(state: Client, server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)
    lease = await client.grant_lease(KEPT)
    await client.put("a", 1, lease=lease)
    await client.close()
    assert await value_of(state, "a") == 1
    with pytest.raises(RuntimeError, match="closed"):
        await client.grant_lease(SHORT)
    await lease.lost()
    await until(lambda: gone(state, lease.id), seconds=20)
    with pytest.raises(RuntimeError, match="closed"):
        await lease.revoke()


async def test_a_stream_that_no_lease_needs_ends(state: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever comes just then has another one."""
    monkeypatch.setattr(keeper, "IDLE_SECONDS", 0.0)
    before = asyncio.all_tasks()
    for turn in range(6):
        lease = await state.grant_lease(LONG)
        await renewed(lease)
        await lease.revoke()
        if turn % 2:
            await asyncio.sleep(0)  # each time at another moment of its end
    await until(lambda: not {task for task in asyncio.all_tasks() - before if "Keeper" in repr(task)})


async def test_a_lease_survives_that_all_tasks_are_cancelled(state: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "CLEANUP_SECONDS", 0.0)
    lease = await state.grant_lease(KEPT)
    await renewed(lease)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await renewed(lease)
    await renewed(lease)


# Keys with a ttl


@pytest.mark.parametrize("ttl", [1, 1.25, 1.0000005])
async def test_a_key_with_a_ttl(state: Client, ttl: float) -> None:
    """Such as the fast lane can say, and one that it cannot."""
    async with state.watch(key="a") as watch:
        await watch.ready()
        put = await state.put("a", 1, ttl=ttl)
        found = await state.get_lease(put.lease_id)
        assert found.ttl == pytest.approx(ttl, abs=1e-6)
        assert found.ends_with_keys
        event = await anext(watch)
        assert isinstance(event, comity.Event)
        assert event.entry.lease_id == put.lease_id
        event = await anext(watch)
        assert isinstance(event, comity.Event)
        assert event.is_delete
        assert event.cause is comity.EventCause.LEASE_EXPIRY
    assert await gone(state, put.lease_id)


async def test_what_the_fast_lane_says(state: Client) -> None:
    said = Watched(state)
    await state.put("a", 1, ttl=10.005)
    await state.put("b", 1, ttl=10.0005)
    assert [message.operations[0].ttl_ms for message in said.messages] == [10_005]
    entry = await state.get("b")
    assert entry is not None
    assert (await state.get_lease(entry.lease_id)).ttl == 10.0005
    lease = await state.grant_lease(10)
    await state.put("c", 1, lease=lease, guard=lease)
    operation = said.messages[-1].operations[0]
    assert operation.lease_id == operation.guard_lease_id == operation.guard_fence == lease.id


async def test_keys_of_a_transaction_share_a_lease(state: Client) -> None:
    async def work(tx: comity.Transaction) -> None:
        tx.put("a", 1, ttl=10)
        tx.put("b", 1, ttl=10)
        tx.increment("b", 4)
        assert value(await tx.get("b")) == 5

    await state.transact(work)
    a, b = await state.get("a"), await state.get("b")
    assert a is not None
    assert b is not None
    assert a.lease_id == b.lease_id != 0
    assert b.value == 5
    assert (await state.get_lease(a.lease_id)).key_count == 2
    await state.transact(lambda tx: tx.increment("b"))
    assert (await state.get_lease(a.lease_id)).key_count == 2
    with pytest.raises(comity.InvalidArgument):
        await state.transact(then=[Put("a", 1, ttl=10), Put("b", 1, ttl=11)])


async def test_cells_live_by_leases(state: Client) -> None:
    cell = state.cell("n", int, default=0)
    async with state.lease(10) as lease:
        await cell.create(1, lease=lease)
        assert await cell.update(lambda n: n + 1, lease=lease, guard=lease) == 2
        assert (await state.get_lease(lease)).key_count == 1
    assert await cell.get() == 0
    put = await cell.set(5, ttl=10, guard=None)
    assert (await state.get_lease(put.lease_id)).key_count == 1
    with pytest.raises(LeaseLost):
        await cell.delete(guard=lease)


# Guards


WRITES: list[Callable[[Client, Any], Awaitable[object]]] = [
    lambda state, guard: state.put("a", 2, guard=guard),
    lambda state, guard: state.put("a", 2, guard=guard, request_id=comity.RequestId(str(uuid.uuid4()), 1)),
    lambda state, guard: state.put("a", 2, ttl=1.0000005, guard=guard),
    lambda state, guard: state.delete("a", guard=guard),
    lambda state, guard: state.delete(prefix="a", guard=guard),
    lambda state, guard: state.transact(then=[Put("a", 2)], guard=guard),
    lambda state, guard: state.transact(lambda tx: tx.put("a", 2), guard=guard),
    lambda state, guard: state.transact(guard=guard),
    lambda state, guard: state.transact(lambda tx: tx.get("a"), guard=guard),
    lambda state, guard: state.checkpoint("mark", guard=guard),
    lambda state, guard: state.restore(1, guard=guard),
    lambda state, guard: state.grant_lease(10, guard=guard),
    lambda state, guard: state.cell("a", int).update(lambda n: n + 1, guard=guard),
]


@pytest.mark.parametrize("write", WRITES)
async def test_a_guarded_write(state: Client, write: Callable[[Client, Any], Awaitable[object]]) -> None:
    await state.put("a", 1)
    async with state.lease(10) as lease:
        await write(state, lease)
    await state.put("a", 1)
    with pytest.raises(LeaseLost) as here:
        await write(state, lease)
    with pytest.raises(LeaseLost) as there:
        await write(state, lease.guard)
    assert "revoked here" in here.value.message
    assert "guards the write" in there.value.message
    assert here.value.lease_id == there.value.lease_id == lease.id
    assert await value_of(state, "a") == 1


async def test_a_guarded_function_that_writes_nothing(state: Client) -> None:
    """What it has read it has read while the lease lived; that makes no revision, and no run is lost for it."""
    first = await state.put("a", 1)

    async def look(tx: comity.Transaction) -> Any:
        found = await tx.get("a")
        await state.put("a", 2)
        return value(found)

    async with state.lease(10) as lease:
        assert await state.transact(look, guard=lease) == 1
        assert (await state.namespace_info()).revision == first.revision + 2


async def test_a_guarded_merge_and_deletion_of_a_checkpoint(state: Client) -> None:
    await state.put("a", 1)
    await state.checkpoint("mark")
    fork = await state.fork(f"{state.namespace[:50]}-f")
    await fork.put("a", 2)
    lease = await state.grant_lease(10)
    await lease.revoke()
    with pytest.raises(LeaseLost):
        await state.merge(fork, guard=lease.guard)
    with pytest.raises(LeaseLost):
        await state.delete_checkpoint("mark", guard=lease.guard)


async def test_a_write_that_is_refused_tells_the_holder(state: Client) -> None:
    """Before the server has said anything unasked, as of a lease that was not renewed yet."""
    lease = await state.grant_lease(3600)
    told: list[Lease] = []
    lease.on_lost(told.append)
    await revoked_by_another(state, lease)
    with pytest.raises(LeaseLost):
        await state.put("a", 1, guard=lease.guard)
    assert not lease.alive
    assert told == [lease]
    with pytest.raises(LeaseNotFound):
        await state.put("a", 1, lease=lease.id)
    with pytest.raises(LeaseLost):
        await state.put("a", 1, lease=lease)
