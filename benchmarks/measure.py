"""Times the same call over and over, so many at a time, with what it costs client and server."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from benchmarks.peers.process import Process
from benchmarks.report import Cell, Column, Table, ratio

Call = Callable[[int], Awaitable[object]]


class Round(NamedTuple):
    """Calls in a second; how long each took, and processor time for each, in seconds."""

    rate: float
    p50: float
    p99: float
    client: float
    server: float


async def measure(call: Call, tasks: int, seconds: float, server: Process) -> Round:
    """Make calls from so many tasks for a while. The call is told its number."""
    numbers = itertools.count()
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def work() -> None:
        while (began := time.perf_counter()) < end:
            await call(next(numbers))
            times.append(time.perf_counter() - began)

    busy, own = server.processor_seconds(), time.process_time()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    took = time.perf_counter() - began
    used = time.process_time() - own
    return Round(
        len(times) / took,
        *percentiles(times),
        used / len(times),
        (server.processor_seconds() - busy) / len(times),
    )


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th."""
    if len(times) < 2:
        return times[0], times[0]
    places = statistics.quantiles(times, n=100)
    return places[49], places[98]


COLUMNS = (
    Column("rate", "per second"),
    Column("p50", "s"),
    Column("p99", "s"),
    Column("client, each", "s"),
    Column("server, each", "s"),
)


def columns(bases: Sequence[str]) -> list[Column]:
    """Of a table that `rows` fills."""
    return [*COLUMNS, *(Column(f"to {base}", "ratio") for base in bases)]


def add_rows(table: Table, before: Sequence[Cell], found: dict[str, list[Round]], bases: Sequence[str]) -> None:
    """A row for each peer: medians over its rounds, and of the ratios to the rates of others in the same round."""
    for name, rounds in found.items():
        table.add(
            *before,
            name,
            *(statistics.median(round[place] for round in rounds) for place in range(len(Round._fields))),
            *(_ratio(rounds, found.get(base)) for base in bases),
        )


def _ratio(rounds: Sequence[Round], others: Sequence[Round] | None) -> float | None:
    if others is None:
        return None
    ratios = [ratio(one.rate, other.rate) for one, other in zip(rounds, others, strict=True)]
    return statistics.median(each for each in ratios if each is not None)
