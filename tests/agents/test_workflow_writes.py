"""What steps of workflows write, with their outcomes and before."""

from collections.abc import Callable
from typing import Any

import pytest

from comity import Client, Transaction
from comity.agents import (
    RunState,
    StepContext,
    Workflow,
    WorkflowFailed,
    step,
)
from tests.agents.steps import value


async def test_what_a_step_writes_is_applied_with_its_outcome(state: Client) -> None:
    await state.put("old/1", 1)
    await state.put("budget", 10)

    async def spend(tx: Transaction) -> None:
        budget = await tx.get("budget")
        assert budget is not None
        tx.put("budget", budget.value - 4)

    @step(retries=1, backoff=0)
    async def work(ctx: StepContext) -> str:
        report = {"text": "first"}
        ctx.put("report", report)
        report["text"] = "changed"
        ctx.put("raw", b"\x00", content_type="image/png")
        ctx.delete(prefix="old/")
        ctx.increment("count", 2)
        ctx.transact(spend)
        assert await ctx.client.get("report") is None
        if ctx.attempt == 1:
            raise ValueError
        return "done"

    assert await Workflow("flow", work).run(state, "1") == {"work": "done"}
    assert await value(state, "report") == {"text": "first"}
    assert await value(state, "raw") == b"\x00"
    assert await value(state, "count") == 2
    assert await value(state, "budget") == 6
    assert await state.get("old/1") is None
    last = await anext(aiter(state.history("report")))
    assert last.message == "run '1' of workflow 'flow': work done"
    outcome = await state.get("workflows/flow/1/outcomes/work")
    assert outcome is not None
    assert last.revision == outcome.mod_revision


async def test_what_is_written_last_fails_the_step(state: Client) -> None:
    def refuse(tx: Transaction) -> None:
        tx.put("b", 1)
        raise PermissionError("over budget")

    async def no(ctx: StepContext) -> None:
        ctx.put("a", 1)
        ctx.transact(refuse)

    async def empty(ctx: StepContext) -> None:
        ctx.put("a", 1)
        ctx.put("", 1)

    async def text(ctx: StepContext) -> None:
        ctx.put("a", 1)
        ctx.increment("text")

    await state.put("text", "x")
    for function, why in (
        (no, "PermissionError: over budget"),
        (empty, "InvalidArgument"),
        (text, "is not a whole number"),
    ):
        with pytest.raises(WorkflowFailed, match=why):
            await Workflow("flow", function).run(state, function.__name__)
    assert await state.get("a") is None
    assert await state.get("b") is None


async def test_arguments_of_writes(state: Client) -> None:
    kept: list[StepContext] = []

    async def work(ctx: StepContext) -> None:
        kept.append(ctx)
        wrong: list[Callable[[], object]] = [
            lambda: ctx.put(1, 1),  # type: ignore[arg-type]
            lambda: ctx.put("a", object()),
            lambda: ctx.delete(),
            lambda: ctx.delete("a", prefix="b"),
            lambda: ctx.increment("a", "1"),  # type: ignore[arg-type]
            lambda: ctx.transact("a"),  # type: ignore[arg-type]
        ]
        for call in wrong:
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError, match="name must not be empty"):
            await ctx.state.put("", 1)
        with pytest.raises(KeyError):
            ctx.results["nothing"]

    await Workflow("flow", work).run(state, "1")
    with pytest.raises(RuntimeError, match="the step has ended"):
        kept[0].put("a", 1)


async def test_keys_of_the_runs_own_are_there_for_the_next_attempt(state: Client) -> None:
    @step(retries=1, backoff=0)
    async def work(ctx: StepContext) -> dict[str, Any]:
        seen = await ctx.state.get("page")
        await ctx.state.put("page", ctx.attempt)
        await ctx.state.put("gone", 1)
        await ctx.state.delete("gone")
        if ctx.attempt == 1:
            raise ValueError
        return {"seen": seen, "all": await ctx.state.list(), "some": await ctx.state.list("x")}

    flow = Workflow("flow", work)
    assert await flow.run(state, "1") == {"work": {"seen": 1, "all": {"page": 2}, "some": {}}}
    assert await value(state, "workflows/flow/1/state/page") == 2
    assert (await flow.status(state, "1")).state is RunState.DONE
