"""How the process of a server ends."""

import signal
import subprocess
import sys

HANGS = """
import threading
from comity_server import ending
ending.within(0.1)
threading.Event().wait()
"""
SERVES = """
import atexit, gc
from comity_server.serve import command
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
command(["--listen", "127.0.0.1:0", "--store", "memory:"])
"""


def test_a_process_that_hangs_when_it_is_to_end_says_where() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "line 5 in <module>" in ended.stderr


def test_nobody_looks_for_garbage_among_all_there_is_at_the_end() -> None:
    piped = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVES], stdout=piped, stderr=piped, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ")
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "True\n"
        assert process.returncode == 0
