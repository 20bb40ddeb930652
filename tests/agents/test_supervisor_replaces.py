"""Children that die or hang, and who comes after them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator

import psutil
import pytest

import comity
from comity.agents import (
    Agent,
    ChildState,
    Directory,
    PresenceChange,
    PresenceEvent,
    Restart,
    Role,
    Supervisor,
)
from tests import servers
from tests.agents import members
from tests.agents.conftest import SHORT, TTL
from tests.agents.supervising import until_status
from tests.waiting import until


async def until_end(events: AsyncGenerator[PresenceEvent]) -> PresenceEvent:
    async with asyncio.timeout(30):
        while not (event := await anext(events)).is_end:
            pass
    return event


async def test_a_killed_process_is_replaced_and_goes_on_where_it_was(state: comity.Client) -> None:
    async with (
        Supervisor(state, "boss", ttl=60) as supervisor,  # a ttl that the test would not outlast
        contextlib.aclosing(Directory(state).watch()) as events,
    ):
        child = await supervisor.spawn(members.count_up, 30, name="counter", mode="process")
        presence = await child.ready()
        assert (await anext(events)).change is PresenceChange.JOINED

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
        gone = await until_end(events)
        assert gone.change is PresenceChange.CRASHED, "nobody waited for its lease to end, and it has not left"
        assert (gone.presence.incarnation, gone.presence.crash) == (presence.incarnation, "killed by SIGKILL")
        await child.stop()
        gone = await until_end(events)
        assert (gone.change, gone.presence.incarnation) == (PresenceChange.LEFT, status.presence.incarnation)


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
