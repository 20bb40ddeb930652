"""Supervisors and their children, as tasks and as processes."""

import asyncio
import functools
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import comity
from comity.agents import (
    Agent,
    Child,
    ChildState,
    ChildStatus,
    Directory,
    Restart,
    RestartLimitExceeded,
    Role,
    Strategy,
    Supervisor,
    SupervisorExists,
)
from comity.agents.children import Mode
from comity.recipes import Queue
from tests import servers
from tests.agents import members
from tests.agents.conftest import SHORT, TTL, Launch
from tests.agents.program import Program
from tests.servers import Server
from tests.waiting import until

MODES: list[Mode] = ["task", "process"]


async def until_status(supervisor: Supervisor, holds: Callable[[ChildStatus], bool]) -> ChildStatus:
    async with asyncio.timeout(60):
        async for status in supervisor.watch():
            if holds(status):
                return status
    raise AssertionError("the supervisor has ended")


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


async def test_a_killed_process_is_replaced_and_goes_on_where_it_was(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:  # a ttl that the test would not outlast
        child = await supervisor.spawn(members.count_up, 30, name="counter", mode="process")
        presence = await child.ready()

        async def counted() -> bool:
            entry = await state.get("agent-state/counter/count")
            return entry is not None and entry.value >= 3

        await until(counted)
        os.kill(presence.pid, signal.SIGKILL)
        status = await until_status(
            supervisor, lambda one: one.presence is not None and one.presence.status == "counted"
        )
        assert (status.restarts, status.why) == (1, "killed by SIGKILL")
        assert status.presence is not None
        assert status.presence.incarnation > presence.incarnation
        entry = await state.get("agent-state/counter/count")
        assert entry is not None
        assert entry.value == 30


async def test_a_process_that_hangs_is_killed_and_replaced(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.stay, name="stayer", mode="process", ttl=SHORT)
        presence = await child.ready()
        os.kill(presence.pid, signal.SIGSTOP)
        status = await until_status(supervisor, lambda one: one.restarts == 1 and one.presence is not None)
        assert status.why == "its lease ended"
        assert not psutil.pid_exists(presence.pid)
        assert status.pid != presence.pid


async def test_work_that_a_dead_child_held_is_free_at_once(state: comity.Client) -> None:
    async with (
        Supervisor(state, "boss", ttl=600) as supervisor,
        Agent(state, "planner", ttl=600) as planner,
        Agent(state, "other", role="worker", ttl=600) as other,
    ):
        child = await supervisor.spawn(
            members.take_and_hang, name="hanger", mode="process", role="hanger", restart=Restart.TEMPORARY
        )
        await planner.send("hanger", 1)
        presence = await child.ready()
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "hanging")
        os.kill(presence.pid, signal.SIGKILL)
        await child.wait()
        async with Agent(state, "hanger", ttl=TTL) as successor, successor.receive(timeout=30) as message:
            assert (message.body, message.attempts) == (1, 2)
        await planner.send(Role("worker"), 2)
        async with other.receive(timeout=30) as message:
            assert message.body == 2


async def test_restarted_from_its_last_checkpoint(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        child = await supervisor.spawn(members.count_up, 3, name="counter", restart_from_checkpoint=True)
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "counted")
        await state.put("agent-state/counter/count", 99)
        presence = await child.ready()
        await state.revoke_lease(presence.incarnation)
        await until_status(supervisor, lambda one: one.restarts == 1 and one.presence is not None)
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "counted")
        entry = await state.get("agent-state/counter/count")
        assert entry is not None
        assert entry.value == 3


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


async def cancelled(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        await supervisor.spawn(members.stay)
        await supervisor.wait()


async def present(state: comity.Client, name: str) -> bool:
    return await Directory(state).get(name) is not None


async def test_a_name_is_one_supervisors_at_a_time(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        with pytest.raises(SupervisorExists):
            await Supervisor(state, "boss", ttl=TTL).__aenter__()
        with pytest.raises(RuntimeError, match="begun already"):
            await supervisor.__aenter__()
    async with Supervisor(state, "boss", ttl=TTL):
        pass


async def test_a_supervisor_that_loses_its_lease_stops(state: comity.Client) -> None:
    async def run() -> None:
        async with Supervisor(state, "boss", ttl=TTL) as supervisor:
            await (await supervisor.spawn(members.stay)).ready()
            entry = await state.get("supervisors/boss")
            assert entry is not None
            await state.revoke_lease(entry.lease_id)
            await asyncio.Event().wait()

    with pytest.raises(comity.LeaseLost):
        await run()
    await until(lambda: gone(state))


async def gone(state: comity.Client) -> bool:
    return await Directory(state).list() == []


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
async def test_a_child_has_the_tries_and_checkpoints_that_are_given(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor, Agent(state, "planner", ttl=TTL) as planner:
        await planner.send("writer", "poison")
        child = await supervisor.spawn(
            members.mark_and_fail, name="writer", mode=mode, restart=Restart.TEMPORARY, tries=1, checkpoints=2
        )
        await child.wait()
        marks = [mark async for mark in state.checkpoints() if mark.labels["agent"] == "writer"]
        assert len(marks) == 2
        assert [letter.value["body"] for letter in await Queue(state, "agent:writer").dead()] == ["poison"]


async def test_arguments_that_cannot_be(state: comity.Client) -> None:
    async def local(agent: Agent) -> None:
        await agent.report("local")

    for wrong in ({"max_restarts": -1}, {"within": 0}, {"grace": 0}, {"wait": -1}, {"strategy": "all"}):
        with pytest.raises(ValueError, match=r"."):
            Supervisor(state, "boss", **wrong)
    with pytest.raises(ValueError, match="supervisor's name"):
        Supervisor(state, "a/b")
    with pytest.raises(RuntimeError, match="not begun"):
        await Supervisor(state, "boss").spawn(members.stay)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        with pytest.raises(ValueError, match="child's name"):
            await supervisor.spawn(members.stay, name="a/b")
        with pytest.raises(ValueError, match="mode"):
            await supervisor.spawn(members.stay, mode="thread")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="function"):
            await supervisor.spawn(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="import"):
            await supervisor.spawn(local, mode="process")
        with pytest.raises(ValueError, match="Restart"):
            await supervisor.spawn(members.stay, restart="always")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="tries"):
            await supervisor.spawn(members.stay, tries=0)
        with pytest.raises(ValueError, match="checkpoints"):
            await supervisor.spawn(members.stay, checkpoints=0)
        for mode in ("task", "process"):
            with pytest.raises(comity.InvalidArgument, match="ttl"):
                await supervisor.spawn(members.stay, ttl=0.01, mode=mode)
        with pytest.raises(comity.InvalidArgument, match="ttl"):
            await supervisor.gather(members.square, [1], ttl=0.01)
        for ttl in (0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match="ttl"):
                await supervisor.spawn(members.stay, ttl=ttl)
            with pytest.raises(ValueError, match="ttl"):
                Supervisor(state, "boss", ttl=ttl)
        with pytest.raises(TypeError, match="ttl"):
            supervisor.map(members.square, [], ttl="1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="wait"):
            Supervisor(state, "boss", wait="1")  # type: ignore[arg-type]
        assert supervisor.children() == []
    assert await state.list("supervisor-children/").all() == []


async def test_a_supervisor_takes_over_from_one_that_was_killed(state: comity.Client, server: Server) -> None:
    process = Program(members.run_supervisor, server.address, state.namespace, "boss")
    try:
        await until(lambda: present(state, "stayer"))
        before = await Directory(state).get("stayer")
        assert before is not None
        process.kill()
        async with Supervisor(state, "boss", ttl=TTL, wait=30) as supervisor:
            child = await supervisor.spawn(members.stay, name="stayer", mode="process")
            assert await child.ready() == (await Directory(state).get("stayer"))
            assert child.status.pid == before.pid
            assert (await child.ready()).incarnation == before.incarnation
            os.kill(before.pid, signal.SIGKILL)
            status = await until_status(supervisor, lambda one: one.restarts == 1 and one.presence is not None)
            assert status.pid != before.pid
        assert await gone(state)
    finally:
        process.kill()


async def test_what_is_not_spawned_again_ends_with_the_successor(state: comity.Client, server: Server) -> None:
    process = Program(members.run_supervisor, server.address, state.namespace, "boss")
    try:
        await until(lambda: present(state, "stayer"))
        before = await Directory(state).get("stayer")
        assert before is not None
        process.kill()
        async with Supervisor(state, "boss", ttl=TTL, wait=30):
            pass
        await until(lambda: gone(state))
        await until(lambda: not psutil.pid_exists(before.pid))
    finally:
        process.kill()


@pytest.mark.parametrize("mode", MODES)
async def test_a_text_that_cannot_be_stored_harms_nobody_else(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.fail_unreadably, mode=mode, restart=Restart.TEMPORARY)
        status = await child.wait()
        assert (status.state, status.why) == (ChildState.FAILED, "ValueError: no ?.txt")


async def test_one_that_was_paused_leaves_processes_to_its_successor(state: comity.Client, server: Server) -> None:
    names = ["process-0", "process-1", "process-2", "task"]
    process = Program(members.run_crew, server.address, state.namespace, "boss")
    try:
        for name in names:
            await until(functools.partial(present, state, name))
        before = {one.name: one for one in await Directory(state).list()}
        process.send_signal(signal.SIGSTOP)
        async with Supervisor(state, "boss", ttl=TTL, wait=30, max_restarts=0) as supervisor:
            for name in names[:2]:
                await (await supervisor.spawn(members.stay, name=name, mode="process", ttl=TTL)).ready()
            process.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(process.wait) == 1
            for name, mode in (("process-2", MODES[1]), ("task", MODES[0])):
                await (await supervisor.spawn(members.stay, name=name, mode=mode, ttl=TTL)).ready()
            statuses = {one.name: one for one in supervisor.children()}
            assert [statuses[name].pid for name in names[:3]] == [before[name].pid for name in names[:3]]
            assert statuses["task"].pid == os.getpid()
            assert [one.restarts for one in statuses.values()] == [0] * 4
        assert await gone(state)
    finally:
        process.kill()


async def test_what_several_children_end_by_counts_once(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=1) as supervisor:
        children = [await supervisor.spawn(members.stay, ttl=TTL) for _ in range(4)]
        before = [await child.ready() for child in children]
        for presence in before:
            await state.revoke_lease(presence.incarnation)
        await until(lambda: [one.restarts for one in supervisor.children()] == [1] * 4)
        after = [await child.ready() for child in children]
        assert all(one.incarnation > other.incarnation for one, other in zip(after, before, strict=True))


async def test_one_that_was_taken_over_and_cancelled_has_not_returned(state: comity.Client, server: Server) -> None:
    process = Program(members.run_supervisor, server.address, state.namespace, "boss")
    try:
        await until(lambda: present(state, "stayer"))
        process.kill()
        async with Supervisor(state, "boss", ttl=TTL, wait=30) as supervisor:
            child = await supervisor.spawn(members.stay, name="stayer", mode="process", restart=Restart.TRANSIENT)
            before = await child.ready()
            os.kill(before.pid, signal.SIGTERM)
            status = await until_status(supervisor, lambda one: one.restarts == 1 and one.presence is not None)
            assert (status.why, status.pid != before.pid) == ("cancelled", True)
    finally:
        process.kill()


async def test_who_waits_for_one_child_holds_up_no_other(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL, grace=600) as supervisor:
        stubborn = await supervisor.spawn(members.wait_for_a_word, name="stubborn")
        other = await supervisor.spawn(members.stay, name="other")
        before = await other.ready()
        await until_status(supervisor, lambda one: one.presence is not None and one.presence.status == "stubborn")
        stopping = asyncio.create_task(stubborn.stop())
        await until(lambda: stubborn.state is ChildState.STOPPING)
        await state.revoke_lease(before.incarnation)
        await until_status(supervisor, lambda one: one.name == "other" and one.restarts == 1)
        assert (await other.ready()).incarnation > before.incarnation
        with pytest.raises(ValueError, match="already"):
            await supervisor.spawn(members.stay, name="stubborn")
        stopping.cancel()  # who does not wait any longer has not called it off
        await state.put("go", True)
        assert (await stubborn.wait()).state is ChildState.STOPPED


async def test_a_server_that_is_away_while_a_child_dies(namespace: str) -> None:
    with servers.start() as own:
        async with (
            comity.connect(own.address, namespace=namespace, timeout=2) as impatient,
            comity.connect(own.address, namespace=namespace) as state,
            Supervisor(impatient, "boss", ttl=600) as supervisor,
        ):
            child = await supervisor.spawn(members.stay, name="child", mode="process", ttl=600)
            before = await child.ready()
            own.process.send_signal(signal.SIGSTOP)
            try:
                os.kill(before.pid, signal.SIGKILL)
                await until(lambda: not psutil.pid_exists(before.pid))
                with pytest.raises(comity.ComityError):  # longer than the supervisor waits for an answer
                    await state.get("anything", timeout=4)
            finally:
                own.process.send_signal(signal.SIGCONT)
            status = await until_status(supervisor, lambda one: one.restarts == 1 and one.presence is not None)
            assert status.why == "killed by SIGKILL"


@pytest.mark.parametrize("value", [{"restarts": "many", "run": 7}, {"restarts": None}, [1], b"\xff", b"{"])
async def test_records_of_children_that_others_have_written_wrongly(state: comity.Client, value: object) -> None:
    kind = "application/json" if value == b"{" else None
    await state.put("supervisor-children/boss/stayer", value, content_type=kind)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        child = await supervisor.spawn(members.stay, name="stayer")
        assert (await child.ready()).supervisor == "boss"
        assert child.status.restarts == 0


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_former_supervisor_has_started_and_nobody_knows_is_ended(state: comity.Client, mode: Mode) -> None:
    async def hang() -> None:
        async with Agent(state, "stayer", ttl=600, supervisor="boss", run="another"):
            await asyncio.Event().wait()

    stray = asyncio.create_task(hang())
    await until(lambda: present(state, "stayer"))
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=0) as supervisor:
        child = await supervisor.spawn(members.stay, name="stayer", mode=mode)
        assert (await child.ready()).run == child.run
        with pytest.raises(comity.LeaseLost):
            await stray


@pytest.mark.parametrize("mode", MODES)
async def test_a_name_that_another_agent_has(state: comity.Client, mode: Mode) -> None:
    async with (
        Agent(state, "stayer", ttl=TTL),
        Supervisor(state, "boss", ttl=TTL, start_timeout=3) as supervisor,
    ):
        child = await supervisor.spawn(members.stay, name="stayer", mode=mode, restart=Restart.TEMPORARY)
        holder = f"an agent in process {os.getpid()} on {socket.gethostname()} has the name"
        starting = await until_status(supervisor, lambda one: bool(one.why))
        assert (starting.state, starting.why) == (ChildState.STARTING, holder)
        status = await child.wait()
        assert (status.state, status.why) == (ChildState.FAILED, f"did not start within 3 s: {holder}")


async def test_a_name_that_another_agent_has_for_a_while(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        async with Agent(state, "stayer", ttl=TTL):
            child = await supervisor.spawn(members.stay, name="stayer")
            await until_status(supervisor, lambda one: "has the name" in one.why)
        await child.ready()
        assert (child.status.restarts, child.status.why) == (0, "")


async def test_functions_and_arguments_that_no_child_can_have(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        for mode in MODES:
            with pytest.raises(TypeError, match="runs an async function of an agent, not <function plain"):
                await supervisor.spawn(members.plain, mode=mode)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="argument 1, of type lock, cannot be sent to a process"):
            await supervisor.spawn(members.stay, 0, threading.Lock(), mode="process")
        with pytest.raises(TypeError, match="the function cannot be sent to a process"):
            await supervisor.spawn(functools.partial(members.hand_off, context=threading.Lock()), mode="process")
        assert supervisor.children() == []


UNGUARDED = """
import asyncio, sys
import comity
from comity.agents import Supervisor

async def stay(agent):
    await asyncio.Event().wait()

async def main():
    async with comity.connect(sys.argv[1], namespace=sys.argv[2]) as state:
        async with Supervisor(state, "boss", ttl=60) as supervisor:
            await supervisor.spawn(stay, name="stayer", mode="process")
            await supervisor.wait()

asyncio.run(main())
"""


async def test_a_program_that_is_not_guarded_is_told_so_once(
    state: comity.Client, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(UNGUARDED)
    command = [sys.executable, str(tmp_path / "program.py"), server.address, state.namespace]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count('guard what the program does by `if __name__ == "__main__":`') == 1
    assert "stayer cannot be started, nor restarted: it exited with 1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [[], ["-c", UNGUARDED]])
async def test_a_program_that_is_no_file(state: comity.Client, server: Server, options: list[str]) -> None:
    command = [sys.executable, *(options or ["-"]), server.address, state.namespace]
    given = "" if options else UNGUARDED
    done = await asyncio.to_thread(
        subprocess.run, command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: a process can only run a function of a module or")


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
