"""Reading 100,000 keys with values of 100 bytes, page by page: Comity's client and stub, aetcd, and redis-py.

Pages are a thousand entries, or for aetcd the whole answer at once, since it knows no other way. redis-py goes through
the names with SCAN, in no order and without a view of one moment, and reads the values with MGET.
"""

import time
import uuid

from benchmarks import measure
from benchmarks.clients.serving import connected, serving
from benchmarks.options import Options
from benchmarks.report import Column, Report, ratio

PEERS = ("comity", "comity sqlite", "comity, unary stub", "aetcd", "redis-py")
TOGETHER = 100  # keys that are written in one transaction
VALUE = b"v" * 100


async def run(options: Options) -> Report:
    report = Report()
    rounds, keys = options.of((3, 100_000), (2, 2_000))
    table = report.table(
        f"a list of {keys:,} keys: the median of {rounds}",
        "peer",
        Column("took", "s"),
        Column("longest", "s"),
        Column("keys", "per second"),
        Column("client", "s"),
        Column("server", "s"),
        Column("keys a second, to aetcd", "ratio"),
        Column("to redis-py", "ratio"),
    )
    found: dict[str, tuple[float, ...]] = {}
    with serving(options, report, *PEERS) as peers:
        async with connected(peers, f"bench-{uuid.uuid4().hex}") as clients:
            for peer in peers:
                client = clients[peer.name]
                for first in range(0, keys, TOGETHER):
                    await client.put_all([f"list/{number:06}" for number in range(first, first + TOGETHER)], VALUE)
                times, own, busy = [], time.process_time(), peer.server.processor_seconds()
                for _ in range(rounds):
                    began = time.perf_counter()
                    if await client.count("list/") != keys:
                        raise AssertionError(f"{peer.name} lists something else")
                    times.append(time.perf_counter() - began)
                used = time.process_time() - own, peer.server.processor_seconds() - busy
                found[peer.name] = (measure.percentiles(times)[0], max(times), *(each / rounds for each in used))
    for name, (took, longest, client_seconds, server_seconds) in found.items():
        others = (found.get(base) for base in ("aetcd", "redis-py"))
        table.add(
            name,
            took,
            longest,
            keys / took,
            client_seconds,
            server_seconds,
            *(ratio(other[0], took) if other else None for other in others),
        )
    return report
