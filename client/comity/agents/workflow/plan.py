"""Plans of workflows: steps, one after another, side by side, where a condition holds, for each of a list.

    sequence(triage, parallel(data, optimise), when(worth_it, report, otherwise=skip))

A plan says what is to be done and in which order, and knows nothing of runs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from comity.agents.layout import check_name
from comity.agents.runnable import is_async

if TYPE_CHECKING:
    from .context import RunContext, StepContext

__all__ = ["Each", "Node", "OnFailure", "Parallel", "Plan", "Serial", "Step", "When"]
__all__ += ["each", "parallel", "sequence", "step", "when"]

StepFunction = Callable[["StepContext"], Awaitable[Any]]
Condition = Callable[["RunContext"], Any]
Over = Callable[["RunContext"], Any]
OnFailure = Literal["finish", "cancel"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: an async function, and how often and for how long it is tried. Made by `step`."""

    function: StepFunction
    name: str
    retries: int
    backoff: float
    timeout: float | None

    def named(self, name: str) -> Step:
        """The same step under another name, so that a plan can have it twice."""
        return Step(self.function, check_name("name", name), self.retries, self.backoff, self.timeout)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Serial:
    """One after another. Made by `sequence`."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"sequence({_listed(self.nodes)})"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Side by side. Made by `parallel`."""

    nodes: tuple[Node, ...]
    on_failure: OnFailure

    def __str__(self) -> str:
        return f"parallel({_listed(self.nodes)})"


@dataclass(frozen=True, slots=True)
class When:
    """One of two ways, or none. Made by `when`."""

    condition: Condition
    then: Node
    otherwise: Node | None
    name: str

    def __str__(self) -> str:
        rest = "" if self.otherwise is None else f", otherwise={self.otherwise}"
        return f"when({self.name}, {self.then}{rest})"


@dataclass(frozen=True, slots=True)
class Each:
    """One step for each of a list. Made by `each`."""

    step: Step
    over: Over
    concurrency: int | None
    on_failure: OnFailure

    @property
    def name(self) -> str:
        return self.step.name

    def __str__(self) -> str:
        return f"each({self.step})"


Node = Step | Serial | Parallel | When | Each
Part = Node | StepFunction


@overload
def step(function: StepFunction, /) -> Step: ...


@overload
def step(
    *, name: str | None = None, retries: int = 0, backoff: float = 0.5, timeout: float | None = None
) -> Callable[[StepFunction], Step]: ...


def step(
    function: StepFunction | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 0.5,
    timeout: float | None = None,
) -> Step | Callable[[StepFunction], Step]:
    """Make a step of an async function that takes a `StepContext` and returns a result, which must be JSON. It is a
    decorator: `@step`, or `@step(retries=2, timeout=60)`. A plan takes a plain async function too.

    name: that of the function unless given. What is done is found again by it. 1 to 63 of A-Z a-z 0-9 . _ - ; the first
        a letter or digit.
    retries: how often it is tried again after an attempt that failed, each time that the workflow is run.
    backoff: up to how many seconds to wait before the first retry; twice as many before the next, up to a minute.
    timeout: seconds that an attempt may take; None: as long as it likes.

    Raises TypeError and ValueError for what is none of these.
    """
    if function is not None:
        return _step(function, None, 0, 0.5, None)
    return lambda function: _step(function, name, retries, backoff, timeout)


def sequence(*parts: Part) -> Serial:
    """One after another. The next one begins when the one before is done. Raises ValueError if there is nothing."""
    nodes: list[Node] = []
    for node in _nodes("sequence", parts):
        nodes.extend(node.nodes if isinstance(node, Serial) else (node,))
    return Serial(tuple(nodes))


def parallel(*parts: Part, on_failure: OnFailure = "finish") -> Parallel:
    """Side by side: what follows begins when all are done. None of them sees the results of the others.

    on_failure: once a branch has failed, the others "finish", or are cancelled ("cancel"). Then the run ends.

    Raises ValueError if there is nothing.
    """
    return Parallel(_nodes("parallel", parts), _on_failure(on_failure))


def when(condition: Condition, then: Part, otherwise: Part | None = None, *, name: str | None = None) -> When:
    """`then` if the condition holds, else `otherwise`, or nothing. It is asked once: a resumed run goes the same way.

    condition: called with a `RunContext`, async or not.
    name: under which the decision is kept. Unless given that of the condition; of one that has none, as a lambda,
        `when-` and the name of the first step of `then`.
    """
    if not callable(condition):
        raise TypeError(f"condition must be a function of a RunContext, not {type(condition).__name__}")
    first = _node("then", then)
    known = getattr(condition, "__name__", "<lambda>")
    if name is None:
        name = f"when-{next(steps_of(first)).name}"[:63] if known == "<lambda>" else known
    other = None if otherwise is None else _node("otherwise", otherwise)
    return When(condition, first, other, check_name("name", name))


def each(
    part: Step | StepFunction, over: Over, *, concurrency: int | None = None, on_failure: OnFailure = "finish"
) -> Each:
    """One step for each item of a list, side by side: its result is the list of their results, in the order of items.
    The step finds its item as `ctx.item`, and its place as `ctx.index`.

    over: called with a `RunContext`, async or not, for the list, whose items must be JSON. It is asked once, and its
        answer is kept: a resumed run has the same items.
    concurrency: the most that run at a time; None: all.
    on_failure: as of `parallel`.
    """
    node = _node("each", part)
    if not isinstance(node, Step):
        raise TypeError("each takes one step")
    if not callable(over):
        raise TypeError(f"over must be a function of a RunContext, not {type(over).__name__}")
    if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int)):
        raise TypeError(f"concurrency must be a whole number, not {type(concurrency).__name__}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    return Each(node, over, concurrency, _on_failure(on_failure))


class Plan:
    """A whole plan. Raises ValueError if two of its steps, or two of its decisions, have one name."""

    def __init__(self, *parts: Part) -> None:
        self.root = sequence(*parts)
        self.steps = tuple(steps_of(self.root))
        self.eaches = {node.name for node in _all(self.root) if isinstance(node, Each)}
        _once("step", [step.name for step in self.steps], "fetch.named('fetch-again')")
        _once("when", [node.name for node in _all(self.root) if isinstance(node, When)], "when(…, name='again')")

    def __str__(self) -> str:
        """Its names and its shape. Plans of which this is the same can go on with each other's runs."""
        return str(self.root)


def steps_of(node: Node) -> Iterator[Step]:
    """The steps of a part of a plan, in its order."""
    for each in _all(node):
        if isinstance(each, Step):
            yield each


def _all(node: Node) -> Iterator[Node]:
    yield node
    match node:
        case Serial(nodes) | Parallel(nodes):
            for each in nodes:
                yield from _all(each)
        case When(_, then, otherwise):
            yield from _all(then)
            if otherwise is not None:
                yield from _all(otherwise)
        case Each(step):
            yield step


def _step(function: StepFunction, name: str | None, retries: int, backoff: float, timeout: float | None) -> Step:
    if not is_async(function):
        raise TypeError(
            f"a step must be an async function, not {type(function).__name__}: one that blocks would also keep the"
            " lease from being renewed; have asyncio.to_thread run it"
        )
    if name is None:
        name = getattr(function, "__name__", None)
        if name is None:
            raise ValueError("a step of a function that has no name needs one: step(name=…)")
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be a whole number, not {type(retries).__name__}")
    if retries < 0:
        raise ValueError(f"retries must not be negative: {retries}")
    _seconds("backoff", backoff)
    if timeout is not None and not _seconds("timeout", timeout):
        raise ValueError("timeout must be above 0 seconds")
    return Step(function, check_name("the name of a step", name), retries, backoff, timeout)


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    return value


def _node(name: str, part: Part) -> Node:
    if isinstance(part, Node):
        return part
    if not callable(part):
        raise TypeError(f"{name} must be a step or made of steps, not {type(part).__name__}")
    return _step(part, None, 0, 0.5, None)


def _nodes(name: str, parts: Sequence[Part]) -> tuple[Node, ...]:
    if not parts:
        raise ValueError(f"{name} has no steps")
    return tuple(_node(f"{name}[{index}]", part) for index, part in enumerate(parts))


def _on_failure(value: OnFailure) -> OnFailure:
    if value not in ("finish", "cancel"):
        raise ValueError(f"on_failure must be 'finish' or 'cancel', not {value!r}")
    return value


def _once(what: str, names: list[str], way: str) -> None:
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the plan has two of the name {name!r} ({what}): give one another name, as by {way}")


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(map(str, nodes))
