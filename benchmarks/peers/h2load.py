"""h2load, of nghttp2: calls of one kind, as fast as a server takes them, at next to no cost for the client."""

import asyncio
import shutil
import statistics
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.process import Missing


class Load(NamedTuple):
    """How calls went: how many in a second, and how long they took, in seconds."""

    rate: float
    p50: float
    p99: float


def check() -> str:
    """The program. Raises Missing."""
    found = shutil.which("h2load")
    if found is None:
        raise Missing("etcd under h2load is left out: there is no h2load on PATH (Debian: apt install nghttp2-client)")
    return found


async def run(address: str, method: str, message: bytes, *, calls: int, connections: int, concurrent: int) -> Load:
    """Send the same message over and over, so many at a time on each connection. Raises Missing."""
    program = check()
    with tempfile.TemporaryDirectory(prefix="h2load-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = [program, "-n", str(calls), "-c", str(connections), "-m", str(concurrent), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(log)]
        command.append(f"http://{address}{method}")
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if done.returncode or f" {calls} succeeded" not in done.stdout:
            raise RuntimeError(f"h2load failed: {done.stdout}{done.stderr}")
        lines = [line.split() for line in log.read_text().splitlines()]  # when, in µs; the status; how long, in µs
    began = min(int(when) for when, _, _ in lines)
    ended = max(int(when) + int(took) for when, _, took in lines)
    places = statistics.quantiles((int(took) / 1e6 for _, _, took in lines), n=100)
    return Load(calls / (ended - began) * 1e6, places[49], places[98])
