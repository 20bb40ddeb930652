"""The examples do what they say."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.peers import comity
from tests.servers import environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def start(program: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program)],
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def run(name: str) -> list[str]:
    done = start(EXAMPLES / name)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_shared_budget() -> None:
    *changes, end = run("shared_budget.py")
    assert re.fullmatch(r"\d+ agents spent 150 of 150", end)
    amounts = [re.search(r"(\d+) -> +(\d+)$", change) for change in changes]
    left = 0
    for amount in amounts:  # each change begins where the one before it ended
        assert amount is not None
        assert int(amount[1]) == left
        left = int(amount[2])
    assert left == 0


def test_shared_budget_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / "shared_budget.py")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # to be interrupted with all that it started, as by Ctrl-C
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert len(started) >= 10
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_three_ideas() -> None:
    lines = run("three_ideas.py")
    scores = {name: int(metres) for name, metres, _ in map(str.split, lines[:3])}
    best = min(scores, key=lambda name: scores[name])
    assert lines[3] == f"merged {best}: 2 keys put, revision 2"
    assert lines[4].endswith(f" -> {scores[best]}")
    assert lines[-2].endswith(f"{best} is the shortest")
    shown = (ROOT / "README.md").read_text()
    assert "\n$ python examples/three_ideas.py\n" + "\n".join(lines) + "\n```\n" in shown


def test_threads() -> None:
    assert run("threads.py") == ["8 threads did 40 pages, 40 of them different: 2460 words"]


def test_shared_budget_says_why_its_server_does_not_start() -> None:
    done = start(EXAMPLES / "shared_budget.py", COMITY_DRAIN_TIMEOUT="soon")
    assert done.returncode == 1
    assert "COMITY_DRAIN_TIMEOUT" in done.stderr
    assert done.stderr.endswith("the server did not start\n")


def test_shared_budget_does_not_wait_for_an_agent_that_died(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "own_server.py", tmp_path)
    code = (EXAMPLES / "shared_budget.py").read_text()
    dies = tmp_path / "dies.py"
    ready = 'await state.put(f"ready/{name}", True)'
    assert ready in code
    dies.write_text(code.replace(ready, f'sys.exit("dead") if name == "agent-3" else {ready}'))
    done = start(dies)
    assert done.returncode == 1
    assert "dead" in done.stderr
    assert done.stderr.endswith("an agent ended before all were ready\n")


def test_a_benchmark_says_why_its_server_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMITY_DRAIN_TIMEOUT", "soon")
    with pytest.raises(RuntimeError, match="did not start"), comity.serve("memory:"):
        pass
    assert "COMITY_DRAIN_TIMEOUT" in capfd.readouterr().err
