"""The examples do what they say."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=100, check=False
    )
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
