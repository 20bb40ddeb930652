"""What README.md shows of a terminal is what a terminal shows, but for the colours."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers, terminal
from tests.servers import Server

README = Path(__file__).parents[2] / "README.md"
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( [+-]\d{4})?")


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
        shown = terminal.plain(terminal.run(["bash", "-c", command], environment, cwd=tmp_path))
        assert TIME.sub("TIME", shown) == TIME.sub("TIME", expected), command
        ran += 1
    assert ran > 8
