"""Workflows whose runners are killed or stopped: each effect once, and the result that an undisturbed run has."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import comity
from comity import Client
from comity.agents import RunState, StepState, Workflow
from tests.agents.workflow_program import LOST, flow, holding
from tests.servers import Server
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TTL = 3.0  # of runs that live on a busy machine, and soon end where their runner is killed
KILLED = -signal.SIGKILL
KILLS = 40 if os.environ.get("COMITY_SOAK") == "1" else 6
STEPS = {"triage", "fetch[0]", "fetch[1]", "fetch[2]", "fetch[3]", "clean", "optimise", "report", "publish"}


@asynccontextmanager
async def runner(server: Server, state: Client, workflow: Workflow, run_id: str) -> AsyncIterator[Process]:
    """A process that runs the workflow. It is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.agents.workflow_program", server.address, state.namespace, workflow.name, run_id, str(TTL)),
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def finish(process: Process) -> tuple[int, Any]:
    """How it has ended, and with what."""
    output, errors = await process.communicate()
    assert process.returncode is not None
    assert process.returncode in (0, LOST, KILLED), errors.decode()
    return process.returncode, json.loads(output) if output else errors.decode()


async def effects(state: Client, run_id: str) -> dict[str, int]:
    prefix = f"effects/{run_id}/"
    return {entry.key.removeprefix(prefix): entry.value async for entry in state.list(prefix)}


@pytest.mark.soak
@pytest.mark.timeout(1200 if KILLS > 6 else 120)
async def test_a_run_that_is_killed_again_and_again_does_each_step_once(server: Server, state: Client) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with runner(server, state, flow, "undisturbed") as process:
        code, expected = await finish(process)
    assert code == 0
    assert await effects(state, "undisturbed") == dict.fromkeys(STEPS, 1)

    killed = number = 0
    while killed < KILLS:
        number += 1
        run_id = f"run-{number}"
        ended = False
        while not ended and killed < KILLS:
            async with (
                state.watch(flow_prefix(run_id)) as watch,
                runner(server, state, flow, run_id) as process,
            ):
                await watch.ready()
                steps = asyncio.create_task(some_steps(watch, chance.randrange(1, 12)))
                end = asyncio.create_task(process.wait())
                await asyncio.wait([steps, end], return_when=asyncio.FIRST_COMPLETED)
                if end.done() or not steps.result():
                    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                        process.kill()
                steps.cancel()
                code, result = await finish(process)
                killed += code == KILLED
                assert code != 0 or result == expected
            ended = (await flow.status(state, run_id)).state is RunState.DONE
            held = await state.get(f"{flow_prefix(run_id)}holder")
            if held is not None and chance.random() < 0.7:  # else it has to run out
                await state.revoke_lease(held.lease_id)
        assert await flow.run(state, run_id) == expected
        assert await effects(state, run_id) == dict.fromkeys(STEPS, 1)
        log = await state.get(f"log/{run_id}")
        assert log is not None
        assert sorted(log.value) == sorted(STEPS)
        status = await flow.status(state, run_id)
        assert status.state is RunState.DONE
        assert status.steps["apologise"].state is StepState.SKIPPED


async def some_steps(watch: comity.Watch, left: int) -> bool:
    """Wait for so many commits of a runner. Whether the run was done with them."""
    async for commit in watch.commits():
        assert isinstance(commit, comity.Commit)
        if any(is_done(event) for event in commit.events):
            return True
        left -= commit.author == "child"
        if left <= 0:
            break
    return False


def flow_prefix(run_id: str) -> str:
    return f"workflows/{flow.name}/{run_id}/"


def is_done(event: comity.Event) -> bool:
    return event.is_put and event.key.endswith("/run") and event.entry.value["state"] == "done"


async def test_a_runner_that_was_stopped_past_its_lease_is_refused(server: Server, state: Client) -> None:
    async def begun() -> bool:
        return (await holding.status(state, "1")).steps["hold"].state is StepState.RUNNING

    async def free() -> bool:
        return (await holding.status(state, "1")).state is RunState.INTERRUPTED

    async with runner(server, state, holding, "1") as process:
        await until(begun)
        process.send_signal(signal.SIGSTOP)
        await until(free)
        await state.put("go", True)
        assert await holding.run(state, "1") == {"hold": "held"}
        revision = (await state.namespace_info()).revision
        process.send_signal(signal.SIGCONT)
        code, said = await finish(process)
    assert code == LOST
    assert "lease" in said
    assert (await state.namespace_info()).revision == revision
    assert await effects(state, "1") == {"hold": 1}
    assert (await holding.status(state, "1")).steps["hold"].attempts == 2
