"""What a plan can be made of, and what is said of what is none."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from comity import agents
from comity.agents import StepContext

# Of any type: most of what is called here is called with what does not fit.
Workflow: Any = agents.Workflow
each: Any = agents.each
parallel: Any = agents.parallel
sequence: Any = agents.sequence
step: Any = agents.step
when: Any = agents.when


async def nothing(ctx: StepContext) -> None: ...


class Callable_:  # noqa: N801
    async def __call__(self, ctx: StepContext) -> None: ...


def test_what_can_be_a_step() -> None:
    assert str(Workflow("w", nothing).plan) == "sequence(nothing)"
    assert str(Workflow("w", step(name="p")(functools.partial(nothing))).plan) == "sequence(p)"
    assert str(Workflow("w", step(name="c")(Callable_())).plan) == "sequence(c)"
    assert str(Workflow("w", step(nothing).named("again"), nothing).plan) == "sequence(again, nothing)"
    shape = sequence(parallel(step(nothing), when(lambda ctx: 1, step(name="b")(nothing), step(name="c")(nothing))))
    assert repr(Workflow("w", shape)) == (
        "<comity.agents.Workflow 'w': sequence(parallel(nothing, when(when-b, b, otherwise=c)))>"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Workflow("w"), ValueError, "sequence has no steps"),
        (lambda: Workflow("a/b", nothing), ValueError, "name must be 1 to 63 of"),
        (lambda: Workflow("", nothing), ValueError, "name must be 1 to 63 of"),
        (lambda: Workflow("x" * 64, nothing), ValueError, "name must be 1 to 63 of"),
        (lambda: Workflow(3, nothing), TypeError, "name must be a str, not int"),
        (lambda: Workflow("w", parallel()), ValueError, "parallel has no steps"),
        (lambda: Workflow("w", nothing, nothing), ValueError, r"two of the name 'nothing' \(step\)"),
        (lambda: Workflow("w", 3), TypeError, r"sequence\[0\] must be a step or made of steps, not int"),
        (lambda: Workflow("w", print), TypeError, "a step must be an async function"),
        (lambda: Workflow("w", lambda ctx: None), TypeError, "have asyncio.to_thread run it"),
        (lambda: Workflow("w", functools.partial(nothing)), ValueError, "a function that has no name"),
        (lambda: step(name="a b")(nothing), ValueError, "the name of a step must be 1 to 63 of"),
        (lambda: step(retries=-1)(nothing), ValueError, "retries must not be negative"),
        (lambda: step(retries=True)(nothing), TypeError, "retries must be a whole number"),
        (lambda: step(timeout=0)(nothing), ValueError, "timeout must be above 0"),
        (lambda: step(timeout="1")(nothing), TypeError, "timeout must be a number of seconds, not str"),
        (lambda: step(backoff=float("nan"))(nothing), ValueError, "backoff must be a number of seconds from 0"),
        (lambda: parallel(nothing, on_failure="stop"), ValueError, "on_failure must be 'finish' or 'cancel'"),
        (lambda: when(True, nothing), TypeError, "condition must be a function"),
        (lambda: each(nothing, [1]), TypeError, "over must be a function of a RunContext, not list"),
        (lambda: each(parallel(nothing), lambda ctx: []), TypeError, "each takes one step"),
        (lambda: each(nothing, lambda ctx: [], concurrency=0), ValueError, "at least 1"),
        (lambda: each(nothing, lambda ctx: [], concurrency=1.5), TypeError, "concurrency must be a whole number"),
        (
            lambda: Workflow("w", when(len, nothing), when(len, step(name="b")(nothing))),
            ValueError,
            r"two of the name 'len' \(when\)",
        ),
    ],
)
def test_what_is_no_plan(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
