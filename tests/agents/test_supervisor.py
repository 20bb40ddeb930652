"""Supervisors: children begin, end, and are stopped."""

import asyncio
import math
import os
from collections.abc import Callable

import psutil
import pytest

import comity
from comity.agents import (
    Child,
    ChildState,
    Directory,
    Restart,
    RestartLimitExceeded,
    Strategy,
    Supervisor,
)
from comity.agents.children import Mode
from tests import servers
from tests.agents import members
from tests.agents.conftest import SHORT, TTL, Launch
from tests.agents.supervising import MODES, cancelled, gone, present, until_status
from tests.servers import Server
from tests.waiting import until


@pytest.mark.parametrize("mode", MODES)
async def test_children_are_seen_while_they_live_and_end_with_the_block(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.stay, name="stayer", mode=mode, role="worker")
        presence = await child.ready()
        assert (presence.name, presence.role, presence.supervisor) == ("stayer", "worker", "boss")
        assert (presence.pid == os.getpid()) == (mode == "task")
        await until_status(
            supervisor, lambda status: status.presence is not None and status.presence.status == "staying"
        )
        (status,) = supervisor.children()
        assert (status.name, status.state, status.restarts, status.why) == ("stayer", ChildState.RUNNING, 0, "")
        assert status.pid == presence.pid
        assert supervisor.child("stayer") is child
        with pytest.raises(KeyError):
            supervisor.child("nobody")
        with pytest.raises(ValueError, match="already"):
            await supervisor.spawn(members.stay, name="stayer")
    assert child.status.state is ChildState.STOPPED
    if mode == "process":
        assert not psutil.pid_exists(presence.pid)
    assert await state.list().all() == []
    with pytest.raises(RuntimeError, match="has ended"):
        await supervisor.spawn(members.stay)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("restart", "function", "state_after", "restarts"),
    [
        (Restart.TEMPORARY, members.finish, ChildState.RETURNED, 0),
        (Restart.TEMPORARY, members.fail, ChildState.FAILED, 0),
        (Restart.TRANSIENT, members.finish, ChildState.RETURNED, 0),
    ],
)
async def test_children_that_end_for_good(
    state: comity.Client,
    mode: Mode,
    restart: Restart,
    function: Callable[..., object],
    state_after: ChildState,
    restarts: int,
) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(function, mode=mode, restart=restart)  # type: ignore[arg-type]
        (status,) = await supervisor.wait()
        assert (status.state, status.restarts) == (state_after, restarts)
        if state_after is ChildState.FAILED:
            assert status.why == f"ValueError: {child.name} cannot"
            with pytest.raises(RuntimeError, match="cannot"):
                await child.ready()


@pytest.mark.parametrize(
    ("restart", "function"), [(Restart.PERMANENT, members.finish), (Restart.TRANSIENT, members.fail)]
)
async def test_too_many_restarts_stop_all(
    state: comity.Client, restart: Restart, function: Callable[..., object]
) -> None:
    supervisor = Supervisor(state, "boss", ttl=TTL, max_restarts=2, within=60)

    async def run() -> None:
        async with supervisor:
            await supervisor.spawn(members.stay, name="stayer")
            await supervisor.spawn(function, name="ender", restart=restart)  # type: ignore[arg-type]
            await asyncio.Event().wait()

    with pytest.raises(RestartLimitExceeded, match=r"ender has ended .* 2 restarts within 60 s") as exceeded:
        await run()
    if function is members.fail:
        assert isinstance(exceeded.value.__cause__, ValueError)
    stayer, ender = supervisor.children()
    assert (stayer.state, ender.state, ender.restarts) == (ChildState.STOPPED, ChildState.FAILED, 2)
    assert [entry.key async for entry in state.list() if not entry.key.startswith("agent-state/")] == []


@pytest.mark.parametrize(
    ("strategy", "restarts"),
    [(Strategy.ONE_FOR_ONE, [0, 1, 0]), (Strategy.ONE_FOR_ALL, [1, 1, 1]), (Strategy.REST_FOR_ONE, [0, 1, 1])],
)
async def test_strategies(state: comity.Client, strategy: Strategy, restarts: list[int]) -> None:
    async with Supervisor(state, "boss", ttl=TTL, strategy=strategy) as supervisor:
        before = [await (await supervisor.spawn(members.stay, name=name)).ready() for name in ("a", "b", "c")]
        await state.revoke_lease(before[1].incarnation)  # its block is cancelled
        await until_status(supervisor, lambda status: status.name == "b" and status.restarts == 1)
        after = [await supervisor.child(name).ready() for name in ("a", "b", "c")]
        await until(lambda: [one.restarts for one in supervisor.children()] == restarts)
        assert [one.incarnation != other.incarnation for one, other in zip(before, after, strict=True)] == [
            bool(number) for number in restarts
        ]


@pytest.mark.parametrize("mode", MODES)
async def test_a_child_can_be_stopped(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.stay, mode=mode)
        assert child.name == "stay-1"
        await child.ready()
        await child.stop()
        assert (await child.wait()).state is ChildState.STOPPED
        assert await Directory(state).list() == []
        again = await supervisor.spawn(members.stay, name="stay-1", mode=mode)
        await again.ready()
        assert [one.name for one in supervisor.children()] == ["stay-1"]


async def test_a_process_that_does_not_end_is_killed(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60, grace=0.2) as supervisor:
        child = await supervisor.spawn(members.ignore_the_end, mode="process")
        presence = await child.ready()
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "stubborn")
    assert not psutil.pid_exists(presence.pid)
    assert await Directory(state).list() == []


async def test_a_task_that_goes_on_is_cancelled_until_it_ends(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60, grace=0.1) as supervisor:
        child = await supervisor.spawn(members.ignore_cancellation)
        await child.ready()
    assert child.status.state is ChildState.STOPPED
    assert await Directory(state).list() == []


async def test_whoever_is_in_a_hurry_cancels_again(state: comity.Client) -> None:
    supervisor = Supervisor(state, "boss", ttl=60, grace=600)

    async def run() -> None:
        async with supervisor:
            await supervisor.spawn(members.ignore_the_end, mode="process")
            await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "stubborn")

    task = asyncio.create_task(run())
    await until(lambda: has_child(supervisor, ChildState.STOPPING))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.state for one in supervisor.children()] == [ChildState.STOPPED]


def has_child(supervisor: Supervisor, state: ChildState) -> bool:
    try:
        return any(one.state is state for one in supervisor.children())
    except RuntimeError:
        return False


async def test_no_child_outlives_a_client_that_was_closed(server: Server, namespace: str) -> None:
    state = comity.connect(server.address, namespace=namespace)
    children: list[Child] = []
    pids: list[int] = []

    async def run() -> None:
        async with Supervisor(state, "boss", ttl=TTL) as supervisor:
            children.extend([await supervisor.spawn(members.stay, mode=mode) for mode in (*MODES, *MODES)])
            pids.extend([(await child.ready()).pid for child in children])
            await state.close()

    with pytest.raises(RuntimeError, match="client is closed"):
        await run()
    assert all(child.status.state is ChildState.STOPPED for child in children)
    assert [pid for pid in pids if pid != os.getpid() and psutil.pid_exists(pid)] == []


async def test_a_server_that_is_gone_ends_the_supervisor(namespace: str) -> None:
    with servers.start() as own:

        async def run() -> None:
            async with (
                comity.connect(own.address, namespace=namespace, timeout=1) as state,
                Supervisor(state, "boss", ttl=SHORT) as supervisor,
            ):
                children = [await supervisor.spawn(members.stay, mode=mode) for mode in MODES]
                pids.extend([(await child.ready()).pid for child in children])
                own.kill()
                await supervisor.wait()

        pids: list[int] = []
        with pytest.raises(comity.ComityError):
            await run()
        assert not psutil.pid_exists(pids[1])


async def test_a_process_that_exits_is_a_process_that_failed(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        await supervisor.spawn(members.exit_with_3, mode="process", restart=Restart.TEMPORARY)
        (status,) = await supervisor.wait()
        assert (status.state, status.why) == (ChildState.FAILED, "exited with 3")


async def test_the_blocks_own_error_comes_through(state: comity.Client) -> None:
    async def run() -> None:
        async with Supervisor(state, "boss", ttl=TTL) as supervisor:
            await (await supervisor.spawn(members.stay)).ready()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run()
    task = asyncio.create_task(cancelled(state))
    await until(lambda: present(state, "stay-1"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state.list().all() == []


async def test_an_agent_that_has_lost_its_lease_says_so_in_a_line(
    state: comity.Client, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    process = await launch("stayer", members.stay, ttl=TTL)

    async for event in Directory(state).watch():
        if event.presence.status == "staying":
            await state.revoke_lease(event.presence.incarnation)
            break
    assert (await process.ended()).why.startswith("comity.errors.LeaseLost")
    said = capfd.readouterr().err
    assert "agent stayer failed: comity.errors.LeaseLost" in said
    assert "Traceback" not in said


async def test_a_child_that_has_returned_has_returned_whatever_its_process_exits_with(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.return_and_exit, mode="process", restart=Restart.TRANSIENT)
        status = await child.wait()
        assert (status.state, status.why, status.restarts) == (ChildState.RETURNED, "returned", 0)


@pytest.mark.parametrize("mode", MODES)
async def test_a_text_that_cannot_be_stored_harms_nobody_else(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.fail_unreadably, mode=mode, restart=Restart.TEMPORARY)
        status = await child.wait()
        assert (status.state, status.why) == (ChildState.FAILED, "ValueError: no ?.txt")


async def test_what_several_children_end_by_counts_once(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=1) as supervisor:
        children = [await supervisor.spawn(members.stay, ttl=TTL) for _ in range(4)]
        before = [await child.ready() for child in children]
        for presence in before:
            await state.revoke_lease(presence.incarnation)
        await until(lambda: [one.restarts for one in supervisor.children()] == [1] * 4)
        after = [await child.ready() for child in children]
        assert all(one.incarnation > other.incarnation for one, other in zip(after, before, strict=True))


async def test_a_child_that_is_a_supervisor_has_the_time_that_it_needs(state: comity.Client) -> None:
    async with Supervisor(state, "outer", ttl=TTL, grace=0.1) as supervisor:
        await supervisor.spawn(members.supervise_others, name="inner", mode="process", ttl=TTL, grace=math.inf)
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "supervising")
        stubborn = await Directory(state).get("stubborn")
        assert stubborn is not None
        for wrong in (0, -1, math.nan):
            with pytest.raises(ValueError, match="grace"):
                await supervisor.spawn(members.stay, grace=wrong)
    assert not psutil.pid_exists(stubborn.pid)
    assert await gone(state)
