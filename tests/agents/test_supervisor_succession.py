"""Supervisors that come after others of their name, and what they find."""

import asyncio
import functools
import os
import signal
import socket

import psutil
import pytest

import comity
from comity.agents import (
    Agent,
    ChildState,
    Directory,
    Restart,
    Supervisor,
    SupervisorExists,
)
from comity.agents.children import Mode
from tests.agents import members
from tests.agents.conftest import TTL
from tests.agents.program import Program
from tests.agents.supervising import MODES, gone, present, until_status
from tests.servers import Server
from tests.waiting import until


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
