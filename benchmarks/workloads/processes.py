"""Eight processes, each with eight tasks: puts and gets of 100 bytes through Comity's client, aetcd and redis-py.

The processes take their part of the machine, as agents would: on few cores they are what is measured most. Rates are
of all of them together. The peers are measured one after another, and ratios are of their rounds in order.
"""

import asyncio
import multiprocessing
import statistics
import time
import uuid
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks import measure
from benchmarks.clients.serving import CLIENTS, Peer, serving
from benchmarks.options import Options
from benchmarks.report import Report

PROCESSES = 8
TASKS = 8
KEYS = 1_000
VALUE = b"v" * 100
PEERS = ("comity", "comity sqlite", "aetcd", "redis-py")
BASES = ("aetcd", "redis-py")


class Told(NamedTuple):
    """What a process is told."""

    peer: str
    address: str
    namespace: str
    seconds: float


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds, processes = options.of((3, 0.5, PROCESSES), (2, 0.05, 2))
    table = report.table(
        f"{processes} processes of {TASKS} tasks: the median of {rounds} rounds of {seconds:g} s",
        "what",
        "peer",
        *measure.columns(BASES),
    )
    with serving(options, report, *PEERS) as peers:
        for what in options.of(("put", "get"), ("put",)):
            found: dict[str, list[measure.Round]] = {}
            for peer in peers:
                found[peer.name] = await asyncio.to_thread(_rounds, what, peer, processes, rounds, seconds)
            measure.add_rows(table, (what,), found, BASES)
    return report


def _rounds(what: str, peer: Peer, processes: int, rounds: int, seconds: float) -> list[measure.Round]:
    context = multiprocessing.get_context("spawn")
    told = Told(peer.name, peer.address, f"bench-{uuid.uuid4().hex}", seconds)
    pipes: list[Connection] = []
    running = []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(what, told, theirs), daemon=True)
            process.start()
            theirs.close()  # so that its end is noticed
            running.append(process)
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()  # it is connected
        return [_round(pipes, peer) for _ in range(rounds)]
    finally:
        for pipe in pipes:
            pipe.close()
        for process in running:
            process.join()


def _round(pipes: list[Connection], peer: Peer) -> measure.Round:
    busy = peer.server.processor_seconds()
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send(None)
    parts: list[tuple[list[float], float]] = [pipe.recv() for pipe in pipes]
    took = time.perf_counter() - began
    times = [each for part, _ in parts for each in part]
    used = statistics.fmean(own for _, own in parts) * len(parts)
    return measure.Round(
        len(times) / took,
        *measure.percentiles(times),
        used / len(times),
        (peer.server.processor_seconds() - busy) / len(times),
    )


def _work(what: str, told: Told, pipe: Connection) -> None:
    asyncio.run(_serve_rounds(what, told, pipe))


async def _serve_rounds(what: str, told: Told, pipe: Connection) -> None:
    """Work for a while as often as it is asked for, until the pipe is closed."""
    async with CLIENTS[told.peer](told.address, told.namespace) as client:
        await client.put("key-0", VALUE)
        pipe.send(None)
        while await asyncio.to_thread(_asked, pipe):
            own = time.process_time()
            end = time.perf_counter() + told.seconds
            times: list[float] = []

            async def task(first: int, end: float, times: list[float]) -> None:
                number = first
                while (began := time.perf_counter()) < end:
                    key = f"key-{number % KEYS}"
                    await (client.put(key, VALUE) if what == "put" else client.get(key))
                    times.append(time.perf_counter() - began)
                    number += TASKS

            await asyncio.gather(*(task(first, end, times) for first in range(TASKS)))
            pipe.send((times, time.process_time() - own))


def _asked(pipe: Connection) -> bool:
    try:
        pipe.recv()
    except EOFError:
        return False
    return True
