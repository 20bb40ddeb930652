"""Private state: it survives its agent, and nobody but its living agent writes it."""

import asyncio
import os
import signal

import pytest

import comity
from comity import Event, Resync
from comity.agents import Agent, MemoryTransaction
from tests.agents import members
from tests.agents.conftest import TTL, Launch
from tests.waiting import until


async def test_it_survives_the_agent(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as agent:
        await agent.memory.put("draft/1", {"text": "a"})
        await agent.memory.put("draft/2", {"text": "b"})
        await agent.memory.put("notes", b"\x00")
    async with Agent(state, "writer", ttl=TTL) as successor:
        entry = await successor.memory.get("draft/1")
        assert entry is not None
        assert (entry.key, entry.value) == ("draft/1", {"text": "a"})
        assert [one.key for one in await successor.memory.list()] == ["draft/1", "draft/2", "notes"]
        assert [one.key for one in await successor.memory.list("draft/")] == ["draft/1", "draft/2"]
        assert await successor.memory.value("nothing", 7) == 7
        await successor.memory.delete("notes")
        await successor.memory.delete(prefix="draft/")
        assert await successor.memory.list() == []
        assert await successor.memory.get("notes") is None


async def test_names_that_begin_alike_share_nothing(state: comity.Client) -> None:
    async with Agent(state, "w", ttl=TTL) as one, Agent(state, "w2", ttl=TTL) as other:
        await one.memory.put("k", 1)
        await other.memory.put("k", 2)
        await one.memory.delete(prefix="")
        assert await other.memory.value("k") == 2


async def test_update_and_transact(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as agent:
        await asyncio.gather(*(agent.memory.update("count", lambda number: number + 1, 0) for _ in range(8)))
        assert await agent.memory.value("count") == 8

        async def move(tx: MemoryTransaction) -> int:
            entry = await tx.get("count")
            assert entry is not None
            tx.delete("count")
            tx.put("moved/count", entry.value)
            tx.increment("moved/times")
            assert [one.key for one in await tx.list("moved/")] == ["moved/count", "moved/times"]
            tx.delete(prefix="old/")
            return int(entry.value)

        assert await agent.memory.transact(move) == 8
        await agent.transact(lambda tx: agent.memory.within(tx).put("moved/times", 5))
        assert {one.key: one.value for one in await agent.memory.list()} == {"moved/count": 8, "moved/times": 5}


async def test_an_earlier_incarnation_cannot_write(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as earlier:
        await earlier.memory.put("k", "earlier")
    async with Agent(state, "writer", ttl=TTL) as later:
        await later.memory.put("k", "later")
        for write in (
            earlier.memory.put("k", "late"),
            earlier.memory.delete("k"),
            earlier.memory.delete(prefix=""),
            earlier.memory.update("k", lambda _: "late"),
            earlier.checkpoint(),
            earlier.restore(1),
        ):
            with pytest.raises(comity.LeaseLost):
                await write
        assert await later.memory.value("k") == "later"


async def test_an_incarnation_that_was_stopped_past_its_lease_cannot_write(
    state: comity.Client, launch: Launch
) -> None:
    earlier = await launch("writer", members.write_on)

    async def written() -> bool:
        return await state.get("agent-state/writer/number") is not None

    await until(written)
    os.kill(earlier.pid, signal.SIGSTOP)
    async with Agent(state, "writer", ttl=TTL, wait=60) as later:
        await later.memory.put("number", "later")
        os.kill(earlier.pid, signal.SIGCONT)
        end = await earlier.ended()
        assert end.failed
        assert "LeaseLost" in end.why
        assert await later.memory.value("number") == "later"


async def test_watch(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as agent:
        await agent.memory.put("a", 1)
        changes = agent.memory.watch()
        first = await anext(changes)
        assert isinstance(first, Resync)
        assert [(one.key, one.value) for one in first.entries] == [("a", 1)]
        await agent.memory.put("b", 2)
        second = await anext(changes)
        assert isinstance(second, Event)
        assert (second.key, second.entry.value) == ("b", 2)
        await changes.aclose()


@pytest.mark.parametrize(("key", "error"), [("", ValueError), (None, TypeError), (7, TypeError)])
async def test_keys_that_cannot_be(state: comity.Client, key: object, error: type[Exception]) -> None:
    async with Agent(state, "writer", ttl=TTL) as agent:
        with pytest.raises(error, match="key"):
            await agent.memory.put(key, 1)  # type: ignore[arg-type]
        with pytest.raises(error, match="key"):
            await agent.memory.delete(key)  # type: ignore[arg-type]
        with pytest.raises(error, match="key"):
            await agent.memory.get(key)  # type: ignore[arg-type]
        with pytest.raises(comity.InvalidArgument):
            await agent.memory.put("k" * 1024, 1)


async def test_checkpoints_of_its_own(state: comity.Client) -> None:
    await state.put("shared", "before")
    async with Agent(state, "writer", ttl=TTL) as agent, Agent(state, "editor", ttl=TTL) as editor:
        assert await agent.last_checkpoint() is None
        with pytest.raises(comity.NotFound, match="no checkpoint"):
            await agent.restore()
        await agent.memory.put("draft", 1)
        await editor.memory.put("draft", 1)
        first = await agent.checkpoint("outline")
        await agent.memory.put("draft", 2)
        await agent.checkpoint("text")
        await agent.memory.put("draft", 3)
        await agent.memory.put("more", 3)
        await editor.memory.put("draft", 3)
        await state.put("shared", "after")
        await editor.checkpoint("outline")
        last = await agent.last_checkpoint()
        assert last is not None
        assert last.labels == {"agent": "writer", "label": "text"}
    async with Agent(state, "writer", ttl=TTL) as successor:
        done = await successor.restore()
        assert (done.put, done.deleted) == (1, 1)
        assert {one.key: one.value for one in await successor.memory.list()} == {"draft": 2}
        await successor.restore("outline")
        assert await successor.memory.value("draft") == 1
        await successor.memory.put("draft", 9)
        await successor.restore(first)
        assert await successor.memory.value("draft") == 1
        with pytest.raises(comity.NotFound, match="'nothing'"):
            await successor.restore("nothing")
    kept = {entry.key: entry.value async for entry in state.list()}
    assert (kept["shared"], kept["agent-state/editor/draft"]) == ("after", 3)


async def test_old_checkpoints_go(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL, checkpoints=2) as agent:
        for step in range(4):
            await agent.memory.put("step", step)
            await agent.checkpoint("step")
        assert len([mark async for mark in agent.checkpoints()]) == 2
        await agent.memory.put("step", 9)
        await agent.restore("step")
        assert await agent.memory.value("step") == 3
        with pytest.raises(ValueError, match="the label"):
            await agent.checkpoint("a/b")
