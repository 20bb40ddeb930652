"""Times the same call over and over, so many at a time, with what it costs client and server."""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.peers.process import Process
from benchmarks.report import Cell, Column, Table, ratio
from comity.load import Call, Times, drive

__all__ = ["Call", "Round", "add_rows", "columns", "measure", "medians", "percentiles"]


class Round(NamedTuple):
    """Calls in a second; how long each took, and processor time for each, in seconds."""

    rate: float
    p50: float
    p99: float
    client: float
    server: float


async def measure(call: Call, tasks: int, seconds: float, server: Process) -> Round:
    """Make calls from so many tasks for a while. The call is told its number."""
    times = Times()
    busy, own = server.processor_seconds(), time.process_time()
    took = await drive(call, tasks=tasks, seconds=seconds, times=times)
    used = time.process_time() - own
    return Round(
        times.count / took,
        times.percentile(50),
        times.percentile(99),
        used / times.count,
        (server.processor_seconds() - busy) / times.count,
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
    """Of a table that `add_rows` fills."""
    return [*COLUMNS, *(Column(f"to {base}", "ratio") for base in bases)]


def add_rows(table: Table, before: Sequence[Cell], found: dict[str, list[Round]], bases: Sequence[str]) -> None:
    """A row for each peer: medians over its rounds, and of the ratios to the rates of others in the same round."""
    for name, rounds in found.items():
        table.add(
            *before,
            name,
            *medians(rounds),
            *(_ratio(rounds, found.get(base)) for base in bases),
        )


def medians(rounds: Sequence[Round]) -> Sequence[float]:
    """Of each figure."""
    return [statistics.median(figures) for figures in zip(*rounds, strict=True)]


def _ratio(rounds: Sequence[Round], others: Sequence[Round] | None) -> float | None:
    if others is None:
        return None
    ratios = [ratio(one.rate, other.rate) for one, other in zip(rounds, others, strict=True)]
    return statistics.median(each for each in ratios if each is not None)
