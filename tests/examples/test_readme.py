"""What README.md shows of a terminal is what a terminal shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

README = Path(__file__).parents[2] / "README.md"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


@pytest.fixture
def own() -> Iterator[Server]:
    with servers.start() as running:
        yield running


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command of the console blocks, with what it prints."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output


def test_the_terminal_of_the_readme(own: Server, tmp_path: Path) -> None:
    environment = servers.environment(
        {
            "COMITY_ADDRESS": own.address,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
    )
    ran = 0
    for command, expected in steps(README.read_text()):
        if command.startswith("python examples/"):
            continue  # what these print differs from run to run; test_examples.py runs them
        if command == "cat take.json":
            (tmp_path / "take.json").write_text(expected)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert TIME.sub("TIME", done.stdout) == TIME.sub("TIME", expected), command
        ran += 1
    assert ran > 8
