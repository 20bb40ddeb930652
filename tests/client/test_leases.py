"""Leases as a program holds them: kept alive, lived by, guarded by, revoked."""

import asyncio
import datetime
import gc
import math
import uuid
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Lease, LeaseGuard, LeaseLost, LeaseNotFound, Put
from comity.leases import keeper
from tests.client.states import value
from tests.client.streams import Watched
from tests.client.test_contexts import run_script
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until

SHORT = 1.0  # the least ttl that a server grants
KEPT = 3.0  # one that passes while a test waits, but not while it is held up
LONG = 30.0  # one that does not pass; the first renewal comes soon all the same


async def revoked_by_another(state: Client, lease: Lease) -> None:
    """End a lease behind the back of its holder, who is not told before it has asked."""
    await state.revoke_lease(lease.id)


async def gone(state: Client, lease: Lease | int) -> bool:
    try:
        await state.get_lease(lease)
    except LeaseNotFound:
        return True
    return False


def is_alive(lease: Lease) -> bool:
    """A function, so that nobody takes it for a constant."""
    return lease.alive


async def renewed(lease: Lease) -> None:
    """Wait until a renewal was answered after this call. Raises LeaseLost."""
    before = lease._deadline
    await until(lambda: lease._deadline > before or not lease.alive)
    lease.check()


# Holding one


async def test_a_block_holds_a_lease(state: Client) -> None:
    async with state.lease(10) as lease:
        put = await state.put("agents/a", 1, lease=lease)
        assert lease.alive
        assert 9 < lease.remaining <= 10
        assert (lease.fence, lease.guard, lease.ttl) == (lease.id, LeaseGuard(lease.id, lease.id), 10)
        entry = await state.get("agents/a")
        assert entry is not None
        assert entry.lease_id == lease.id < put.revision
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
        lease = await other.keep_alive(put.revision)
        again = await other.keep_alive(lease)
        assert (lease.id, lease.ttl) == (put.revision, LONG)
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
        await state.keep_alive(put.revision)
    assert error.value.lease_id == put.revision


@pytest.mark.parametrize("ttl", [LONG, LONG / 10, LONG * 10])
async def test_a_ttl_that_is_known_need_not_be_asked_for(state: Client, ttl: float) -> None:
    """And one that is wrong is asked for all the same."""
    put = await state.put("a", 1, ttl=LONG)
    lease = await state.keep_alive(put.revision, ttl=ttl)
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


async def value_of(state: Client, key: str) -> Any:
    return value(await state.get(key))


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
        found = await state.get_lease(put.revision)
        assert found.ttl == pytest.approx(ttl, abs=1e-6)
        assert found.ends_with_keys
        event = await anext(watch)
        assert isinstance(event, comity.Event)
        assert event.entry.lease_id == event.entry.create_revision == put.revision
        event = await anext(watch)
        assert isinstance(event, comity.Event)
        assert event.is_delete
        assert event.cause is comity.EventCause.LEASE_EXPIRY
    assert await gone(state, put.revision)


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
    assert a.lease_id == b.lease_id == a.mod_revision
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
    assert (await state.get_lease(put.revision)).key_count == 1
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


# Being told


async def test_a_block_whose_lease_is_lost_is_cancelled(state: Client) -> None:
    leases: list[Lease] = []

    async def block() -> None:
        async with state.lease(3600) as lease:
            leases.append(lease)
            await revoked_by_another(state, lease)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost, match="the server says that it has ended") as lost:
        await block()
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    assert lost.value.lease_id == leases[0].id
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_what_a_block_raises_when_its_lease_is_lost_is_raised(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


async def test_a_block_that_learns_it_by_itself_is_not_cancelled_afterwards(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            await state.put("a", 1, guard=lease)

    with pytest.raises(LeaseLost):
        await block()
    await state.put("a", 2)  # where a cancellation that nobody has seen yet would come out


async def test_a_block_that_hears_nothing_of_it_is_told_at_its_end(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await block()


async def test_a_block_that_is_cancelled_revokes(state: Client) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with state.lease(3600) as lease:
            await state.put("a", 1, lease=lease)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state.get("a") is None


async def test_a_block_that_is_cancelled_twice_revokes_all_the_same(state: Client) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with state.lease(3600) as lease:
            await state.put("a", 1, lease=lease)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def is_absent() -> bool:
        return await state.get("a") is None

    await until(is_absent)


async def test_a_cancellation_from_outside_is_none_of_the_block(state: Client) -> None:
    """Both come at once: whoever cancelled wants to see it."""
    entered = asyncio.Event()
    lost: list[Lease] = []

    async def work() -> None:
        async with state.lease(3600) as lease:
            lost.append(lease)
            lease.on_lost(lambda _: task.cancel())
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    await revoked_by_another(state, lost[0])
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_blocks_within_each_other(state: Client) -> None:
    """The outer one ends: what the inner one holds is revoked, and it is the outer one that says so."""
    leases: list[Lease] = []

    async def block() -> None:
        async with state.lease(3600) as outer, state.lease(3600) as inner:
            leases[:] = outer, inner
            await revoked_by_another(state, outer)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost) as lost:
        await block()
    assert lost.value.lease_id == leases[0].id
    assert await gone(state, leases[1].id)


async def test_everybody_who_wants_to_know_is_told_once(state: Client) -> None:
    def cancelled(_: Lease) -> None:
        raise asyncio.CancelledError

    told: list[tuple[str, Lease]] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lease = await state.grant_lease(3600)
    waiting = [asyncio.create_task(lease.lost()) for _ in range(3)]
    lease.on_lost(lambda found: told.append(("a", found)))
    lease.on_lost(lambda _: 1 / 0)
    lease.on_lost(cancelled)
    lease.on_lost(lambda found: told.append(("b", found)))
    await revoked_by_another(state, lease)
    await asyncio.gather(*waiting)
    assert told == [("a", lease), ("b", lease)]
    assert [type(found["exception"]) for found in complaints] == [ZeroDivisionError, asyncio.CancelledError]
    lease.on_lost(lambda found: told.append(("late", found)))
    await until(lambda: told[2:] == [("late", lease)])
    await lease.lost()


async def test_who_waits_no_longer_is_forgotten(state: Client) -> None:
    lease = await state.grant_lease(3600)
    for _ in range(3):
        waiting = asyncio.create_task(lease.lost())
        await until(lambda: len(lease._callbacks) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert lease._callbacks == []
    await lease.revoke()


async def test_nobody_is_told_of_what_was_revoked_here(state: Client) -> None:
    told: list[Lease] = []
    lease = await state.grant_lease(SHORT)
    lease.on_lost(told.append)
    waiting = asyncio.create_task(lease.lost())
    await lease.revoke()
    other = await state.grant_lease(SHORT)
    await other.close()
    await other.lost()  # so that the time of both is over
    assert not waiting.done()
    assert told == []
    waiting.cancel()


async def test_a_block_that_revokes_its_lease_itself(state: Client) -> None:
    async with state.lease(10) as lease:
        await lease.revoke()
    async with state.lease(10) as lease:
        await state.close()
        assert lease.alive


async def test_a_block_is_entered_once(state: Client) -> None:
    leasing = state.lease(10)
    async with leasing:
        pass
    with pytest.raises(RuntimeError, match="for one block"):
        async with leasing:
            pass


# Repeats


async def test_a_grant_that_is_tried_again_is_one_grant(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as state:
        await state.put("a", 1)
        proxy.stall()
        granting = asyncio.create_task(state.grant_lease(60))
        await proxy.held_back()
        await proxy.cut()
        proxy.resume()
        lease = await granting
        assert [found.id async for found in state.list_leases()] == [lease.id]
        await lease.close()
        found = await state.get_lease(lease)
        assert lease.remaining <= found.remaining


async def test_a_grant_with_a_name_of_its_own(state: Client) -> None:
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.close()
    again = await state.grant_lease(LONG, request_id=name)
    assert again.id == lease.id
    assert [found.id async for found in state.list_leases()] == [lease.id]
    await again.revoke()


async def test_a_grant_that_is_repeated_renews_the_lease(state: Client) -> None:
    """The first answer says nothing about how the lease is now."""
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.close()
    first = await state.get_lease(lease)
    again = await state.grant_lease(LONG, request_id=name)
    found = await state.get_lease(lease)
    assert found.expire_time > first.expire_time
    assert again.remaining <= found.remaining


async def test_a_grant_that_is_repeated_after_the_end(state: Client) -> None:
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.revoke()
    with pytest.raises(LeaseLost, match=f"lease {lease.id}, of 30 s, has ended") as lost:
        await state.grant_lease(LONG, request_id=name)
    assert lost.value.lease_id == lease.id
    with pytest.raises(comity.InvalidArgument):
        await state.grant_lease(2 * LONG, request_id=name)


# Arguments


TYPES: list[tuple[str, Callable[[Any], Awaitable[object]]]] = [
    ("ttl must be a number of seconds above 0, not str", lambda state: state.grant_lease("10")),
    ("ttl must be a number of seconds above 0, not bool", lambda state: state.grant_lease(True)),
    ("ttl must be a number of seconds above 0, not NoneType", lambda state: state.grant_lease(None)),
    ("ttl must be a number of seconds above 0, not str", lambda state: state.put("a", 1, ttl="1")),
    ("ttl must be a number .*, not list", lambda state: state.transact(lambda tx: tx.put("a", 1, ttl=[1]))),
    ("give either a lease or a ttl", lambda state: state.put("a", 1, ttl=1, lease=1)),
    ("give either a lease or a ttl", lambda state: state.transact(lambda tx: tx.put("a", 1, ttl=1, lease=1))),
    ("a lease is named by .*, not by str", lambda state: state.put("a", 1, lease="1")),
    ("a lease is named by .*, not by float", lambda state: state.get_lease(1.0)),
    ("a lease is named by .*, not by bool", lambda state: state.revoke_lease(True)),
    ("a lease is named by .*, not by NoneType", lambda state: state.keep_alive(None)),
    ("ttl must be a number of seconds above 0, not str", lambda state: state.keep_alive(1, ttl="10")),
    ("a lease is named by .*, not by str", lambda state: state.renew_lease("1")),
    (r"then\[0\]: a lease is named by .*", lambda state: state.transact(then=[Put("a", 1, lease="x")])),  # type: ignore[arg-type]
    ("guard must be a comity.Lease or a comity.LeaseGuard, not int", lambda state: state.put("a", 1, guard=3)),
    ("guard must be a comity.Lease or a comity.LeaseGuard, not tuple", lambda state: state.delete("a", guard=(1, 1))),
    ("guard must be .*, not str", lambda state: state.transact(lambda tx: tx.put("a", 1), guard="x")),
    ("a fence is a whole number", lambda state: state.put("a", 1, guard=LeaseGuard(1, "1"))),  # type: ignore[arg-type]
    ("page_size must be a whole number", lambda state: anext(state.list_leases(page_size="1"))),
]
VALUES: list[tuple[str, Callable[[Any], Awaitable[object]]]] = [
    *(("a ttl is a number of seconds above 0", lambda state, ttl=ttl: state.grant_lease(ttl)) for ttl in (0, -1)),
    *(
        ("a ttl is a number of seconds above 0", lambda state, ttl=ttl: state.put("a", 1, ttl=ttl))
        for ttl in (math.nan, -math.inf)
    ),
    *(
        (f"^a ttl is at most 315576000000 s, not {shown}$", lambda state, ttl=ttl: state.put("a", 1, ttl=ttl))
        for ttl, shown in (
            (math.inf, "inf"),
            (1e12, "1000000000000.0"),
            (1e300, r"1e\+300"),
            (10**30, r"1e\+30"),
            (10**5000, "a number of more than 308 digits"),
        )
    ),
    ("^a ttl .* above 0, not a negative number of more than 308 digits$", lambda state: state.grant_lease(-(10**400))),
    ("a ttl is a number of seconds above 0", lambda state: state.keep_alive(1, ttl=0)),
    ("the id of a lease is a whole number from 1", lambda state: state.put("a", 1, lease=0)),
    ("the id of a lease is a whole number from 1", lambda state: state.get_lease(-1)),
    ("the id of a lease is a whole number from 1", lambda state: state.renew_lease(2**63)),
    ("^the id of a lease .*, not a number of more than 308 digits$", lambda state: state.get_lease(10**400)),
    ("the id of a lease is a whole number from 1", lambda state: state.put("a", 1, guard=LeaseGuard(0))),
    ("a fence is a whole number from 0", lambda state: state.put("a", 1, guard=LeaseGuard(1, -1))),
]


@pytest.mark.parametrize(("text", "call"), TYPES)
async def test_a_wrong_type(state: Client, text: str, call: Callable[[Any], Awaitable[object]]) -> None:
    with pytest.raises(TypeError, match=text):
        await call(state)


@pytest.mark.parametrize(("text", "call"), VALUES)
async def test_a_wrong_value(state: Client, text: str, call: Callable[[Any], Awaitable[object]]) -> None:
    with pytest.raises(ValueError, match=text):
        await call(state)


async def test_a_ttl_that_no_server_grants(state: Client) -> None:
    for ttl in (0.001, 1e-9, 86_401):
        with pytest.raises(comity.InvalidArgument, match="ttl"):
            await state.grant_lease(ttl)
        with pytest.raises(comity.InvalidArgument, match=r"^ttl: must be from 1 to 86400 s$"):
            await state.put("a", 1, ttl=ttl)
        with pytest.raises(comity.InvalidArgument, match=r"^ttl of 'a': must be from 1 to 86400 s$"):
            await state.transact(lambda tx, ttl=ttl: tx.put("a", 1, ttl=ttl))  # type: ignore[misc]


async def test_no_lease(state: Client) -> None:
    await state.put("a", 1)
    for call in (state.get_lease, state.revoke_lease, state.keep_alive, state.renew_lease):
        with pytest.raises(LeaseNotFound) as error:
            await call(10**15)
        assert error.value.lease_id == 10**15
        assert isinstance(error.value, comity.NotFound)
    with pytest.raises(LeaseNotFound):
        await state.put("a", 1, lease=10**15)
    with pytest.raises(LeaseLost) as lost:
        await state.put("a", 1, guard=LeaseGuard(10**15))
    assert isinstance(lost.value, comity.FailedPrecondition)


async def test_no_namespace(state: Client) -> None:
    with pytest.raises(comity.NotFound, match="namespace"):
        await anext(state.list_leases())


async def test_a_lease_of_another_namespace(state: Client) -> None:
    other = state.with_options(namespace=f"{state.namespace[:50]}-o")
    lease = await other.grant_lease(10)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: state.put("a", 1, lease=lease),
        lambda: state.put("a", 1, guard=lease),
        lambda: state.transact(lambda tx: tx.put("a", 1, lease=lease)),
        lambda: state.transact(then=[Put("a", 1, lease=lease)]),
        lambda: state.revoke_lease(lease),
        lambda: state.keep_alive(lease),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the lease is of namespace"):
            await call()
    assert lease.alive
    await other.put("a", 1, guard=lease)


async def test_what_is_called_is_a_plain_function(state: Client) -> None:
    lease = await state.grant_lease(10)

    async def later(_: Lease) -> None: ...

    with pytest.raises(TypeError, match="not an async one"):
        lease.on_lost(later)
    with pytest.raises(TypeError, match="callback must be a function, not int"):
        lease.on_lost(3)  # type: ignore[arg-type]


# Event loops


def test_a_lease_of_an_event_loop_that_has_ended(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)
    told: list[Lease] = []

    async def grant() -> Lease:
        lease = await client.grant_lease(KEPT)
        lease.on_lost(told.append)
        await client.put("a", 1, lease=lease)
        return lease

    async def use(lease: Lease) -> None:
        assert await value_of(client, "a") == 1
        await lease.lost()
        assert not lease.alive
        with pytest.raises(LeaseLost, match="no renewal was answered"):
            await client.put("b", 1, guard=lease)
        lease.on_lost(told.append)
        assert told == [lease, lease]
        await lease.close()
        await lease.revoke()

    async def end(lease: Lease) -> None:
        await lease.revoke()
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lease = asyncio.run(grant())
        other = asyncio.run(grant())
        asyncio.run(use(lease))
        asyncio.run(end(other))
        gc.collect()


def test_a_lease_in_another_event_loop(server: Server, namespace: str) -> None:
    """It is revoked there, and kept alive no longer by its own."""

    async def revoke(lease: Lease) -> None:
        lease.check()
        await client.put("a", 1, guard=lease)
        await lease.revoke()

    async def main() -> None:
        async with client:
            lease = await client.grant_lease(LONG)
            await asyncio.to_thread(lambda: asyncio.run(revoke(lease)))
            assert not lease.alive
            await until(lambda: gone(client, lease))
            other = await client.grant_lease(3600)
            waiting = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(other.lost())))
            await client.revoke_lease(other)
            await waiting

    client = comity.connect(server.address, namespace=namespace)
    asyncio.run(main(), debug=True)


def test_programs_end_without_a_word(server: Server, namespace: str) -> None:
    """With leases that are renewed, whatever becomes of the client and its event loop."""
    script = """
        import asyncio, sys
        import comity

        def connect():
            return comity.connect(sys.argv[1], namespace=sys.argv[2])

        async def hold(client):
            lease = await client.grant_lease(30.0)
            first = (await client.get_lease(lease)).expire_time
            while (await client.get_lease(lease)).expire_time == first:
                await asyncio.sleep(0.01)
            return lease

        async def left_open():
            await hold(connect())

        async def closed():
            async with connect() as client:
                await hold(client)

        async def interrupted():
            async with connect() as client, client.lease(30.0):
                await hold(client)
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
                await asyncio.sleep(60)

        for main in (left_open, closed, interrupted):
            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                print("cancelled")
        loop = asyncio.new_event_loop()
        client = connect()
        loop.run_until_complete(hold(client))
        loop.run_until_complete(client.close())
        loop.close()
    """
    assert run_script(script, server.address, namespace) == "cancelled\n"
