"""Workflows: what is done of a plan, in which order, once, and what is said of it."""

import asyncio
import os
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Transaction
from comity.agents import (
    RunContext,
    RunDiffers,
    RunIsHeld,
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
from tests.servers import Server
from tests.waiting import until


class Calls:
    """Steps that note that they ran, and fail as often as they are told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failing: dict[str, int] = {}

    def step(self, name: str, result: object = None, **options: Any) -> Any:
        async def run(ctx: StepContext) -> object:
            self.names.append(name if ctx.index is None else f"{name}[{ctx.index}]")
            if self.failing.get(self.names[-1], 0) > 0:
                self.failing[self.names[-1]] -= 1
                raise ValueError(f"{name} is out of sorts")
            return result(ctx) if callable(result) else result

        return step(name=name, backoff=0.001, **options)(run)


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def value(state: Client, key: str) -> Any:
    entry = await state.get(key)
    return None if entry is None else entry.value


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


# Failures


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


# What steps write


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


# Runners


class Gate:
    """A step that waits until it may end."""

    def __init__(self, name: str = "gate") -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.attempts: list[int] = []
        self.guards: list[comity.LeaseGuard] = []

        async def run(ctx: StepContext) -> str:
            self.attempts.append(ctx.attempt)
            self.guards.append(ctx.guard)
            self.begun.set()
            await self.open.wait()
            return name

        self.step = step(name=name)(run)


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
