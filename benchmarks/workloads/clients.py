"""The same work through what a program would use: Comity's client, aetcd, redis-py, and bare stubs of grpc.aio.

One call at a time, and from 64 tasks of one process; values of 100 B, 1 KB and 100 KB; transactions of five puts. All
servers run side by side and are measured in turns. etcd and Comity over sqlite have what they answer on disk, Redis
syncs its file every second, and Comity in memory keeps nothing. Ratios are of rates in the same round.
"""

import uuid
from typing import NamedTuple

from benchmarks import measure
from benchmarks.clients.protocol import Client
from benchmarks.clients.serving import connected, serving
from benchmarks.options import Options
from benchmarks.report import Column, Report

KEYS = 1_000  # of small values
IN_ONE = 5  # keys of a transaction
PEERS = ("comity", "comity sqlite", "comity, unary stub", "aetcd", "etcd, unary stub", "redis-py")
BASES = ("aetcd", "redis-py")


class Work(NamedTuple):
    what: str
    tasks: int
    size: int  # of a value, in bytes
    keys: int = KEYS

    def call(self, client: Client) -> measure.Call:
        value = b"v" * self.size

        def key(number: int) -> str:
            return f"{self.size}/{number % self.keys}"

        match self.what:
            case "put":
                return lambda number: client.put(key(number), value)
            case "get":
                return lambda number: client.get(key(number))
            case _:
                return lambda number: client.put_all([key(number * IN_ONE + place) for place in range(IN_ONE)], value)

    async def prepare(self, client: Client) -> None:
        """So that what is read is there, and what is written has been written before."""
        write = self._replace(what="5 puts").call(client)
        for number in range(self.keys // IN_ONE):
            await write(number)


WORKS = (
    Work("put", 1, 100),
    Work("put", 64, 100),
    Work("get", 1, 100),
    Work("get", 64, 100),
    Work("5 puts", 64, 100),
    Work("put", 64, 1_000),
    Work("get", 64, 1_000),
    Work("put", 8, 100_000, KEYS // 10),
    Work("get", 8, 100_000, KEYS // 10),
)
QUICK = [work._replace(keys=20) for work in WORKS[:5:2]]


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds = options.of((4, 0.3), (2, 0.02))
    table = report.table(
        f"one process: the median of {rounds} rounds of {seconds:g} s",
        "what",
        Column("bytes", "count"),
        Column("tasks", "count"),
        "peer",
        *measure.columns(BASES),
    )
    with serving(options, report, *PEERS) as peers:
        async with connected(peers, f"bench-{uuid.uuid4().hex}") as clients:
            servers = {peer.name: peer.server for peer in peers}
            for work in options.of(WORKS, QUICK):
                found: dict[str, list[measure.Round]] = {}
                for client in clients.values():
                    await work.prepare(client)
                for _ in range(rounds):
                    for name, client in clients.items():
                        round = await measure.measure(work.call(client), work.tasks, seconds, servers[name])
                        found.setdefault(name, []).append(round)
                measure.add_rows(table, (work.what, work.size, work.tasks), found, BASES)
    return report
