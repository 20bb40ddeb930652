"""Unary calls of Comity and of etcd, side by side, in rounds that take turns.

The client is the same for both and takes its part of the machine, so read the ratios, not the rates. etcd writes to
disk before it answers; `memory:` does not.
"""

import asyncio
import itertools
import statistics
import time

import click
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.peers import Call, Peer

KEYS = 1_000


async def rate(call: Call, tasks: int, seconds: float) -> float:
    """Calls a second, so many at a time."""
    numbers = itertools.count()
    end = time.perf_counter() + seconds

    async def work() -> int:
        done = 0
        while time.perf_counter() < end:
            await call(f"key-{next(numbers) % KEYS}")
            done += 1
        return done

    began = time.perf_counter()
    done = await asyncio.gather(*(work() for _ in range(tasks)))
    return sum(done) / (time.perf_counter() - began)


async def compare(mine: Peer, other: Peer, seconds: float, rounds: int) -> Table:
    table = Table("calls", "at a time", mine.name, other.name, "ratio")
    for name, tasks in (("put", 1), ("put", 64), ("get", 1), ("get", 64)):
        rates: dict[str, list[float]] = {mine.name: [], other.name: []}
        for _ in range(rounds):
            for peer in (mine, other):
                rates[peer.name].append(await rate(getattr(peer, name), tasks, seconds))
        first, second = (statistics.median(rates[peer.name]) for peer in (mine, other))
        table.add_row(name, str(tasks), f"{first:,.0f}/s", f"{second:,.0f}/s", f"{first / second:.2f}")
    return table


async def run(seconds: float, rounds: int) -> None:
    async with peers.comity() as mine, peers.etcd() as other:
        Console().print(await compare(mine, other, seconds, rounds))


@click.command(help=__doc__)
@click.option("--seconds", default=2.0, show_default=True, help="How long each measurement takes.")
@click.option("--rounds", default=3, show_default=True, help="How often; the median counts.")
def main(seconds: float, rounds: int) -> None:
    asyncio.run(run(seconds, rounds))


if __name__ == "__main__":
    main()
