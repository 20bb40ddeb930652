"""`comity top`: how servers stand, again and again."""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from .failures import Failure, failure
from .options import SECONDS, Options, client_options, examples
from .readings import Reading
from .render import Output, escape
from .session import run

if TYPE_CHECKING:
    from rich.console import Group

    from comity.access import Access
    from comity.client import Client
    from comity.server_status import ServerStatus

__all__ = ["together", "top"]

LEAST, MOST = 0.1, 3600  # seconds of the interval
ASK_SECONDS = 1.0  # how long an answer is waited for at least, where the interval is shorter
STYLES = {"SERVING": "green", "DRAINING": "yellow", "NOT_WRITABLE": "red", "UNAVAILABLE": "red"}
SERVERS = ("address", "state", "ops/s", "calls/s", "writes/s", "confl/s", "err/s", "pending", "group", "p99 ms")
OTHERS = ("address", "store", "up", "conn", "watch", "lag", "lease", "keys", "bytes", "history", "cpu%", "mem")
TROUBLE = ("address", "trouble")
METHODS = ("method", "calls/s", "err/s", "open", "in/s", "out/s", "p50 ms", "p99 ms")
NAMESPACES = ("namespace", "revision", "revs/s", "writes/s", "keys", "bytes", "commits", "history", "leases")
HEADERS = (SERVERS, TROUBLE, OTHERS, METHODS, NAMESPACES)  # of the sections
UNITS = ("", "K", "M", "G", "T", "P")

Row = Sequence[str]


@click.command(
    short_help="Show how the server stands, live.",
    epilog=examples(
        "comity top",
        "comity top --address one:7171,two:7171 --interval 5",
        "comity top --once --json | jq .operations_per_second",
    ),
)
@click.option(
    "--interval",
    type=SECONDS,
    default=2.0,
    metavar="SECONDS",
    help="How often to look, from 0.1.",
    show_default=True,
)
@click.option("--once", is_flag=True, help="Look for one interval, print what there was, and end.")
@client_options
def top(options: Options, interval: float, once: bool) -> None:
    """Show rates, latencies, namespaces, watches and leases of the server, or of each of several addresses, until q or
    Ctrl-C.

    Rates are those of the last interval, that of operations of those in pipelines and of calls that are no streams;
    latencies are the bound that 50 or 99 of 100 did not pass. Methods and namespaces are shown of all the addresses,
    the busiest first. In a pipe a frame is lines with tabs, that begin with what they are about; the columns of each
    sort are named once, in capitals. With --json it is an object for each address. A server that cannot be reached is
    shown as that, until it is there again; with --once it is exit code 5. Where there are permissions, it needs admin
    on every namespace.
    """

    if not LEAST <= interval <= MOST:
        raise click.BadParameter(f"must be from {LEAST} to {MOST}", param_hint="--interval")

    async def work(_: "Client") -> None:
        servers = [_Server(one, options.timeout) for one in _each(options.access())]
        try:
            await _show(servers, Output(as_json=options.json), interval, once)
        finally:
            for server in servers:
                await server.close()

    run(options, work, interrupted=0)


def _each(access: "Access") -> Iterator["Access"]:
    for address in access.address.split(","):
        yield dataclasses.replace(access, address=address.strip())


class _Server:
    """One that is asked."""

    def __init__(self, access: "Access", timeout: float) -> None:
        from comity.calls import Calls
        from comity.channel import Channels

        self.address = access.address
        self._channels = Channels(access)
        self._calls: Calls = Calls(self._channels)
        self._timeout = timeout
        self._last: ServerStatus | None = None

    async def close(self) -> None:
        await self._channels.close()

    async def look(self, seconds: float) -> Reading:
        """Ask once. Raises Failure for what waiting does not help against."""
        from comity.errors import ComityError, DeadlineExceeded, Unavailable
        from comity.server_status import from_message
        from comity.v1 import server_pb2

        before = self._last
        try:
            answer = await self._calls.attempt(
                lambda to: to.server.GetStatus, server_pb2.GetStatusRequest(), min(self._timeout, seconds)
            )
        except (Unavailable, DeadlineExceeded) as error:
            self._last = None
            return Reading(self.address, error=error.message)
        except ComityError as error:
            raise failure(error) from error
        self._last = now = from_message(answer.status)
        if before is not None and before.instance != now.instance:
            before = None
        return Reading(self.address, now=now, before=before)


async def _show(servers: Sequence[_Server], output: Output, interval: float, once: bool) -> None:
    seconds = max(ASK_SECONDS, interval)

    async def look() -> Sequence[Reading]:
        return await asyncio.gather(*(server.look(seconds) for server in servers))

    readings = await look()
    live = output.terminal and not once
    if once:
        await asyncio.sleep(interval)
        readings = await look()
        if all(reading.now is None for reading in readings):
            raise Failure(readings[0].error, "UNAVAILABLE", reason="UNREACHABLE")
    if not live:
        named: set[str] = set()
        while True:
            _print(output, readings, named)
            if once:
                return
            await asyncio.sleep(interval)
            readings = await look()
    from rich.live import Live

    with _keys() as quit_asked, Live(console=output.console, auto_refresh=False, screen=True) as screen:
        while True:
            screen.update(_frame(readings, output.console.height), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await quit_asked.wait()
            if quit_asked.is_set():
                return
            readings = await look()


@contextlib.contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """An event that the key q sets, where keys can be read one by one."""
    asked = asyncio.Event()
    if os.name != "posix" or not sys.stdin.isatty():
        yield asked
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    loop = asyncio.get_running_loop()

    def typed() -> None:
        keys = os.read(keyboard, 1024)
        if not keys:  # it is closed
            loop.remove_reader(keyboard)
        if b"q" in keys.lower():
            asked.set()

    tty.setcbreak(keyboard, termios.TCSANOW)  # what was typed before counts
    loop.add_reader(keyboard, typed)
    try:
        yield asked
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _print(output: Output, readings: Sequence[Reading], named: set[str]) -> None:
    """`named`: the sections whose columns have been named before."""
    if output.json:
        for reading in readings:
            output.object(reading.object())
    elif output.terminal:
        output.console.print(_frame(readings, 1000), soft_wrap=False)
    else:
        for (name, rows), header in zip(_sections(readings), HEADERS, strict=True):
            if rows and name not in named:
                named.add(name)
                output.fields([(text.upper(), "") for text in (name, *header)])
            for row in rows:
                output.fields([(text, "") for text in (name, *row)])
    output.flush()


def _sections(readings: Sequence[Reading]) -> Sequence[tuple[str, Sequence[Row]]]:
    there = [reading for reading in readings if reading.now is not None]
    return [
        ("server", [_server(reading) for reading in readings]),
        ("trouble", [(reading.address, reading.trouble) for reading in readings if reading.trouble]),
        ("sizes", [_sizes(reading) for reading in there]),
        ("method", [_method(method) for method in together("method", [reading.methods() for reading in there])]),
        (
            "namespace",
            [_namespace(one) for one in together("namespace", [reading.namespaces() for reading in there])],
        ),
    ]


def _server(reading: Reading) -> Row:
    if reading.now is None:
        return (reading.address, reading.state, *["-"] * (len(SERVERS) - 2))
    figures = reading.figures()
    return (
        reading.address,
        reading.state,
        *(_rate(figures[f"{name}_per_second"]) for name in ("operations", "calls", "commits", "conflicts", "errors")),
        _short(figures["pending"]),
        _rate(figures["group_size"]),
        _number(figures["message_p99_ms"]),
    )


def _sizes(reading: Reading) -> Row:
    now, figures = reading.now, reading.figures()
    assert now is not None
    store = f"{now.store} worker {now.worker}" if now.worker else now.store
    names = ("connections", "watch_streams", "watch_max_lag", "leases", "key_count", "size_bytes", "history_size_bytes")
    memory = _short(figures["resident_bytes"]) if now.resident_bytes else "-"
    sizes = [_short(figures[name]) for name in names]
    return (reading.address, store, _lasted(now.uptime), *sizes, _rate(figures["cpu_percent"]), memory)


def _method(method: Mapping[str, Any]) -> Row:
    rates = ("calls_per_second", "errors_per_second")
    streamed = ("received_per_second", "sent_per_second")
    return (
        str(method["method"]).removeprefix("comity.v1."),
        *(_rate(method[name]) for name in rates),
        _short(method["open"]),
        *(_rate(method[name]) for name in streamed),
        *(_number(method[name]) for name in ("p50_ms", "p99_ms")),
    )


def _namespace(found: Mapping[str, Any]) -> Row:
    sizes = ("key_count", "size_bytes", "commit_count", "history_size_bytes", "lease_count")
    rates = ("revisions_per_second", "writes_per_second")
    return (
        str(found["namespace"]),
        str(found["revision"]),
        *(_rate(found[name]) for name in rates),
        *(_short(found[name]) for name in sizes),
    )


def together(name: str, of_servers: Sequence[Sequence[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    """What several servers say of the same: counts and rates of calls added up, and of all else the largest."""
    found: dict[str, dict[str, Any]] = {}
    for one in chain.from_iterable(of_servers):
        known = found.get(one[name])
        if known is None:
            found[one[name]] = dict(one)
            continue
        for field, value in one.items():
            if field == "revisions_per_second" or not field.endswith(("_per_second", "open")):
                known[field] = max((each for each in (known[field], value) if each is not None), default=None)
            else:
                known[field] += value
    return list(found.values())


def _frame(readings: Sequence[Reading], height: int) -> "Group":
    """For a terminal of so many lines."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables: list[Table] = []
    left = height
    for (_, rows), header in zip(_sections(readings), HEADERS, strict=True):
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for place, column in enumerate(header):
            words = place == 0 or column in ("state", "store", "trouble")
            table.add_column(column, justify="left" if words else "right", no_wrap=True, overflow="ellipsis")
        room = max(0, left - 3) if header is not METHODS else max(0, (left - 6) // 2)
        for row in rows[:room]:
            styles = ["bold", *(STYLES.get(text, "") for text in row[1:])]
            table.add_row(*(Text(escape(text), style) for text, style in zip(row, styles, strict=True)))
        left -= min(len(rows), room) + 3
        if rows:
            tables += [table]
    spaced = [part for table in tables for part in (table, Text(""))]
    return Group(*spaced[:-1])


def _rate(value: float | None) -> str:
    """As many digits as say something."""
    if value is None:
        return "-"
    return _short(value) if value >= 100 else f"{value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _short(value: float | None) -> str:
    """1234567 as 1.23M."""
    if value is None:
        return "-"
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f}{unit}" if value >= 100 or not unit else f"{value:.3g}{unit}"


def _lasted(seconds: float) -> str:
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days}d{hours % 24}h"
    return f"{hours}h{minutes % 60}m" if hours else f"{minutes}m{int(seconds) % 60}s"
