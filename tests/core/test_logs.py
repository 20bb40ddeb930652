"""What goes to the log."""

import subprocess
import sys
from pathlib import Path

import pytest

SECRET = "a value of a client"
PROGRAM = """
import logging, sys
import structlog
from comity_server.telemetry import logs

def fail(value):
    raise ZeroDivisionError("a defect")

logs.configure("info", sys.argv[1])
try:
    fail(sys.argv[2])
except ZeroDivisionError as error:
    structlog.get_logger().error("a call failed", exc_info=error)
    logging.getLogger("a.library").exception("a library failed")
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_says_where_it_happened_but_not_to_which_values(style: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), style, SECRET], capture_output=True, text=True, timeout=60, check=True
    )
    for expected in ("a call failed", "a library failed", "ZeroDivisionError", "a defect", "fail"):
        assert expected in done.stderr
    assert SECRET not in done.stderr
