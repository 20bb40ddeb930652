"""Agents: one of a name at a time, what they say of themselves, and how they end."""

import asyncio
import math
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

import comity
from comity.agents import Agent, AgentExists, Directory, Presence, PresenceChange, PresenceEvent
from comity.agents.presence import _moved
from tests.agents import members
from tests.agents.conftest import TTL, Launch
from tests.waiting import until


async def until_change(
    events: AsyncGenerator[PresenceEvent], change: PresenceChange, status: str = ""
) -> PresenceEvent:
    async with asyncio.timeout(30):
        async for event in events:
            if event.change is change and (not status or event.presence.status == status):
                return event
    raise AssertionError("the watch ended")


async def test_an_agent_is_there_while_its_block_runs(state: comity.Client) -> None:
    directory = Directory(state)
    async with Agent(state, "writer-1", role="writer", ttl=TTL) as agent:
        found = await directory.get("writer-1")
        assert found is not None
        assert (found.role, found.status, found.progress, found.pid) == ("writer", "idle", None, os.getpid())
        assert found.incarnation == agent.fence == agent.lease.id
        assert [one.name for one in await directory.list()] == ["writer-1"]
        entry = await state.get("agents/writer-1")
        assert entry is not None
        assert entry.lease_id == agent.fence
    assert await directory.get("writer-1") is None
    (commit, *_) = await state.history("agents/").all()
    assert (commit.author, commit.events[0].cause) == ("writer-1", comity.EventCause.CLIENT)


async def test_it_says_how_far_it_is(state: comity.Client) -> None:
    async with Agent(state, "writer-1", ttl=TTL) as agent:
        await agent.report("drafting", progress=0.25, detail={"page": 3})
        await agent.report(progress=1)
        found = await Directory(state).get("writer-1")
        assert found is not None
        assert (found.status, found.progress, found.detail) == ("drafting", 1.0, {"page": 3})
        assert found == agent.presence
        await asyncio.gather(agent.report("writing"), agent.report(progress=0.5))
        found = await Directory(state).get("writer-1")
        assert found is not None
        assert (found.status, found.progress, found.detail) == ("writing", 0.5, {"page": 3})
        await agent.report(progress=None, detail=None)
        found = await Directory(state).get("writer-1")
        assert found is not None
        assert (found.status, found.progress, found.detail) == ("writing", None, None)
        for wrong in ({"status": ""}, {"status": "x" * 201}, {"progress": 1.1}, {"progress": float("nan")}):
            with pytest.raises(ValueError, match=r"status|progress"):
                await agent.report(**wrong)
        with pytest.raises(TypeError):
            await agent.report(7)  # type: ignore[arg-type]
        for progress in (True, "0.5"):
            with pytest.raises(TypeError, match="progress"):
                await agent.report(progress=progress)  # type: ignore[arg-type]


async def test_a_name_is_one_agents_at_a_time(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as first:
        with pytest.raises(AgentExists, match="an agent of the name planner lives: process") as refused:
            async with Agent(state, "planner", ttl=TTL):
                pytest.fail("there are two")
        assert refused.value.metadata["incarnation"] == str(first.fence)
        assert isinstance(refused.value, comity.AlreadyExists)
    async with Agent(state, "planner", ttl=TTL) as second:
        assert second.fence > first.fence
        with pytest.raises(RuntimeError, match="begun already"):
            await second.__aenter__()


async def test_a_successor_may_wait(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL):
        successor = Agent(state, "planner", ttl=TTL, wait=30)
        entering = asyncio.create_task(successor.__aenter__())
        await asyncio.sleep(0)
        assert not entering.done()
    await entering
    await successor.__aexit__(None, None, None)
    assert await state.list().all() == []


async def test_a_wait_ends_where_a_restore_takes_the_key_from_its_lease(state: comity.Client) -> None:
    async with asyncio.TaskGroup() as tasks, Agent(state, "planner", ttl=TTL) as former:
        mark = await state.checkpoint("then")
        await former.report("later")
        successor = Agent(state, "planner", ttl=TTL, wait=60)
        begun = tasks.create_task(successor.__aenter__())
        await until(lambda: not begun.done())
        await state.restore(mark)
        await begun
        await successor.__aexit__(None, None, None)


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a" * 64, "ä", "a\0", "a b"])
async def test_names_that_cannot_be(state: comity.Client, name: str) -> None:
    with pytest.raises(ValueError, match=r"must be 1 to 63"):
        Agent(state, name)
    with pytest.raises(ValueError, match="must be 1 to 63"):
        Agent(state, "a", role=name or "/")
    with pytest.raises(TypeError, match="must be a str"):
        Agent(state, 7)  # type: ignore[arg-type]


async def test_arguments_that_cannot_be(state: comity.Client) -> None:
    with pytest.raises(ValueError, match="wait"):
        Agent(state, "a", wait=-1)
    with pytest.raises(ValueError, match="tries"):
        Agent(state, "a", tries=0)
    with pytest.raises(ValueError, match="checkpoints"):
        Agent(state, "a", checkpoints=0)
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match="ttl"):
            Agent(state, "a", ttl=wrong)
    with pytest.raises(TypeError, match="ttl"):
        Agent(state, "a", ttl="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="wait"):
        Agent(state, "a", wait="x")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not there yet"):
        await Agent(state, "a").report("early")


async def test_an_agent_that_leaves_is_told_from_one_that_crashes(state: comity.Client, launch: Launch) -> None:
    events = Directory(state).watch()
    async with Agent(state, "leaver", ttl=TTL):
        joined = await until_change(events, PresenceChange.JOINED)
        assert joined.presence.name == "leaver"
    assert (await until_change(events, PresenceChange.LEFT)).presence == joined.presence
    crasher = await launch("crasher", members.stay)
    staying = await until_change(events, PresenceChange.REPORTED, "staying")
    assert staying.presence.pid == crasher.pid
    os.kill(crasher.pid, signal.SIGKILL)
    crashed = await until_change(events, PresenceChange.CRASHED)
    assert crashed.presence == staying.presence
    await events.aclose()


async def test_an_agent_that_fails_says_so_before_it_leaves(state: comity.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Agent(state, "writer-1", ttl=TTL):
            raise ZeroDivisionError("no pages")
    left, failed, _ = await state.history("agents/").all()
    assert left.events[0].is_delete
    assert failed.events[0].entry.value["status"] == "failed"
    assert failed.events[0].entry.value["detail"] == "ZeroDivisionError: no pages"


async def test_a_lost_lease_cancels_the_block(state: comity.Client) -> None:
    async def hang() -> None:
        async with Agent(state, "writer-1", ttl=TTL) as agent:
            await state.revoke_lease(agent.lease.id)
            await asyncio.Event().wait()

    with pytest.raises(comity.LeaseLost):
        await hang()


async def test_what_is_there_without_a_lease_is_nobody(state: comity.Client) -> None:
    """As a restore leaves it."""
    async with Agent(state, "writer-1", ttl=TTL):
        mark = await state.checkpoint("before")
    await state.restore(mark)
    assert await state.get("agents/writer-1") is not None
    assert await Directory(state).get("writer-1") is None
    assert await Directory(state).list() == []
    async with Agent(state, "writer-1", ttl=TTL):
        assert await Directory(state).get("writer-1") is not None


async def test_records_that_others_have_written_wrongly(state: comity.Client) -> None:
    lease = await state.grant_lease(60)
    for name, value in {"bytes": b"\xff", "list": [1], "types": {"role": 7, "progress": "x", "started": "?"}}.items():
        await state.put(f"agents/{name}", value, lease=lease)
    await state.put("agents/broken", b"{", content_type="application/json", lease=lease)
    found = await Directory(state).list()
    assert [one.name for one in found] == ["broken", "bytes", "list", "types"]
    assert {(one.role, one.status, one.progress) for one in found} == {("", "", None)}
    await lease.revoke()


def test_a_watch_that_was_away_tells_what_it_missed() -> None:
    def agent(name: str, incarnation: int, revision: int) -> Presence:
        return replace(Presence.here(name), incarnation=incarnation, revision=revision)

    known = {name: agent(name, 1, 1) for name in ("gone", "quiet", "reported", "replaced")}
    now = [agent("new", 5, 5), agent("quiet", 1, 1), agent("replaced", 6, 6), agent("reported", 1, 7)]
    events = [(event.change, event.presence.name, event.presence.incarnation) for event in _moved(known, now, 9)]
    assert events == [
        (PresenceChange.CRASHED, "gone", 1),
        (PresenceChange.JOINED, "new", 5),
        (PresenceChange.CRASHED, "replaced", 1),
        (PresenceChange.JOINED, "replaced", 6),
        (PresenceChange.REPORTED, "reported", 1),
    ]
    assert known == {one.name: one for one in now}


async def test_it_guards_writes_and_transactions(state: comity.Client) -> None:
    async with Agent(state, "writer-1", ttl=60) as agent:
        await state.put("shared", 1, guard=agent)
        await state.put("shared", 2, guard=agent.guard)
        await agent.transact(lambda tx: tx.put("shared", 3))
        await state.put("mine", 1, lease=agent.lease)
        guard = agent.guard
    assert await state.get("mine") is None
    with pytest.raises(comity.LeaseLost):
        await state.put("shared", 4, guard=guard)
    with pytest.raises(comity.LeaseLost):
        await agent.transact(lambda tx: tx.put("shared", 5))
    entry = await state.get("shared")
    assert entry is not None
    assert entry.value == 3


async def test_cancelled_while_it_joins_it_leaves_nothing(state: comity.Client) -> None:
    for steps in range(12):
        entering = asyncio.create_task(Agent(state, "writer-1", ttl=600).__aenter__())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not entering.done():
            entering.cancel()
        try:
            agent = await entering
        except asyncio.CancelledError:
            await until(lambda: gone(state))
        else:
            await agent.__aexit__(None, None, None)
    assert await state.list().all() == []


async def gone(state: comity.Client) -> bool:
    return await state.get("agents/writer-1") is None


class Textless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there is no text")


@pytest.mark.parametrize("error", [ValueError("no \udcff.txt"), Textless()])
async def test_whatever_it_fails_with_it_leaves(state: comity.Client, error: Exception) -> None:
    with pytest.raises(type(error)):
        async with Agent(state, "writer-1", ttl=600):
            raise error
    assert await state.get("agents/writer-1") is None
    left, failed, _ = await state.history("agents/").all()
    assert left.events[0].is_delete
    assert failed.events[0].entry.value["status"] == "failed"
    assert failed.events[0].entry.value["detail"].startswith(f"{type(error).__name__}: ")


async def test_a_presence_that_somebody_has_deleted_is_a_lost_agent(state: comity.Client) -> None:
    async def hang() -> None:
        async with Agent(state, "writer-1", ttl=600):
            await state.delete("agents/writer-1")
            await asyncio.Event().wait()

    with pytest.raises(comity.LeaseLost):
        await hang()


async def test_who_has_lost_its_presence_reports_over_no_successor(state: comity.Client) -> None:
    async def report(agent: Agent) -> None:
        async with agent, agent.receive():  # a claim, which the lease lives on for
            await state.delete("agents/writer-1")
            async with Agent(state, "writer-1", ttl=TTL) as successor:
                with pytest.raises(comity.LeaseLost, match="writer-1 is there no longer"):
                    await agent.report("writing")
                found = await Directory(state).get("writer-1")
                assert found is not None
                there = replace(successor.presence, incarnation=successor.fence, revision=found.revision)
                assert found == there
                with pytest.raises(comity.LeaseLost):
                    await state.put("shared", 1, guard=agent.guard)
            await asyncio.Event().wait()

    async with Agent(state, "planner", ttl=TTL) as planner:
        await planner.send("writer-1", "a word")
        with pytest.raises(comity.LeaseLost):
            await report(Agent(state, "writer-1", ttl=TTL))
