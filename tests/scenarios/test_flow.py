"""A workflow of triage, data, optimisation and reporting agents, whose process is killed half-way."""

import pytest

from comity import Client, EventCause
from comity.agents import RunState, StepState, Supervisor
from tests.agents.program import Program
from tests.scenarios import crew, flow
from tests.scenarios.places import Place
from tests.waiting import until

TTL = 20.0
REPORT = "prices: 18, traffic: 21, weather: 21"
STEPS = f"workflow:{flow.workflow.name}:{flow.RUN}:"  # who hands over


@pytest.mark.core
async def test_a_workflow_of_agents_is_killed_half_way_and_resumed(shared: Place, world: Client) -> None:
    """The optimiser goes on while nobody runs the workflow: who resumes it finds what came of that."""
    workflow = flow.workflow

    async def half_way() -> bool:
        taken = await world.get(f"handoffs/{STEPS}optimise/1")
        return taken is not None and taken.value["status"] == "taken"

    async def optimised() -> bool:
        return await world.get(f"work/{STEPS}optimise") is not None

    async with Supervisor(world, "lead", ttl=TTL) as lead:
        for role in crew.SKILLS:
            await lead.spawn(crew.specialise, name=f"{role}-1", role=role)
        process = Program(flow.main, shared.address, world.namespace)
        try:
            await until(half_way)
        finally:
            process.kill()
        before = await workflow.status(world, flow.RUN)
        assert [name for name, step in before.steps.items() if step.state is StepState.DONE] == ["triage", "data"]
        await world.put(crew.GATE, "open")
        await until(optimised)
        results = await flow.run(world, TTL)

    assert results["report"] == REPORT
    status = await workflow.status(world, flow.RUN)
    assert status.state is RunState.DONE
    assert {name: step.attempts for name, step in status.steps.items()} == {
        "triage": 1,
        "data": 3,
        "optimise": 2,
        "report": 1,
        "shelve": 0,
    }
    assert {entry.key: entry.value async for entry in world.list("work/")} == {
        f"work/{STEPS}{place}": 1 for place in ("triage", "data:0", "data:1", "data:2", "optimise", "report")
    }
    report, written = await world.get(f"reports/{flow.RUN}"), await world.get("reports-written")
    assert report is not None
    assert written is not None
    assert (report.value, report.version, written.value) == (REPORT, 1, 1)
    ends = [
        event.cause
        async for commit in world.history(f"workflows/report/{flow.RUN}/holder", newest_first=False)
        for event in commit.events
        if event.is_delete
    ]
    assert ends == [EventCause.LEASE_EXPIRY, EventCause.CLIENT]
    revision = (await world.namespace_info()).revision
    assert await workflow.run(world, flow.RUN) == results
    assert (await world.namespace_info()).revision == revision  # it was done, and nothing was done again
