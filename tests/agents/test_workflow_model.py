"""Workflows beside a model: any plan, however often its steps fail and its runner loses the run, comes to what a plain
interpreter comes to, and has each effect once."""

import asyncio
import itertools
import json
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import comity
from comity import Client
from comity.agents import RunState, StepContext, Workflow, WorkflowFailed, each, parallel, sequence, step, when
from comity.agents.workflow.plan import Node, OnFailure
from tests.servers import Server

SOAK = os.environ.get("COMITY_SOAK") == "1"
EXAMPLES = 1_000 if SOAK else 30

Scope = dict[str, Any]


class One(NamedTuple):
    """A step that fails so often before it is done."""

    fails: int
    retries: int


class Each(NamedTuple):
    one: One
    items: int
    concurrency: int | None
    on_failure: OnFailure


class InTurn(NamedTuple):
    parts: list["Part"]


class AtOnce(NamedTuple):
    parts: list["Part"]
    on_failure: OnFailure


class If(NamedTuple):
    """Whether the number of results is odd."""

    then: "Part"
    otherwise: "Part | None"


Part = One | Each | InTurn | AtOnce | If

ways: st.SearchStrategy[OnFailure] = st.sampled_from(["finish", "cancel"])
ones = st.builds(One, st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 1))
leaves = st.one_of(ones, st.builds(Each, ones, st.integers(0, 3), st.sampled_from([None, 1, 2]), ways))
parts: st.SearchStrategy[Part] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(InTurn, st.lists(inner, min_size=1, max_size=3)),
        st.builds(AtOnce, st.lists(inner, min_size=1, max_size=3), ways),
        st.builds(If, inner, st.none() | inner),
    ),
    max_leaves=8,
)


def said(name: str, scope: Scope, item: object = None) -> list[object]:
    """The result of a step: all that it could see."""
    return [name, item, sorted(scope), zlib.crc32(json.dumps(scope, sort_keys=True).encode())]


def interpret(part: Part, names: Iterator[int], scope: Scope, taken: bool, done: set[str]) -> None:
    """Do a part in the plainest way. Of one that is not taken only the names are used up."""
    match part:
        case One():
            name = f"s{next(names)}"
            if taken:
                scope[name] = said(name, scope)
                done.add(name)
        case Each(_, count):
            name = f"s{next(names)}"
            if taken:
                scope[name] = [said(name, scope, item) for item in range(count)]
                done.update(f"{name}[{item}]" for item in range(count))
        case InTurn(inner):
            for one in inner:
                interpret(one, names, scope, taken, done)
        case AtOnce(inner):
            scopes = [dict(scope) for _ in inner]
            for one, own in zip(inner, scopes, strict=True):
                interpret(one, names, own, taken, done)
            for own in scopes:
                scope.update(own)
        case If(then, otherwise):
            odd = len(scope) % 2 == 1
            interpret(then, names, scope, taken and odd, done)
            if otherwise is not None:
                interpret(otherwise, names, scope, taken and not odd, done)


class Build:
    """Makes a plan of parts. Its steps fail as they should, and lose the run at these calls."""

    def __init__(self, losing: set[int]) -> None:
        self._losing = losing
        self._calls = itertools.count()
        self._names = itertools.count()
        self._decisions = itertools.count()
        self._tries: Counter[str] = Counter()

    def node(self, part: Part) -> Node:
        match part:
            case One(fails, retries):
                return step(name=f"s{next(self._names)}", retries=retries, backoff=0)(self._function(fails))
            case Each(one, count, concurrency, on_failure):
                made = self.node(one)
                return each(made, lambda ctx: range(count), concurrency=concurrency, on_failure=on_failure)  # type: ignore[arg-type]  # a step
            case InTurn(inner):
                return sequence(*map(self.node, inner))
            case AtOnce(inner, on_failure):
                return parallel(*map(self.node, inner), on_failure=on_failure)
            case If(then, otherwise):
                first = self.node(then)
                other = None if otherwise is None else self.node(otherwise)
                name = f"if{next(self._decisions)}"
                return when(lambda ctx: len(ctx.results) % 2 == 1, first, other, name=name)

    def _function(self, fails: int) -> Any:
        async def run(ctx: StepContext) -> list[object]:
            place = ctx.step if ctx.index is None else f"{ctx.step}[{ctx.index}]"
            ctx.increment(f"effects/{ctx.run_id}/{place}")
            if next(self._calls) in self._losing:
                await ctx.client.revoke_lease(ctx.guard.lease_id)
            self._tries[place] += 1
            if self._tries[place] <= fails:
                raise ValueError(place)
            return said(ctx.step, dict(ctx.results), ctx.item)

        return run


async def outcome(state: Client, flow: Workflow, run_id: str) -> dict[str, Any]:
    """Run it as often as it takes."""
    while True:
        try:
            return await flow.run(state, run_id, ttl=60)
        except WorkflowFailed:
            assert (await flow.status(state, run_id)).state is RunState.FAILED
        except comity.LeaseLost:
            assert (await flow.status(state, run_id)).state is RunState.INTERRUPTED


async def check(server: Server, namespace: str, part: Part, losing: set[int]) -> None:
    expected: Scope = {}
    done: set[str] = set()
    interpret(part, itertools.count(), expected, True, done)
    run_id = uuid.uuid4().hex
    async with comity.connect(server.address, namespace=namespace) as state:
        flow = Workflow("model", Build(losing).node(part))
        assert await outcome(state, flow, run_id) == expected
        prefix = f"effects/{run_id}/"
        effects = {entry.key.removeprefix(prefix): entry.value async for entry in state.list(prefix)}
        assert effects == dict.fromkeys(done, 1)
        status = await flow.status(state, run_id)
        assert {name for name, one in status.steps.items() if one.state == "done"} == expected.keys()
        assert {name for name, one in status.steps.items() if one.state != "done"} == {
            name for name, one in status.steps.items() if one.state == "skipped"
        }


@pytest.mark.soak
@pytest.mark.timeout(1200 if SOAK else 120)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not SOAK,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(part=parts, losing=st.sets(st.integers(0, 12), max_size=2))
def test_any_plan_comes_to_what_an_interpreter_comes_to(
    server: Server, namespace: str, part: Part, losing: set[int]
) -> None:
    asyncio.run(check(server, namespace, part, losing))
