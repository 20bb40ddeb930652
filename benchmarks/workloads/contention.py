"""Sixteen agents that contend for one key: each reads a number and writes one more, again whenever another was faster.

Comity by the function form of `transact`, aetcd and redis-py by the loops that their users write, redis-py with WATCH
and with a script that compares and sets. What counts is how often the number grows, which is looked at in the end. The
agents are tasks of one process. Ratios are of rates in the same round.
"""

import uuid

from benchmarks import measure
from benchmarks.clients.serving import connected, serving
from benchmarks.options import Options
from benchmarks.report import Report

AGENTS = 16
PEERS = ("comity", "comity sqlite", "comity, unary stub", "aetcd", "redis-py", "redis-py, Lua")
BASES = ("aetcd", "redis-py", "redis-py, Lua")


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds = options.of((7, 0.4), (2, 0.02))
    table = report.table(
        f"{AGENTS} agents, one key: the median of {rounds} rounds of {seconds:g} s", "peer", *measure.columns(BASES)
    )
    found: dict[str, list[measure.Round]] = {}
    with serving(options, report, *PEERS) as peers:
        async with connected(peers, f"bench-{uuid.uuid4().hex}") as clients:
            for number in range(rounds):
                for peer in peers:
                    client, key = clients[peer.name], f"{peer.name}/{number}"
                    done = 0

                    async def add(_: int) -> None:
                        nonlocal done
                        await client.add(key)  # noqa: B023 - all calls have ended before the next round
                        done += 1

                    found.setdefault(peer.name, []).append(await measure.measure(add, AGENTS, seconds, peer.server))
                    counted = int(await client.get(key) or 0)
                    if counted != done:
                        raise AssertionError(f"{peer.name} counted {done} and has {counted}")
    measure.add_rows(table, (), found, BASES)
    return report
