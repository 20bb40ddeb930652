"""examples/research_team.py: who is killed is replaced, nothing is lost or done twice, and it is seen."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import comity
from tests import terminal
from tests.servers import Server, environment

COMMAND = [sys.executable, str(Path(__file__).parents[2] / "examples" / "research_team.py"), "--fast"]


def place(lines: list[str], text: str, start: int = 0) -> int:
    """The number of the first line from there on that has this text, a regular expression."""
    return next(number for number, line in enumerate(lines[start:], start) if re.search(text, line))


async def test_who_is_killed_or_frozen_is_replaced_and_all_is_done_once(server: Server) -> None:
    async with comity.connect(server.address) as state:
        before = {each.name async for each in state.namespaces()}
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, "--address", server.address],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        (name,) = {each.name async for each in state.namespaces()} - before
        team = state.with_options(namespace=name)
        for prefix in ("findings/", "sections/"):
            assert [entry.version async for entry in team.list(prefix)] == [1] * 8
        for keys in ("agents/", "supervisors/", "queues/role:researcher/line/", "queues/agent:writer/line/"):
            assert await team.list(keys).all() == []

    revisions = [int(line.split()[1]) for line in lines if line.startswith("revision")]
    assert revisions == sorted(set(revisions))
    killed = place(lines, r"SIGKILL to researcher-\d, which is at q-\d")
    victim, item = re.findall(r"(researcher-\d), which is at (q-\d)", lines[killed])[0]
    place(lines, f"{victim} joins", killed)
    place(lines, rf"goes on, after \d of 5 parts by {victim}, with {item}", killed)
    frozen = place(lines, r"SIGSTOP to writer, which is at q-\d")
    expired = place(lines, r"lease \d+ of writer expired", frozen)
    place(lines, "writer joins", expired)

    report = place(lines, "6,171 takes 261 steps")
    assert place(lines, f"{victim}, incarnation .* was killed in the midst of {item}", report)
    assert place(lines, "writer, incarnation .* was frozen in the midst of", report)
    for was, now in re.findall(r"incarnation (\d+), was.*?incarnation (\d+)", done.stdout, re.DOTALL):
        assert int(now) != int(was)
    assert lines[-3:] == [
        "8 of 8 questions researched, 8 of them exactly once",
        "8 of 8 questions written about, 8 of them exactly once",
        "left in the queues: 0",
    ]


@pytest.mark.parametrize("moment", ["supervisor begins", "researcher-1 joins", "SIGSTOP to writer"])
def test_ctrl_c_ends_all_of_it(moment: str) -> None:
    with subprocess.Popen(
        COMMAND,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # to be interrupted with all that it started, as by Ctrl-C
    ) as process:
        assert process.stdout is not None
        assert any(moment in line for line in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert started
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_a_terminal_shows_who_is_there_and_what_happens() -> None:
    written = terminal.run(COMMAND, environment({"LINES": "40"}), until="1: killed by SIGKILL")
    shown = terminal.plain(written)
    assert re.search(r" agent +role +status +progress +since +lease +restarts", shown)
    assert re.search(r" researcher-2 +researcher +researching q-\d +━.* \d\d:\d\d:\d\d +\d\.\d s", shown)
    assert re.search(r" researcher-\d +researcher .* 1: killed by SIGKILL", shown)
    assert re.search(r" queue +free +claimed +dead\s+role:researcher +[1-8] +[0-2] +0\s", shown)
    assert re.search(r" revision +author +message\s+\d+ +\S+ +\S", shown)
    assert "Traceback" not in shown
    assert "\x1b[?25h" in written  # the cursor is there again


def test_an_address_without_a_server() -> None:
    done = subprocess.run(
        [*COMMAND, "--address", "no.server.invalid:7171"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cannot reach no.server.invalid:7171")
    assert done.stderr.count("\n") == 1


def test_who_reads_may_have_had_enough() -> None:
    with subprocess.Popen(
        COMMAND, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
