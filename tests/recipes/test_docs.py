"""docs/recipes.md is right about the keys, and its Python is some."""

import ast
import asyncio
import re
from pathlib import Path

import pytest

from comity import Client, Event
from comity.recipes import Barrier, CircuitBreaker, CircuitState, Counter, Election, Lock, Queue, Semaphore
from tests.waiting import until

DOCS = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
KEYS = re.findall(r"^\| `([a-z]+/NAME[^`]*)`", DOCS, re.MULTILINE)


def pattern(key: str) -> re.Pattern[str]:
    item = re.escape(key).replace("NAME", "a").replace("ITEM", "[0-9]{4}-[0-9]{16}")
    return re.compile(re.sub(r"\bID\b", "[0-9a-f]{32}", item))


async def use_all(state: Client) -> None:
    async with Lock(state, "a"), Semaphore(state, "a", 1), Election(state, "a").leading("me") as election:
        await election.proclaim("you")
    barrier = Barrier(state, "a", 2)
    await asyncio.gather(barrier.wait(), barrier.wait())
    await Counter(state, "a").increment()
    queue = Queue(state, "a", tries=1)
    await queue.put("x")
    await (await queue.get()).nack()
    breaker = CircuitBreaker(state, "a", 1, reset_after=1)
    with pytest.raises(KeyError):
        await breaker.call(fail)

    async def is_half_open() -> bool:
        return await breaker.state() is CircuitState.HALF_OPEN

    await until(is_half_open)
    async with breaker:
        pass
    await breaker.close()


async def fail() -> None:
    raise KeyError


async def test_the_keys_are_those_of_the_docs(state: Client) -> None:
    await use_all(state)
    info = await state.namespace_info()
    used: set[str] = set()
    async with state.watch(from_revision=1) as watch:
        while watch.revision < info.revision:
            event = await anext(watch)
            assert isinstance(event, Event)
            used.add(event.key)
    assert len(KEYS) == len(set(KEYS)) > 10
    for key in used:
        assert [documented for documented in KEYS if pattern(documented).fullmatch(key)], key
    for documented in KEYS:
        assert [key for key in used if pattern(documented).fullmatch(key)], documented


@pytest.mark.parametrize("sample", re.findall(r"^```python\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE))
def test_the_samples_are_python(sample: str) -> None:
    compile(sample, "docs/recipes.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
