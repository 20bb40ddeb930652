"""`comity bench`: load on a running server, so that whoever operates it can size its machine."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .options import COUNT, Options, client_options, examples
from .render import Output, counted
from .session import run

if TYPE_CHECKING:
    from comity.client import Client
    from comity.load import Call, Times
    from comity.transaction import Transaction

__all__ = ["bench"]

KINDS = ("get", "put", "transact", "update", "list")
TOGETHER = 5  # keys of a transaction
LISTED = 100  # keys of a list
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
WIDTH = 40  # of the longest bar
SHARE = re.compile(r"([a-z]+)=([0-9]{1,6})")


def _mix(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, int]:
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
        "comity bench --tasks 256 --seconds 60 --value-bytes 1000",
        "comity bench --mix put=1 --json",
        "comity bench --mix update=1 --keys 1   # all contend for one key",
    ),
)
@click.option(
    "--mix",
    metavar="KIND=SHARE,...",
    default="get=50,put=45,transact=5",
    callback=_mix,
    show_default=True,
    help=f"What is done, and how often: get, put, transact ({TOGETHER} puts at once), update (read a number and write "
    f"one more, again until nobody was faster), list ({LISTED} keys).",
)
@click.option("--tasks", type=COUNT, default=64, show_default=True, help="How many calls are in progress at a time.")
@click.option("--seconds", type=click.FloatRange(0.1, 86400), default=10.0, show_default=True, help="For how long.")
@click.option("--keys", type=COUNT, default=10_000, show_default=True, help="Among how many keys.")
@click.option("--value-bytes", type=click.IntRange(0, 1024 * 1024), default=100, show_default=True, help="Of a value.")
@click.option("--keep", is_flag=True, help="Leave the namespace there.")
@client_options
def bench(
    options: Options, mix: Mapping[str, int], tasks: int, seconds: float, keys: int, value_bytes: int, keep: bool
) -> None:
    """Make calls for a while from many tasks of this process, and print how many there were a second and how long they
    took.

    They go to a namespace that is made for it, NAME-bench-XXXXXXXX after --namespace, and deleted in the end. One
    process has one processor: start several to see what a server takes.
    """
    if tasks > 100_000 or keys > 10_000_000:
        raise click.UsageError("at most 100000 tasks and 10000000 keys", click.get_current_context())

    async def work(client: "Client") -> int:
        name = f"{options.namespace[:40]}-bench-{uuid.uuid4().hex[:8]}"
        target = client.with_options(namespace=name)
        await target.put("first", b"")  # so that what is wrong with the server is said before the load begins
        try:
            found = await _load(_Work(target, mix, keys, value_bytes), tasks, seconds, Output(as_json=options.json))
        finally:
            if not keep:
                await client.with_options(namespace=name).delete_namespace()
        return 1 if found else 0

    run(options, work)


class _Work:
    """The calls, and what became of them, by kind."""

    def __init__(self, client: "Client", mix: Mapping[str, int], keys: int, value_bytes: int) -> None:
        from comity.load import Times

        self._client = client
        self._keys = keys
        self._value = b"v" * value_bytes
        self._kinds = _spread(mix)
        self.times = {kind: Times() for kind in mix}
        self.errors: dict[str, int] = {}

    def done(self) -> int:
        return sum(times.count for times in self.times.values())

    def failed(self, error: Exception) -> None:
        from comity.errors import ComityError

        if not isinstance(error, ComityError):
            raise error
        name = f"{type(error).__name__}: {error.reason or error.message}"
        self.errors[name] = self.errors.get(name, 0) + 1

    async def call(self, number: int) -> None:
        import time

        kind = self._kinds[number % len(self._kinds)]
        began = time.perf_counter()
        await self._calls(kind)(number)
        self.times[kind].add(time.perf_counter() - began)

    def _calls(self, kind: str) -> "Call":
        calls: dict[str, Call] = {
            "get": lambda number: self._client.get(self._key(number)),
            "put": lambda number: self._client.put(self._key(number), self._value),
            "transact": self._transact,
            "update": self._update,
            "list": self._list,
        }
        return calls[kind]

    def _key(self, number: int) -> str:
        return f"key-{number * 2_654_435_761 % self._keys:08}"  # all over the keys (Knuth's multiplicative hashing)

    async def _transact(self, number: int) -> None:
        from comity.operations import Put

        keys = {self._key(number * TOGETHER + place) for place in range(TOGETHER)}
        await self._client.transact(then=[Put(key, self._value) for key in keys])

    async def _update(self, number: int) -> None:
        key = f"number-{self._key(number)}"

        async def one_more(transaction: "Transaction") -> None:
            entry = await transaction.get(key)
            transaction.put(key, 1 if entry is None else int(entry.value) + 1)

        await self._client.transact(one_more)

    async def _list(self, number: int) -> None:
        prefix = self._key(number)[:-2]
        async for _ in self._client.list(prefix, page_size=LISTED):
            pass


def _spread(mix: Mapping[str, int]) -> Sequence[str]:
    """The kinds in turn, each as often as its share of a hundred or so says, and evenly among the others."""
    whole = sum(mix.values())
    steps = min(whole, 1_000)
    due = dict.fromkeys(mix, 0.0)
    order = []
    for _ in range(steps):
        for kind, share in mix.items():
            due[kind] += share / whole
        first = max(due, key=lambda kind: due[kind])
        due[first] -= 1
        order.append(first)
    return order


async def _load(work: _Work, tasks: int, seconds: float, output: Output) -> dict[str, int]:
    """Do the work, show how it goes, and print what came of it. Returns the errors."""
    import asyncio

    from comity.load import Times, drive

    with _progress(seconds) as show:
        driving = asyncio.ensure_future(
            drive(work.call, tasks=tasks, seconds=seconds, times=Times(), failed=work.failed)
        )
        try:
            while not driving.done():
                await asyncio.wait([driving], timeout=0.1)
                show(work.done())
            took = await driving
        finally:
            driving.cancel()
    _report(work, tasks, took, output)
    return work.errors


class _progress:  # noqa: N801 - used as a function
    """A bar on the terminal that standard error is, for so many seconds; elsewhere nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> "Callable[[int], None]":
        import sys
        import time

        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]:,.0f} calls a second"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        task = self._bar.add_task("", total=self._seconds, rate=0.0)
        self._bar.start()
        began = time.perf_counter()

        def show(done: int) -> None:
            passed = time.perf_counter() - began
            self._bar.update(task, completed=min(passed, self._seconds), rate=done / passed)

        return show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _report(work: _Work, tasks: int, took: float, output: Output) -> None:
    if output.json:
        output.object(
            {
                "tasks": tasks,
                "seconds": took,
                "calls": {kind: _shape(times, took) for kind, times in work.times.items()},
                "errors": work.errors,
            }
        )
        return
    header = ["what", "calls", "a second", *(f"p{percent:g}" for percent in PERCENTILES), "longest"]
    rows = [
        [
            kind,
            f"{times.count}",
            f"{times.count / took:.0f}",
            *(_shown(times.percentile(percent)) if times.count else "-" for percent in PERCENTILES),
            _shown(times.longest),
        ]
        for kind, times in work.times.items()
    ]
    output.table(header, rows, numbers=header[1:])
    for kind, times in work.times.items():
        output.text(f"\n{kind}: {counted(times.count, 'call')}", "bold")
        bars = _bars(times)
        most = max((calls for _, calls in bars), default=1)
        for bound, calls in bars:
            bar = "#" * -(-calls * WIDTH // most)
            output.line(f"{'up to ' + _shown(bound):>14} {calls:>9} {bar}")
    for name, count in work.errors.items():
        output.text(f"\n{counted(count, 'call')} failed: {name}", "red")


def _shape(times: "Times", took: float) -> Mapping[str, Any]:
    return {
        "count": times.count,
        "rate": times.count / took,
        "percentiles": {f"{percent:g}": times.percentile(percent) for percent in PERCENTILES} if times.count else {},
        "longest": times.longest,
        "histogram": [[seconds, calls] for seconds, calls in times.buckets()],
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
