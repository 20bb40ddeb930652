"""`comity bench`: load on a running server, so that whoever operates it can size its machine."""

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from .options import Options, client_options, examples
from .render import Output, counted
from .session import run

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from comity.client import Client
    from comity.load import Times

__all__ = ["bench"]

WORKLOADS: Final[Mapping[str, Mapping[str, int]]] = {
    "mixed": {"get": 50, "put": 45, "transact": 5},
    "put": {"put": 1},
    "get": {"get": 1},
    "contend": {"update": 1},
    "watch": {"watch": 1},
}
READING: Final = ("get", "list")  # what is there
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
WIDTH: Final = 40  # of the longest bar
SHARE: Final = re.compile(r"([a-z]+)=([0-9]{1,6})")


def _mix(ctx: click.Context, param: click.Parameter, value: str | None) -> Mapping[str, int] | None:
    if value is None:
        return None
    from .work import KINDS

    mix: dict[str, int] = {}
    for part in value.split(","):
        found = SHARE.fullmatch(part.strip())
        if found is None or found[1] not in KINDS:
            raise click.BadParameter(f"{part!r} is not KIND=SHARE, with a KIND of {', '.join(KINDS)}", ctx, param)
        mix[found[1]] = int(found[2])
    if not sum(mix.values()):
        raise click.BadParameter("the shares add up to nothing", ctx, param)
    return {kind: share for kind, share in mix.items() if share}


@click.command(
    short_help="Put load on a server, and say how long calls take.",
    epilog=examples(
        "comity bench",
        "comity bench --tasks 256 --seconds 60 --processes 4",
        "comity bench --workload contend --json",
        "comity bench --mix get=9,list=1 --value-bytes 1000",
    ),
)
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default="mixed",
    show_default=True,
    help="What is done: put, get, both with a transaction now and then (mixed), all for one key (contend), or a stream "
    "opened, a key written and its change awaited (watch).",
)
@click.option(
    "--mix",
    metavar="KIND=SHARE,...",
    callback=_mix,
    help="Instead: get, put, transact (5 puts at once), update (read a number and write one more, again until nobody "
    "was faster), list (100 keys) and watch, each as often as its share says.",
)
@click.option(
    "--tasks", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Calls at a time, in all."
)
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="That share the tasks.")
@click.option("--seconds", type=click.FloatRange(0.1, 86400), default=10.0, show_default=True, help="For how long.")
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Among how many.")
@click.option("--value-bytes", type=click.IntRange(0, 1024 * 1024), default=100, show_default=True, help="Of a value.")
@click.option("--keep", is_flag=True, help="Leave the namespace there.")
@client_options
def bench(
    options: Options,
    workload: str,
    mix: Mapping[str, int] | None,
    tasks: int,
    processes: int,
    seconds: float,
    keys: int,
    value_bytes: int,
    keep: bool,
) -> None:
    """Make calls for a while, and print how many there were a second and how long they took. Exit with 1 if any failed.

    They go to a namespace that is made for it, NAME-bench-XXXXXXXX after --namespace, and deleted in the end.
    """
    if seconds != seconds:
        raise click.BadParameter("nan is no number of seconds", param_hint="--seconds")
    if tasks < processes:
        raise click.UsageError("there must be a task for each process", click.get_current_context())
    shares = mix or WORKLOADS[workload]
    if mix is None and workload == "contend":
        keys = 1

    async def work(client: "Client") -> int:
        from .work import fill

        target = client.with_options(namespace=f"{options.namespace[:40]}-bench-{uuid.uuid4().hex[:8]}")
        await target.put("first", b"")  # so that what is wrong with the server is said before the load begins
        try:
            if any(kind in shares for kind in READING):
                await fill(target, keys, value_bytes)
            told = {
                "address": options.address,
                "namespace": target.namespace,
                "timeout": options.timeout,
                "mix": shares,
                "keys": keys,
                "value_bytes": value_bytes,
                "seconds": seconds,
            }
            found = _Found(shares)
            with _progress(seconds) as show:
                await _load(told, options.variables, tasks, processes, found, show)
            _report(found, Output(as_json=options.json))
        finally:
            if not keep:
                await target.delete_namespace()
        return 1 if found.errors else 0

    run(options, work)


class _Found:
    """What came of the load, of all processes."""

    def __init__(self, kinds: Mapping[str, int]) -> None:
        from comity.load import Times

        self.seconds = 0.0
        self.times = {kind: Times() for kind in kinds}
        self.errors: dict[str, int] = {}

    def add(self, told: Mapping[str, Any]) -> None:
        self.seconds = max(self.seconds, told["took"])
        for kind, times in told["times"].items():
            self.times[kind].add_all(map(tuple, times["buckets"]), times["longest"])
        for name, count in told["errors"].items():
            self.errors[name] = self.errors.get(name, 0) + count


async def _load(
    told: Mapping[str, Any],
    variables: Mapping[str, str],
    tasks: int,
    processes: int,
    found: _Found,
    show: Callable[[int], None],
) -> None:
    """Have processes make the calls, with these variables beside those that there are. Raises Failure if one ends
    without having done it."""
    import asyncio
    import sys

    running: list[Process] = []
    try:
        for number in range(processes):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "comity.cli.bench_worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=64 * 1024 * 1024,
                env=os.environ | variables,
            )
            running.append(process)
            share = tasks // processes + (number < tasks % processes)
            await _tell(process, {**told, "number": number, "tasks": share})
        for process in running:
            await _told(process)  # it is ready
        for process in running:
            await _tell(process)
        done = dict.fromkeys(range(processes), 0)

        async def follow(number: int, process: "Process") -> None:
            while "done" in (line := await _told(process)):
                done[number] = line["done"]
                show(sum(done.values()))
            found.add(line)

        await asyncio.gather(*(follow(number, process) for number, process in enumerate(running)))
    finally:
        for process in running:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _tell(process: "Process", what: Mapping[str, Any] | None = None) -> None:
    import json

    assert process.stdin is not None
    process.stdin.write((json.dumps(what) if what is not None else "").encode() + b"\n")
    await process.stdin.drain()


async def _told(process: "Process") -> dict[str, Any]:
    import json

    from .failures import Failure

    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise Failure(f"a process of the load ended with {await process.wait()}")
    told: dict[str, Any] = json.loads(line)
    return told


@contextmanager
def _progress(seconds: float) -> "Iterator[Callable[[int], None]]":
    """A bar on the terminal that standard error is, for so many seconds; elsewhere nothing."""
    import sys
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]:,.0f} calls a second"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    began: float | None = None
    with bar:
        task = bar.add_task("", total=seconds, rate=0.0)

        def show(done: int) -> None:
            nonlocal began
            began = began or time.perf_counter() - 0.2
            passed = time.perf_counter() - began
            bar.update(task, completed=min(passed, seconds), rate=done / passed)

        yield show


def _report(found: _Found, output: Output) -> None:
    if output.json:
        output.object(_shape(found))
        return
    header = ["what", "calls", "a second", *(f"p{percent:g}" for percent in PERCENTILES), "longest"]
    rows = [
        [
            kind,
            f"{times.count}",
            f"{times.count / found.seconds:.0f}",
            *(_shown(times.percentile(percent)) if times.count else "-" for percent in PERCENTILES),
            _shown(times.longest),
        ]
        for kind, times in found.times.items()
    ]
    if not output.terminal:
        output.fields([(name, "") for name in header])
    output.table(header, rows, numbers=header[1:])
    for kind, times in found.times.items():
        output.text(f"\n{kind}: {counted(times.count, 'call')}", "bold")
        bars = _bars(times)
        most = max((calls for _, calls in bars), default=1)
        for bound, calls in bars:
            output.line(f"{'up to ' + _shown(bound):>14} {calls:>9} {'#' * -(-calls * WIDTH // most)}")
    for name, count in found.errors.items():
        output.text(f"\n{counted(count, 'call')} failed: {name}", "red")


def _shape(found: _Found) -> Mapping[str, Any]:
    """One object, of which the first six are for scripts. Times of the histogram are in seconds."""
    from comity.load import Times

    whole = Times()
    for times in found.times.values():
        whole.add_all(times.buckets(), times.longest)
    return {
        "operations": whole.count,
        "seconds": found.seconds,
        "operations_per_second": whole.count / found.seconds,
        "p50_ms": whole.percentile(50) * 1e3 if whole.count else None,
        "p99_ms": whole.percentile(99) * 1e3 if whole.count else None,
        "errors": sum(found.errors.values()),
        "failed": found.errors,
        "kinds": {
            kind: {
                "operations": times.count,
                "percentiles_ms": {f"{percent:g}": times.percentile(percent) * 1e3 for percent in PERCENTILES}
                if times.count
                else {},
                "longest_ms": times.longest * 1e3,
                "histogram": list(times.buckets()),
            }
            for kind, times in found.times.items()
        },
    }


def _bars(times: "Times") -> Sequence[tuple[float, int]]:
    """How many calls took up to each of the times that double, in seconds."""
    bars: dict[float, int] = {}
    bound = 1e-6
    for seconds, calls in times.buckets():
        while seconds > bound:
            bound *= 2
            if bars:
                bars[bound] = 0
        bars[bound] = bars.get(bound, 0) + calls
    return list(bars.items())


def _shown(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
