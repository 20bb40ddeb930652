"""The Python of docs/agents.md runs, and does what is said beside it."""

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import comity
from comity.agents import Agent, Handoff
from comity.agents.awaited import Awaited
from tests.agents.conftest import TTL
from tests.servers import Server
from tests.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "agents.md"
SAMPLES = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)


async def test_the_first_sample(state: comity.Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code = SAMPLES[0].replace('namespace="newsroom"', f'"{server.address}", namespace="{state.namespace}"')
    code = code.replace('mode="process"', 'mode="task"')  # a process could not import the sample

    async def think(body: str) -> str:
        return f"draft of {body}"

    async def improve(draft: str) -> str:
        return f"better {draft}"

    compiled = compile(code, "a sample", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    known: dict[str, Any] = {"think": think, "improve": improve}
    task = asyncio.ensure_future(eval(compiled, known))
    shown = ""

    def both_there() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "writer-1 running idle" in shown and "editor-1 running idle" in shown

    await until(both_there)
    async with Agent(state, "planner", ttl=TTL) as planner:
        await planner.send("writer-1", "the report")

    async def handed_off() -> list[comity.Entry]:
        return await state.list("handoffs/writer-1/").all()

    async def is_handed_off() -> bool:
        return bool(await handed_off())

    await until(is_handed_off)
    (entry,) = await handed_off()
    awaited = Awaited(state, "handoffs/writer-1/")
    handoff = Handoff(state, awaited, "writer-1", entry.key.rpartition("/")[2], keep=True)
    assert await handoff.result(timeout=30) == "better draft of the report"
    task.cancel()
    await asyncio.wait([task])
    assert await state.list("agents/").all() == []


@pytest.mark.parametrize("code", SAMPLES)
def test_every_sample_is_python(code: str) -> None:
    compile(code, "a sample", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
