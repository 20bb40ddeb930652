"""`make bench`, or `make bench ARGS="NAME..."`: run all benchmarks, or some.

Prints tables, writes the same figures as JSON, and draws them. Machines differ and are noisy: quote ratios, not times.
"""

import asyncio
import contextlib
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import catalog, plot, report
from benchmarks.options import Options
from comity_server.serve import new_event_loop
from comity_server.telemetry import logs

HOME = Path("build/bench")
WIDTH = 150  # of tables that are not shown on a terminal


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(catalog.names()), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="The short form: shows that all works; its figures mean little.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help=f"Default: {HOME}/<time>.json")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=HOME,
    show_default=True,
    help="Where servers keep their files: names the disk that is measured.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="WORD",
    help="Only peers with this word in their names, as comity, etcd or redis. May be given more than once. Some "
    "benchmarks have peers that cannot be left out.",
)
@click.option("--list", "only_list", is_flag=True, help="Say what there is, and run nothing.")
def main(
    names: Sequence[str], quick: bool, file: Path | None, folder: Path, peers: Sequence[str], only_list: bool
) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    logs.configure("warning", "console")  # of the stores that run in this process
    if only_list:
        for name in catalog.names():
            console.print(f"{name:9} {catalog.load(name).about.splitlines()[0]}", highlight=False)
        return
    began = datetime.datetime.now(datetime.UTC)
    file = file or HOME / f"{began:%Y%m%d-%H%M%S}.json"
    found: dict[str, Any] = {}
    for name in names or catalog.names():
        benchmark = catalog.load(name)
        console.rule(f"[bold]{name}")
        console.print(benchmark.about, highlight=False)
        start = time.perf_counter()
        with _folder(folder) as place, asyncio.Runner(loop_factory=new_event_loop) as runner:
            options = Options(quick, place, peers)
            result = runner.run(benchmark.run(options))
        if peers and not options.asked:
            result.note("this benchmark has no peers to choose from: all were measured")
        elif peers and not any(map(options.wants, options.asked)):
            raise click.UsageError(f"no peer of {name} has such a name: it has {', '.join(sorted(options.asked))}")
        report.show(console, result)
        console.print(f"took {time.perf_counter() - start:.0f} s", highlight=False)
        found[name] = result.as_json()
        file.parent.mkdir(parents=True, exist_ok=True)
        for picture in plot.draw(result, file, name):
            console.print(f"drawn to {picture}", highlight=False)
        _write(file, {"began": began.isoformat(), "quick": quick, "machine": _machine(), "benchmarks": found})
    console.print(f"written to {file}", highlight=False)


@contextlib.contextmanager
def _folder(within: Path) -> Iterator[Path]:
    within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=within) as folder:
        yield Path(folder).absolute()


def _write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("comity", "grpcio", "protobuf")},
    }


if __name__ == "__main__":
    main()
