"""Checkpoint, fork, diff, restore and merge at a thousand, a hundred thousand and a million keys, side by side.

What should show: a checkpoint and a fork cost the same at every size; diff, restore and merge cost what changed, not
what there is. Measured at the store, without a socket: with one the small figures would be those of gRPC. A diff reads
all of its pages, without values. Keys that change are spread over all keys.
"""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

from benchmarks import filling
from benchmarks.options import Options
from benchmarks.report import Column, Report, Table, ratio
from comity_server.limits import Limits
from comity_server.model import Fork, MakeCheckpoint, Merge, Restore
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store

PAGE = 1_000
CHEAP = 5  # times that a run does what costs little

What = tuple[str, int | None]  # what was done, and how many keys had changed


async def run(options: Options) -> Report:
    report = Report()
    sizes = options.of((1_000, 100_000, 1_000_000), (50, 500, 5_000))
    changes = options.of((10, 1_000, 10_000), (10, 50))
    runs = options.of(7, 2)
    for kind in ("memory", "sqlite"):
        async with contextlib.AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(_filled(kind, options.folder, size)) for size in sizes]
            times: list[dict[What, list[float]]] = [{} for _ in sizes]
            for turn in range(runs):
                for store, size, found in zip(stores, sizes, times, strict=True):
                    await _run(store, size, [changed for changed in changes if changed <= size], turn, found)
        table = report.table(
            f"{kind}: the median of {runs} runs",
            "what",
            Column("changed", "count"),
            *(Column(f"{size:,} keys", "s") for size in sizes),
            *(Column(f"{size:,} to first", "ratio") for size in sizes[1:]),
        )
        _fill(table, [{what: statistics.median(each) for what, each in found.items()} for found in times])
    return report


def _fill(table: Table, found: Sequence[dict[What, float]]) -> None:
    """The smallest have not so many keys to change: then the ratios are to the first that has."""
    for what in sorted(found[-1], key=lambda what: (what[1] or 0, what[0])):
        times = [each.get(what) for each in found]
        first = next(place for place, one in enumerate(times) if one is not None)
        ratios = [ratio(one, times[first]) if place > first else None for place, one in enumerate(times)]
        table.add(*what, *times, *ratios[1:])


@contextlib.asynccontextmanager
async def _filled(kind: str, folder: Path, size: int) -> AsyncIterator[Store]:
    store = open_store("memory:" if kind == "memory" else f"sqlite:{folder / f'{size}.db'}", Limits())
    await store.open()
    try:
        await filling.put(store, "bench", map(filling.key, range(size)))
        yield store
    finally:
        await store.close()


async def _run(store: Store, size: int, changes: Sequence[int], turn: int, times: dict[What, list[float]]) -> None:
    async def timed(what: str, changed: int | None, work: Awaitable[object]) -> None:
        began = time.perf_counter()
        await work
        times.setdefault((what, changed), []).append(time.perf_counter() - began)

    mark = ""
    for number in range(CHEAP):
        mark, fork = f"mark-{turn}-{number}", f"fork-{turn}-{number}"
        await timed("checkpoint", None, filling.commit(store, "bench", MakeCheckpoint(name=mark)))
        await timed("fork", None, filling.commit(store, fork, Fork(parent="bench", ref=mark)))
    value = b"%d" % turn * 100
    for changed in changes:
        keys = [filling.key(number) for number in range(0, size, size // changed)][:changed]
        fork = f"fork-{turn}-of-{changed}"
        await filling.commit(store, fork, Fork(parent="bench"))
        await filling.put(store, fork, keys, value)
        await timed("merge", changed, filling.commit(store, "bench", Merge(fork=fork)))
        await timed("diff", changed, _diff(store, mark, changed))
        await timed("restore", changed, filling.commit(store, "bench", Restore(ref=mark)))


async def _diff(store: Store, base: str, changed: int) -> None:
    after: str | None = ""
    differences = 0
    while after is not None:
        page = await store.diff("bench", base, after=after, limit=PAGE, max_bytes=1 << 30, keys_only=True)
        differences += len(page.differences)
        after = page.next_after
    if differences != changed:
        raise AssertionError(f"{differences} keys differ, and {changed} were changed")
