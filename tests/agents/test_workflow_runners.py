"""Who runs a workflow: one at a time, by a lease, and with the plan that it was begun with."""

import asyncio
import os

import pytest

import comity
from comity import Client
from comity.agents import (
    RunDiffers,
    RunIsHeld,
    RunState,
    StepContext,
    StepState,
    Workflow,
    WorkflowFailed,
    parallel,
    step,
)
from tests.agents.steps import Calls, Gate, value


async def test_a_second_runner_waits_or_is_refused(state: Client) -> None:
    gate = Gate()
    flow = Workflow("flow", gate.step)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(flow.run(state, "1"))
        await gate.begun.wait()
        for wait in (0, 0.01):
            with pytest.raises(RunIsHeld, match="run '1' of workflow 'flow' is held by a runner") as held:
                await flow.run(state, "1", wait=wait)
            assert held.value.metadata["pid"] == str(os.getpid())
            assert held.value.metadata["lease_id"] == str(gate.guards[0].lease_id)
        with pytest.raises(RunIsHeld):
            await flow.delete_run(state, "1")
        second = group.create_task(flow.run(state, "1"))
        third = group.create_task(flow.run(state, "1", wait=30))
        gate.open.set()
    assert first.result() == second.result() == third.result() == {"gate": "gate"}
    assert gate.attempts == [1]


async def test_several_that_begin_at_once_do_each_step_once(state: Client, calls: Calls) -> None:
    flow = Workflow("flow", parallel(*(calls.step(f"s{number}", number) for number in range(4))), calls.step("end"))
    results = await asyncio.gather(*(flow.run(state, "1") for _ in range(5)))
    assert all(result == results[0] for result in results)
    assert sorted(calls.names) == ["end", "s0", "s1", "s2", "s3"]


async def test_a_runner_that_is_cancelled_lets_go(state: Client) -> None:
    gate = Gate()
    flow = Workflow("flow", gate.step)
    first = asyncio.create_task(flow.run(state, "1"))
    await gate.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    status = await flow.status(state, "1")
    assert (status.state, status.holder) == (RunState.INTERRUPTED, None)
    assert status.steps["gate"].state is StepState.PENDING
    gate.open.set()
    assert await flow.run(state, "1", wait=0) == {"gate": "gate"}
    assert gate.attempts == [1, 2]
    assert gate.guards[0].fence < gate.guards[1].fence


async def test_a_runner_that_lost_its_lease_writes_nothing_more(state: Client) -> None:
    gate = Gate()

    @step(retries=3)
    async def stubborn(ctx: StepContext) -> None:
        """Goes on whatever happens, as a process does that was stopped, and continued when its time was over."""
        ctx.put("late", ctx.attempt)
        gate.guards.append(ctx.guard)
        gate.begun.set()
        while not gate.open.is_set():
            try:
                await gate.open.wait()
            except asyncio.CancelledError:
                continue

    flow = Workflow("flow", stubborn)
    first = asyncio.create_task(flow.run(state, "1"))
    await gate.begun.wait()
    holder = (await flow.status(state, "1")).holder
    assert holder is not None
    await state.revoke_lease(holder["lease_id"])
    revision = (await state.namespace_info()).revision
    gate.open.set()
    with pytest.raises(comity.LeaseLost):
        await first
    assert (await state.namespace_info()).revision == revision
    with pytest.raises(comity.LeaseLost):
        await state.put("x", 1, guard=gate.guards[0])
    assert await flow.run(state, "1") == {"stubborn": None}
    assert await value(state, "late") == 2


async def test_a_lost_lease_ends_the_steps(state: Client) -> None:
    gates = [Gate("a"), Gate("b")]
    flow = Workflow("flow", parallel(*(gate.step for gate in gates)))
    first = asyncio.create_task(flow.run(state, "1"))
    for gate in gates:
        await gate.begun.wait()
    await state.revoke_lease(gates[0].guards[0].lease_id)
    with pytest.raises(comity.LeaseLost):
        await first


async def test_what_a_restore_or_a_fork_has_left_holds_nothing(state: Client, calls: Calls) -> None:
    gate = Gate()
    flow = Workflow("flow", calls.step("a", lambda ctx: ctx.increment("count")), gate.step, calls.step("b"))
    first = asyncio.create_task(flow.run(state, "1"))
    await gate.begun.wait()
    mark = await state.checkpoint("in-the-midst")
    fork = await state.fork("fork-" + state.namespace)
    assert (await flow.status(fork, "1")).state is RunState.INTERRUPTED
    gate.open.set()
    done = await first
    assert await flow.run(fork, "1", wait=0) == done
    assert calls.names == ["a", "b", "b"]
    assert await value(fork, "count") == 1

    await state.restore(mark)
    assert (await flow.status(state, "1")).state is RunState.INTERRUPTED
    assert (await anext(flow.observe(state, "1"))).steps["gate"].state is StepState.PENDING
    assert await flow.run(state, "1", wait=0) == done
    assert calls.names == ["a", "b", "b", "b"]
    assert await value(state, "count") == 1
    await state.restore(mark)
    assert await flow.delete_run(state, "1")


async def test_another_plan_is_refused(state: Client, calls: Calls) -> None:
    calls.failing["b"] = 1
    with pytest.raises(WorkflowFailed):
        await Workflow("flow", calls.step("a", 1), calls.step("b", 2)).run(state, "1")
    renamed = Workflow("flow", calls.step("a", 1), calls.step("c", 3))
    for other in (renamed, Workflow("flow", calls.step("b", 2), calls.step("a", 1))):
        with pytest.raises(RunDiffers, match=r"another plan: sequence\(a, b\) then, sequence\("):
            await other.run(state, "1")
    assert await renamed.run(state, "1", allow_changed_plan=True) == {"a": 1, "c": 3}
    assert calls.names == ["a", "b", "c"]
    assert await renamed.run(state, "1") == {"a": 1, "c": 3}
    longer = Workflow("flow", calls.step("a", 1), calls.step("c", 3), calls.step("d", 4))
    with pytest.raises(RunDiffers):
        await longer.run(state, "1")
    assert await longer.run(state, "1", allow_changed_plan=True) == {"a": 1, "c": 3, "d": 4}
    assert calls.names == ["a", "b", "c", "d"]


async def test_another_input_is_refused_and_none_is_that_of_the_run(state: Client, calls: Calls) -> None:
    calls.failing["a"] = 1
    flow = Workflow("flow", calls.step("a", lambda ctx: ctx.input))
    with pytest.raises(WorkflowFailed):
        await flow.run(state, "1", {"n": 1})
    with pytest.raises(RunDiffers, match="another input"):
        await flow.run(state, "1", {"n": 2})
    with pytest.raises(RunDiffers, match="another input"):
        await flow.run(state, "1", None)
    assert await flow.run(state, "1") == {"a": {"n": 1}}
    assert await flow.run(state, "1", {"n": 1}) == {"a": {"n": 1}}
