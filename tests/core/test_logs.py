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


LEVELS = """
import logging, sys
import structlog
from comity_server.telemetry import logs

logs.configure(sys.argv[1], "json")
for name in ("comity_server.feed", "a.library", "opentelemetry.trace.span"):
    for level in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(name), level)(f"{name} {level}")
        getattr(logging.getLogger(name), level)(f"{name} {level}")
"""


@pytest.mark.parametrize(("level", "own", "of_libraries"), [("debug", 4, 3), ("info", 3, 3), ("error", 1, 1)])
def test_the_level_is_of_this_server_and_libraries_say_less(
    level: str, own: int, of_libraries: int, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(LEVELS)
    done = subprocess.run([sys.executable, str(program), level], capture_output=True, text=True, timeout=60, check=True)
    counts = [done.stderr.count(name + " ") for name in ("comity_server.feed", "a.library", "opentelemetry.trace.span")]
    assert counts == [2 * own, 2 * of_libraries, 2]
