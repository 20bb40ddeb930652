"""Workflows: what is done of a plan, in which order, once, and what is said of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client
from comity.agents import (
    RunContext,
    RunState,
    StepContext,
    StepState,
    Workflow,
    WorkflowFailed,
    each,
    parallel,
    sequence,
    step,
    when,
)
from tests.agents.steps import Calls, Gate
from tests.servers import Server

# Plans


async def test_one_after_another_with_the_results_of_those_before(state: Client) -> None:
    seen: list[dict[str, Any]] = []

    async def triage(ctx: StepContext) -> dict[str, int]:
        seen.append(dict(ctx.results))
        return {"rows": ctx.input["rows"]}

    async def double(ctx: StepContext) -> int:
        seen.append(dict(ctx.results))
        ctx.results["triage"]["rows"] = 0  # of a copy
        return int(ctx.results["triage"]["rows"]) * 2

    async def report(ctx: StepContext) -> str:
        seen.append(dict(ctx.results))
        assert (ctx.workflow, ctx.run_id, ctx.step, ctx.attempt) == ("flow", "1", "report", 1)
        return f"{ctx.results['double']} rows"

    flow = Workflow("flow", triage, sequence(double, report))
    assert await flow.run(state, "1", {"rows": 21}) == {"triage": {"rows": 21}, "double": 42, "report": "42 rows"}
    assert seen == [{}, {"triage": {"rows": 21}}, {"triage": {"rows": 21}, "double": 42}]


async def test_a_run_that_is_done_is_not_done_again(state: Client, calls: Calls) -> None:
    flow = Workflow("flow", calls.step("a", 1), each(calls.step("b", 2), lambda ctx: [1, 2]), calls.step("c"))
    expected = {"a": 1, "b": [2, 2], "c": None}
    assert await flow.run(state, "1") == expected
    revision = (await state.namespace_info()).revision
    assert await flow.run(state, "1", None) == expected
    assert calls.names == ["a", "b[0]", "b[1]", "c"]
    assert (await state.namespace_info()).revision == revision
    assert await flow.run(state, "2") == expected
    assert len(calls.names) == 8


async def test_branches_run_at_a_time_and_do_not_see_each_other(state: Client) -> None:
    both = asyncio.Barrier(2)
    seen: dict[str, list[str]] = {}

    def branch(name: str) -> Any:
        async def run(ctx: StepContext) -> str:
            await both.wait()
            seen[name] = list(ctx.results)
            return name

        return step(name=name)(run)

    async def last(ctx: StepContext) -> list[str]:
        return sorted(ctx.results)

    flow = Workflow("flow", parallel(sequence(branch("a"), branch("b")), sequence(branch("c"), branch("d"))), last)
    assert (await flow.run(state, "1"))["last"] == ["a", "b", "c", "d"]
    assert seen == {"a": [], "b": ["a"], "c": [], "d": ["c"]}


@pytest.mark.parametrize(("rows", "expected"), [(5, ["report"]), (0, ["apologise"])])
async def test_one_of_two_ways(state: Client, calls: Calls, rows: int, expected: list[str]) -> None:
    async def any_rows(ctx: RunContext) -> bool:
        return bool(ctx.input > 0)

    flow = Workflow("flow", when(any_rows, calls.step("report"), otherwise=calls.step("apologise")))
    assert list(await flow.run(state, "1", rows)) == expected
    steps = (await flow.status(state, "1")).steps
    assert {name: step.state for name, step in steps.items()} == {
        name: StepState.DONE if name in expected else StepState.SKIPPED for name in ("report", "apologise")
    }


async def test_a_way_that_is_not_there(state: Client, calls: Calls) -> None:
    flow = Workflow("flow", calls.step("a"), when(lambda ctx: "a" not in ctx.results, calls.step("b")), calls.step("c"))
    assert await flow.run(state, "1") == {"a": None, "c": None}


async def test_a_decision_is_made_once(state: Client, calls: Calls) -> None:
    answers = iter([True, False])
    calls.failing["b"] = 1
    flow = Workflow("flow", when(lambda ctx: next(answers), calls.step("b", 1), otherwise=calls.step("c")))
    with pytest.raises(WorkflowFailed):
        await flow.run(state, "1")
    assert await flow.run(state, "1") == {"b": 1}
    assert next(answers) is False


async def test_each_of_a_list(state: Client, calls: Calls) -> None:
    def total(ctx: StepContext) -> int:
        return sum(ctx.results["square"])

    flow = Workflow(
        "flow",
        calls.step("numbers", [1, 2, 3]),
        each(calls.step("square", lambda ctx: ctx.item**2), lambda ctx: ctx.results["numbers"], concurrency=1),
        calls.step("total", total),
        each(calls.step("none"), lambda ctx: []),
    )
    results = await flow.run(state, "1")
    assert results == {"numbers": [1, 2, 3], "square": [1, 4, 9], "total": 14, "none": []}
    assert calls.names == ["numbers", "square[0]", "square[1]", "square[2]", "total"]
    status = (await flow.status(state, "1")).steps["square"]
    assert [(item.name, item.result) for item in status.items] == [
        ("square/000000", 1),
        ("square/000001", 4),
        ("square/000002", 9),
    ]
    assert (status.state, status.attempts) == (StepState.DONE, 3)
    assert (await flow.status(state, "1")).steps["none"].state is StepState.DONE


async def test_no_more_at_a_time_than_was_said(state: Client) -> None:
    now = most = 0

    async def work(ctx: StepContext) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await ctx.state.put(str(ctx.index), "busy")
        now -= 1

    await Workflow("flow", each(work, lambda ctx: range(12), concurrency=3)).run(state, "1")
    assert most == 3


async def test_items_are_asked_for_once_and_those_that_are_done_are_kept(state: Client, calls: Calls) -> None:
    lists = iter([["x", "y", "z"], []])
    calls.failing["b[1]"] = 1
    flow = Workflow("flow", each(calls.step("b", lambda ctx: ctx.item * 2), lambda ctx: next(lists)))
    with pytest.raises(WorkflowFailed, match=r"b\[1\]: ValueError: b is out of sorts") as failed:
        await flow.run(state, "1")
    assert list(failed.value.failures) == ["b[1]"]
    assert (await flow.status(state, "1")).steps["b"].state is StepState.FAILED
    assert await flow.run(state, "1") == {"b": ["xx", "yy", "zz"]}
    assert sorted(calls.names) == ["b[0]", "b[1]", "b[1]", "b[2]"]


# What is said of runs


async def test_observing_a_run_from_before_its_begin_to_its_end(state: Client, calls: Calls) -> None:
    calls.failing["b"] = 1
    flow = Workflow("flow", calls.step("a", 1), calls.step("b", 2, retries=1), when(lambda ctx: False, calls.step("c")))
    seen: list[tuple[RunState, list[str]]] = []
    observer = flow.observe(state, "1")
    first = await anext(observer)
    assert (first.state, first.steps["a"].state, first.steps["a"].started) == (
        RunState.PENDING,
        StepState.PENDING,
        None,
    )
    await flow.run(state, "1", {"x": 1})
    async for status in observer:
        seen.append((status.state, [step.state.value for step in status.steps.values()]))
    assert seen == [
        (RunState.PENDING, ["pending", "pending", "pending"]),  # it is held
        (RunState.RUNNING, ["pending", "pending", "pending"]),
        (RunState.RUNNING, ["running", "pending", "pending"]),
        (RunState.RUNNING, ["done", "pending", "pending"]),
        (RunState.RUNNING, ["done", "running", "pending"]),
        (RunState.RUNNING, ["done", "failed", "pending"]),
        (RunState.RUNNING, ["done", "running", "pending"]),
        (RunState.RUNNING, ["done", "done", "pending"]),
        (RunState.RUNNING, ["done", "done", "skipped"]),
        (RunState.DONE, ["done", "done", "skipped"]),
    ]
    assert status.ended
    assert status.input == {"x": 1}
    assert status.holder is not None
    assert set(status.holder) == {"host", "pid", "lease_id"}
    found = status.steps["b"]
    assert found.started is not None
    assert found.ended is not None
    assert found.started <= found.ended
    assert found.started_revision == found.ended_revision - 1
    assert found.attempts == 2


async def test_runs_are_listed_and_deleted(state: Client, calls: Calls) -> None:
    flow = Workflow("flow", calls.step("a"))
    assert [run async for run in flow.runs(state)] == []
    for run_id in ("2026-12", "2026-11"):
        await flow.run(state, run_id)
    await Workflow("flow2", calls.step("a")).run(state, "other")
    assert [run async for run in flow.runs(state)] == ["2026-11", "2026-12"]
    assert await flow.delete_run(state, "2026-11")
    assert not await flow.delete_run(state, "2026-11")
    assert [run async for run in flow.runs(state)] == ["2026-12"]
    assert await state.list("workflows/flow/2026-11/").all() == []


async def test_a_record_that_is_none(state: Client, calls: Calls) -> None:
    await state.put("workflows/flow/1/other", "of somebody else")
    assert (await Workflow("flow", calls.step("a")).status(state, "1")).state is RunState.PENDING
    await state.put("workflows/flow/1/run", [1])
    with pytest.raises(comity.DecodeError, match="'workflows/flow/1/run' is no record of a workflow"):
        await Workflow("flow", calls.step("a")).run(state, "1")


async def test_one_workflow_over_several_clients(server: Server, namespace: str, calls: Calls) -> None:
    flow = Workflow("flow", calls.step("a", lambda ctx: ctx.client.namespace))
    async with comity.connect(server.address, namespace=namespace) as state:
        other = state.with_options(namespace=f"{namespace}-2")
        results = await asyncio.gather(flow.run(state, "1"), flow.run(other, "1"))
        assert list(results) == [{"a": namespace}, {"a": f"{namespace}-2"}]


async def test_arguments_of_a_run(state: Client, calls: Calls) -> None:
    flow = Workflow("flow", calls.step("a"))
    wrong: list[tuple[Callable[[], Awaitable[object]], type[Exception], str]] = [
        (lambda: flow.run(state, "a/b"), ValueError, "run_id must be 1 to 63 of"),
        (lambda: flow.run(state, ""), ValueError, "run_id must be 1 to 63 of"),
        (lambda: flow.run(state, 1), TypeError, "run_id must be a str"),  # type: ignore[arg-type]
        (lambda: flow.run(state, "1", object()), TypeError, "cannot be written as JSON"),
        (lambda: flow.run(state, "1", wait=-1), ValueError, "wait must not be negative"),
        (lambda: flow.run(state, "1", wait="x"), TypeError, "wait must be a number"),  # type: ignore[arg-type]
        (lambda: flow.run(state, "1", ttl=float("nan")), ValueError, "ttl"),
        (lambda: flow.run(state, "1", "x" * (1 << 20)), comity.InvalidArgument, "value"),
        (lambda: flow.status(state, "\x00"), ValueError, "run_id must be 1 to 63 of"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            await call()
    assert calls.names == []


@pytest.mark.parametrize("way", ["deleted", "restored"])
async def test_whoever_is_the_holder_no_more_has_lost_the_run(state: Client, way: str) -> None:
    gate = Gate()
    flow = Workflow("flow", gate.step)
    await state.put("other", 1)
    mark = await state.checkpoint("before")
    first = asyncio.create_task(flow.run(state, "1"))
    await gate.begun.wait()
    if way == "deleted":
        await state.delete("workflows/flow/1/holder")
    else:
        await state.restore(mark, prefix="workflows/")
    with pytest.raises(comity.LeaseLost):
        await state.put("x", 1, guard=gate.guards[0])
    second = asyncio.create_task(flow.run(state, "1"))
    with pytest.raises(comity.LeaseLost):
        await first
    gate.open.set()
    assert await second == {"gate": "gate"}
