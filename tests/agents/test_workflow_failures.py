"""Steps of workflows that fail: what is tried again, what is left undone, and what is said of it."""

import asyncio
import pickle

import pytest

from comity import Client
from comity.agents import (
    RunState,
    StepContext,
    StepFailure,
    StepState,
    Workflow,
    WorkflowError,
    WorkflowFailed,
    each,
    parallel,
    sequence,
    step,
    when,
)
from tests.agents.steps import Calls
from tests.waiting import until


async def test_a_step_is_tried_again(state: Client, calls: Calls) -> None:
    calls.failing["a"] = 2
    flow = Workflow("flow", calls.step("a", lambda ctx: ctx.attempt, retries=2))
    assert await flow.run(state, "1") == {"a": 3}
    found = (await flow.status(state, "1")).steps["a"]
    assert (found.state, found.attempts, found.error, found.result) == (StepState.DONE, 3, None, 3)


async def test_a_failure_ends_the_run_and_a_run_tries_it_again(state: Client, calls: Calls) -> None:
    calls.failing["b"] = 3
    flow = Workflow("flow", calls.step("a", 1), calls.step("b", 2, retries=1), calls.step("c", 3))
    with pytest.raises(
        WorkflowFailed, match="run '1' of workflow 'flow' has failed: b: ValueError: b is out of sorts"
    ) as failed:
        await flow.run(state, "1")
    assert failed.value.failures == {"b": StepFailure("ValueError", "b is out of sorts")}
    assert failed.value.results == {"a": 1}
    assert isinstance(failed.value.__cause__, ValueError)
    assert isinstance(failed.value, WorkflowError)
    assert pickle.loads(pickle.dumps(failed.value)).failures == failed.value.failures
    status = await flow.status(state, "1")
    assert status.state is RunState.FAILED
    assert status.failures == failed.value.failures
    assert [step.state for step in status.steps.values()] == [StepState.DONE, StepState.FAILED, StepState.PENDING]
    assert status.steps["b"].error == StepFailure("ValueError", "b is out of sorts")

    assert await flow.run(state, "1") == {"a": 1, "b": 2, "c": 3}
    assert calls.names == ["a", "b", "b", "b", "b", "c"]
    status = await flow.status(state, "1")
    assert (status.state, dict(status.failures), status.steps["b"].attempts) == (RunState.DONE, {}, 4)


async def test_the_others_finish_when_a_branch_fails(state: Client, calls: Calls) -> None:
    failed = asyncio.Event()
    calls.failing["a"] = 1

    async def slow(ctx: StepContext) -> str:
        await until(lambda: "a" in calls.names)
        return "done"

    flow = Workflow("flow", parallel(calls.step("a"), sequence(slow, calls.step("b"))), calls.step("c"))
    with pytest.raises(WorkflowFailed) as caught:
        await flow.run(state, "1")
    assert not failed.is_set()
    assert caught.value.results == {"slow": "done", "b": None}
    assert list(caught.value.failures) == ["a"]
    assert calls.names == ["a", "b"]


async def test_the_others_are_cancelled_when_a_branch_fails(state: Client, calls: Calls) -> None:
    running = asyncio.Event()
    cancelled = []

    async def bad(ctx: StepContext) -> None:
        await running.wait()
        raise ValueError("bad")

    async def endless(ctx: StepContext) -> str:
        if ctx.attempt == 1:
            running.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(ctx.step)
                raise
        return "second"

    flow = Workflow("flow", parallel(sequence(calls.step("a"), endless), bad, on_failure="cancel"))
    with pytest.raises(WorkflowFailed) as caught:
        await flow.run(state, "1")
    assert cancelled == ["endless"]
    assert (caught.value.results, list(caught.value.failures)) == ({"a": None}, ["bad"])
    found = (await flow.status(state, "1")).steps["endless"]
    assert (found.state, found.attempts) == (StepState.PENDING, 1)


async def test_a_step_that_takes_too_long(state: Client) -> None:
    @step(timeout=0.02)
    async def endless(ctx: StepContext) -> None:
        await asyncio.Event().wait()

    with pytest.raises(WorkflowFailed, match=r"endless: TimeoutError: took longer than 0.02 s") as failed:
        await Workflow("flow", endless).run(state, "1")
    assert isinstance(failed.value.__cause__, TimeoutError)


async def test_what_a_step_waits_for_may_be_cancelled_and_the_step_has_failed(state: Client) -> None:
    async def wait(ctx: StepContext) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    with pytest.raises(WorkflowFailed, match="wait: CancelledError"):
        await Workflow("flow", wait).run(state, "1")


async def test_a_condition_or_a_list_that_fails(state: Client, calls: Calls) -> None:
    with pytest.raises(WorkflowFailed, match="when-a: ZeroDivisionError"):
        await Workflow("flow", when(lambda ctx: 1 // 0, calls.step("a"))).run(state, "1")
    for number, over in enumerate([lambda ctx: "text", lambda ctx: {"a": 1}, lambda ctx: 5]):
        with pytest.raises(WorkflowFailed, match=r"a: TypeError: over must say a list, not (str|dict|int)"):
            await Workflow("flow", each(calls.step("a"), over)).run(state, f"x{number}")
    with pytest.raises(WorkflowFailed, match="a: TypeError: a value of type set cannot be written"):
        await Workflow("flow", each(calls.step("a"), lambda ctx: [set()])).run(state, "set")
    assert calls.names == []


async def test_a_result_must_be_json_and_fit(state: Client, calls: Calls) -> None:
    with pytest.raises(WorkflowFailed, match="a: TypeError: the result cannot be kept: a value of type object"):
        await Workflow("flow", calls.step("a", lambda ctx: object())).run(state, "1")
    with pytest.raises(WorkflowFailed, match="a: ValueError: the result cannot be kept"):
        await Workflow("flow", calls.step("a", lambda ctx: float("nan"))).run(state, "2")
    large = Workflow("flow", calls.step("a", lambda ctx: "x" * (1 << 20)))
    with pytest.raises(WorkflowFailed, match=r"a: InvalidArgument: .*result \(1,048,578 bytes of JSON\), or what"):
        await large.run(state, "3")
    assert (await large.status(state, "3")).steps["a"].state is StepState.FAILED


async def test_an_error_without_a_text_that_can_be_kept(state: Client) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def odd(ctx: StepContext) -> None:
        raise Odd

    async def long(ctx: StepContext) -> None:
        raise ValueError("\ud800" + "x" * 10_000_000)

    with pytest.raises(WorkflowFailed, match=r"odd: Odd: \(its text failed with RuntimeError\)"):
        await Workflow("flow", odd).run(state, "1")
    with pytest.raises(WorkflowFailed, match=r"long: ValueError: \?xxx.*x…") as failed:
        await Workflow("flow", long).run(state, "2")
    assert len(failed.value.failures["long"].message) == 1_000
