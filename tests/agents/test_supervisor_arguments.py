"""What a supervisor may be asked for, and by which programs."""

import asyncio
import functools
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import comity
from comity.agents import (
    Agent,
    Restart,
    Supervisor,
)
from comity.agents.children import Mode
from comity.recipes import Queue
from tests.agents import members
from tests.agents.conftest import TTL
from tests.agents.supervising import MODES
from tests.servers import Server


@pytest.mark.parametrize("mode", MODES)
async def test_a_child_has_the_tries_and_checkpoints_that_are_given(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor, Agent(state, "planner", ttl=TTL) as planner:
        await planner.send("writer", "poison")
        child = await supervisor.spawn(
            members.mark_and_fail, name="writer", mode=mode, restart=Restart.TEMPORARY, tries=1, checkpoints=2
        )
        await child.wait()
        marks = [mark async for mark in state.checkpoints() if mark.labels["agent"] == "writer"]
        assert len(marks) == 2
        assert [letter.value["body"] for letter in await Queue(state, "agent:writer").dead()] == ["poison"]


async def test_arguments_that_cannot_be(state: comity.Client) -> None:
    async def local(agent: Agent) -> None:
        await agent.report("local")

    for wrong in ({"max_restarts": -1}, {"within": 0}, {"grace": 0}, {"wait": -1}, {"strategy": "all"}):
        with pytest.raises(ValueError, match=r"."):
            Supervisor(state, "boss", **wrong)
    with pytest.raises(ValueError, match="supervisor's name"):
        Supervisor(state, "a/b")
    with pytest.raises(RuntimeError, match="not begun"):
        await Supervisor(state, "boss").spawn(members.stay)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        with pytest.raises(ValueError, match="child's name"):
            await supervisor.spawn(members.stay, name="a/b")
        with pytest.raises(ValueError, match="mode"):
            await supervisor.spawn(members.stay, mode="thread")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="function"):
            await supervisor.spawn(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="import"):
            await supervisor.spawn(local, mode="process")
        with pytest.raises(ValueError, match="Restart"):
            await supervisor.spawn(members.stay, restart="always")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="tries"):
            await supervisor.spawn(members.stay, tries=0)
        with pytest.raises(ValueError, match="checkpoints"):
            await supervisor.spawn(members.stay, checkpoints=0)
        for mode in ("task", "process"):
            with pytest.raises(comity.InvalidArgument, match="ttl"):
                await supervisor.spawn(members.stay, ttl=0.01, mode=mode)
        with pytest.raises(comity.InvalidArgument, match="ttl"):
            await supervisor.gather(members.square, [1], ttl=0.01)
        for ttl in (0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match="ttl"):
                await supervisor.spawn(members.stay, ttl=ttl)
            with pytest.raises(ValueError, match="ttl"):
                Supervisor(state, "boss", ttl=ttl)
        with pytest.raises(TypeError, match="ttl"):
            supervisor.map(members.square, [], ttl="1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="wait"):
            Supervisor(state, "boss", wait="1")  # type: ignore[arg-type]
        assert supervisor.children() == []
    assert await state.list("supervisor-children/").all() == []


async def test_functions_and_arguments_that_no_child_can_have(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        for mode in MODES:
            with pytest.raises(TypeError, match="runs an async function of an agent, not <function plain"):
                await supervisor.spawn(members.plain, mode=mode)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="argument 1, of type lock, cannot be sent to a process"):
            await supervisor.spawn(members.stay, 0, threading.Lock(), mode="process")
        with pytest.raises(TypeError, match="the function cannot be sent to a process"):
            await supervisor.spawn(functools.partial(members.hand_off, context=threading.Lock()), mode="process")
        assert supervisor.children() == []


UNGUARDED = """
import asyncio, sys
import comity
from comity.agents import Supervisor

async def stay(agent):
    await asyncio.Event().wait()

async def main():
    async with comity.connect(sys.argv[1], namespace=sys.argv[2]) as state:
        async with Supervisor(state, "boss", ttl=60) as supervisor:
            await supervisor.spawn(stay, name="stayer", mode="process")
            await supervisor.wait()

asyncio.run(main())
"""


async def test_a_program_that_is_not_guarded_is_told_so_once(
    state: comity.Client, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(UNGUARDED)
    command = [sys.executable, str(tmp_path / "program.py"), server.address, state.namespace]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count('guard what the program does by `if __name__ == "__main__":`') == 1
    assert "stayer cannot be started, nor restarted: it exited with 1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [[], ["-c", UNGUARDED]])
async def test_a_program_that_is_no_file(state: comity.Client, server: Server, options: list[str]) -> None:
    command = [sys.executable, *(options or ["-"]), server.address, state.namespace]
    given = "" if options else UNGUARDED
    done = await asyncio.to_thread(
        subprocess.run, command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: a process can only run a function of a module or")
