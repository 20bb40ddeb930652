"""The limit of open files is raised to what connections need, where this process may, and said where it may not."""

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="Windows has no such limit")

SCRIPT = """
import resource, sys
from comity_server import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
open_files.allow(int(sys.argv[1]))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("connections", "limit", "warned"), [(10, 256, False), (500, 700, False), (824, 1024, False), (825, 1024, True)]
)
def test_the_limit_of_open_files(connections: int, limit: int, warned: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(connections)], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"({limit}, 1024)" in run.stdout
    assert ("fewer files may be open" in run.stdout) is warned
