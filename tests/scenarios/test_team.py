"""A supervisor and its agents: they are seen, share state, hand work over, and do many things side by side."""

import asyncio
import hashlib
import os
from typing import Any

import pytest

from comity import Client
from comity.agents import Agent, Directory, ItemFailed, Role, Supervisor
from tests.scenarios import crew
from tests.waiting import until

TTL = 5.0
TOPICS = {"scout-1": "prices", "scout-2": "weather"}


@pytest.mark.core
async def test_a_supervisor_sees_its_agents_and_they_share_state(world: Client) -> None:
    async with Supervisor(world, "lead", ttl=TTL) as lead:
        for name, topic in TOPICS.items():
            await lead.spawn(crew.study, topic, len(TOPICS), name=name, mode="process", role="scout")
        starts = {name: await lead.child(name).ready() for name in TOPICS}
        pids = {presence.pid for presence in starts.values()}
        assert len(pids | {os.getpid()}) == len(TOPICS) + 1

        def studied() -> bool:
            seen = [child.presence for child in lead.children()]
            return all(one is not None and (one.status, one.progress) == ("studied", 1.0) for one in seen)

        await until(studied)
        for child in lead.children():
            presence = child.presence
            assert presence is not None
            assert presence.detail == TOPICS  # what each of them has seen of the others
            assert (presence.role, presence.supervisor, presence.pid) == ("scout", "lead", child.pid)
            assert presence.incarnation == starts[child.name].incarnation
            assert presence.revision > starts[child.name].revision
            notes = await world.get(f"agent-state/{child.name}/notes")
            assert notes is not None
            assert notes.value == {"topic": TOPICS[child.name], "by": child.name}
        assert await Directory(world).list() == [child.presence for child in lead.children()]
    assert await Directory(world).list() == []
    board = await world.get("board")
    assert board is not None
    assert (board.value, board.version) == (TOPICS, len(TOPICS))


def context() -> dict[str, Any]:
    """As much of JSON as there is: deep, large, and in every script."""
    deep: Any = "bottom"
    for depth in range(60):
        deep = {"depth": depth, "below": [deep]}
    return {
        "deep": deep,
        "large": [{"page": page, "text": "naïve — " * 30} for page in range(900)],
        "texts": ["", '\x00\t\n"\\/', "Ünïcödé", "日本語", "שלום", "👩‍🚀", "e\u0301", "\u2028"],
        "numbers": [0, -1, 2**53 - 1, -(2**63), 0.1, -1e300, 5e-324],
        "others": [None, True, False, {}, []],
        "": {" ": "keys too"},
    }


@pytest.mark.core
async def test_a_handoff_preserves_the_whole_context_for_exactly_one_receiver(world: Client) -> None:
    file = bytes(range(256)) * 1000
    digest = hashlib.sha256(file).hexdigest()
    contexts = [{**context(), "file": "files/0"}, *({"file": "files/0", "number": number} for number in range(1, 6))]
    async with Supervisor(world, "lead", ttl=TTL) as lead, Agent(world, "planner", ttl=TTL) as planner:
        for number in range(2):
            await lead.spawn(crew.receive, name=f"receiver-{number}", role="receiver", mode="process")
        handoffs = [
            await planner.handoff(Role("receiver"), each, id=f"h-{number}", also=lambda tx: tx.put("files/0", file))
            for number, each in enumerate(contexts)
        ]
        results = await asyncio.gather(*(handoff.result(timeout=60) for handoff in handoffs))
        assert results == [{"context": each, "file": digest} for each in contexts]
        for handoff in handoffs:
            status = await handoff.status()
            assert (status.status, status.attempts) == ("done", 1)
            assert status.by in ("receiver-0", "receiver-1")
    received = {entry.key: entry.value async for entry in world.list("received/")}
    assert received == {f"received/h-{number}": 1 for number in range(len(contexts))}


@pytest.mark.core
async def test_parallel_agents_with_aggregated_results(world: Client) -> None:
    async with Supervisor(world, "lead", ttl=TTL) as lead:
        total, failed, by = 0, {}, set()
        async for outcome in lead.map(crew.analyse, range(12), concurrency=2, mode="process", retries=1):
            by.add(outcome.by)
            if outcome.error is None:
                assert (outcome.value["number"], outcome.attempts) == (outcome.index, 1)
                total += outcome.value["square"]
            else:
                failed[outcome.index] = outcome
        assert total == sum(number * number for number in range(12) if number != 7)
        (seventh,) = failed.values()
        assert (seventh.index, seventh.attempts) == (7, 2)
        assert isinstance(seventh.error, ItemFailed)
        assert (seventh.error.reason, str(seventh.error)) == ("ValueError", "7 cannot be analysed")
        assert 1 <= len(by) <= 2
        assert lead.children() == []
    assert await world.list("").all() == []
