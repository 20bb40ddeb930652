"""Steps that agents do: handed over once, whatever becomes of the runner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import comity
from comity import Client
from comity.agents import Agent, HandoffMessage, Role, StepContext, Workflow, WorkflowFailed, each, step
from tests.waiting import until


@contextlib.asynccontextmanager
async def writer(state: Client, took: list[object], gate: asyncio.Event | None = None) -> AsyncIterator[None]:
    """An agent that writes what it is handed, once the gate is open."""

    async def work() -> None:
        async with Agent(state, "ann", role="writer") as agent:
            async for message in agent.inbox():
                assert isinstance(message, HandoffMessage)
                took.append(message.context)
                if gate is not None:
                    await gate.wait()
                if message.context == "impossible":
                    await message.refuse("it is")
                else:
                    await message.done({"written": message.context, "for": message.sender})

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_step_hands_over_and_has_the_result(state: Client) -> None:
    async def draft(ctx: StepContext) -> object:
        first = await ctx.handoff("ann", ctx.input)
        second = await ctx.handoff(Role("writer"), {"after": ctx.input})
        return [await first.result(), await second.result()]

    async def pages(ctx: StepContext) -> object:
        return (await (await ctx.handoff("ann", ctx.item)).result())["written"]

    took: list[object] = []
    flow = Workflow("flow", draft, each(pages, lambda ctx: range(3)))
    async with writer(state, took):
        results = await flow.run(state, "1", "a")
    assert results["draft"] == [
        {"written": "a", "for": "workflow:flow:1:draft"},
        {"written": {"after": "a"}, "for": "workflow:flow:1:draft"},
    ]
    assert results["pages"] == [0, 1, 2]
    assert len(await state.list("handoffs/workflow:flow:1:").all()) == 5
    await flow.delete_run(state, "1")
    assert await state.list("handoffs/").all() == []


async def test_what_was_handed_over_is_not_handed_over_again(state: Client) -> None:
    async def draft(ctx: StepContext) -> object:
        return await (await ctx.handoff("ann", "a")).result()

    took: list[object] = []
    gate = asyncio.Event()
    flow = Workflow("flow", draft)
    async with writer(state, took, gate):
        first = asyncio.create_task(flow.run(state, "1"))
        await until(lambda: took == ["a"])
        holder = (await flow.status(state, "1")).holder
        assert holder is not None
        await state.revoke_lease(holder["lease_id"])
        with pytest.raises(comity.LeaseLost):
            await first
        again = asyncio.create_task(flow.run(state, "1"))
        gate.set()
        assert await again == {"draft": {"written": "a", "for": "workflow:flow:1:draft"}}
    assert took == ["a"]


async def test_a_handoff_that_is_refused_fails_the_step(state: Client) -> None:
    @step(retries=1, backoff=0)
    async def stubborn(ctx: StepContext) -> object:
        return await (await ctx.handoff("ann", "impossible")).result()

    @step(retries=1, backoff=0)
    async def flexible(ctx: StepContext) -> object:
        asked = "impossible" if ctx.attempt == 1 else "possible"
        return (await (await ctx.handoff("ann", asked, id=f"try-{ctx.attempt}")).result())["written"]

    took: list[object] = []
    async with writer(state, took):
        with pytest.raises(WorkflowFailed, match="stubborn: HandoffFailed: ann has refused it: it is"):
            await Workflow("flow", stubborn).run(state, "1")
        assert took == ["impossible"]
        assert await Workflow("flow", flexible).run(state, "2") == {"flexible": "possible"}
