"""`comity copy`: moves namespaces from one store to another, beside `comity serve`."""

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

import click

from comity_server.errors import StateError
from comity_server.failures import Failed
from comity_server.stores.copy import ends
from comity_server.stores.copy.copying import Choice, Ending, NoNamespace, Result
from comity_server.stores.copy.run import SameStore, copy
from comity_server.stores.transfer import NoStore
from comity_server.stores.url import check_replicas
from comity_server.tasks import end
from comity_server.telemetry import logs
from comity_server.words import counted

EXAMPLES: Final = """\b
Examples:
  comity copy --from sqlite:comity.db --to redis://redis.internal
  comity copy --from redis://redis.internal --to sqlite:copy.db --prefix team-
  comity copy --from redis://old --to redis+cluster://new:6379 --dry-run"""
PROGRESS_SECONDS: Final = 5.0  # how often a long copy says how far it is
CONFLICT: Final = 3
NOT_FOUND: Final = 4
UNAVAILABLE: Final = 5
INTERRUPTED: Final = 130  # what shells use: 128 + SIGINT
INTERRUPTION: Final = "interrupted: the same command goes on with what is not there yet"
TEXTS: Final[dict[Ending, str]] = {
    "copied": "copied",
    "replaced": "copied in place of another",
    "continued": "brought up to date",
    "there": "there already",
    "counted": "counted",
    "conflict": "not copied",
    "changed": "not finished",
    "unequal": "not equal",
}
WOULD: Final[dict[Ending, str]] = TEXTS | {
    "copied": "would be copied",
    "replaced": "would be copied in place of another",
    "continued": "would be brought up to date",
    "conflict": "would not be copied",
}


@click.command(
    "copy",
    short_help="Copy namespaces from one store to another.",
    epilog=EXAMPLES,
    context_settings={"max_content_width": 100},
)
@click.option("--from", "source", metavar="URL", required=True, help="The store to copy from: it is left as it is.")
@click.option("--to", "target", metavar="URL", required=True, help="The store to copy to. A file is made if need be.")
@click.option("--namespace", "names", metavar="NAME", multiple=True, help="Copy this one. May be repeated.")
@click.option("--prefix", metavar="PREFIX", help="Copy those whose names begin so.")
@click.option("--overwrite", is_flag=True, help="Replace namespaces that the target has, and that are others.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--redis-wait-replicas",
    "wait_replicas",
    metavar="N",
    type=click.IntRange(0, 100),
    default=0,
    help="How many replicas of the target's Redis must have each namespace before the next one.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a namespace.")
def command(
    source: str,
    target: str,
    names: tuple[str, ...],
    prefix: str | None,
    overwrite: bool,
    dry_run: bool,
    wait_replicas: int,
    as_json: bool,
) -> None:
    """Copy namespaces from one store to another: state, history, checkpoints, forks, and what repeats are answered by.
    Without --namespace and --prefix all of them. Then read the target, and compare.

    URL is sqlite:PATH, whose file no server may use meanwhile, or a Redis as of `comity serve --store`. The copy may be
    interrupted, and made again: what is there is not copied twice, and what has come since is.

    Exits with 0 if the target has all that the source has, with 3 if it has other namespaces of these names, with 4 if
    there is nothing to copy, with 5 if a store cannot be used, with 130 after Ctrl-C, with 1 for any other failure.
    """
    logs.configure("error")
    try:
        reader = ends.reader(source)
    except ValueError as error:
        raise click.UsageError(f"--from: {error}", click.get_current_context()) from None
    try:
        ends.reader(target)
        check_replicas(target, wait_replicas)
    except ValueError as error:
        raise click.UsageError(f"--to: {error}", click.get_current_context()) from None
    copying = copy(
        reader,
        target,
        Choice(names, prefix),
        overwrite=overwrite,
        dry_run=dry_run,
        wait_replicas=wait_replicas,
        progress=_Progress(),
    )
    try:
        results = asyncio.run(_stoppable(copying))
    except KeyboardInterrupt:
        raise Failed("interrupted" if dry_run else INTERRUPTION, INTERRUPTED) from None
    except SameStore:
        raise click.UsageError("--from and --to are one store", click.get_current_context()) from None
    except NoStore as error:
        raise Failed(f"--from: {error}", NOT_FOUND) from None
    except NoNamespace as error:
        raise Failed(f"the source has no namespace {error}", NOT_FOUND) from None
    except StateError as error:
        raise Failed(error.message, UNAVAILABLE) from None
    for line in _lines(results, dry_run=dry_run, as_json=as_json):
        click.echo(line)
    if any(result.ending == "conflict" for result in results):
        raise click.exceptions.Exit(CONFLICT)
    if not all(result.is_equal for result in results):
        raise click.exceptions.Exit(1)


async def _stoppable(work: Coroutine[Any, Any, Sequence[Result]]) -> Sequence[Result]:
    """What can be cancelled at any time, though the work may lose a cancellation."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await end(task)
        raise
    return task.result()


class _Progress:
    """Says on standard error how far a long copy is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        if time.monotonic() > self._said + PROGRESS_SECONDS:
            self._said = time.monotonic()
            click.echo(f"{name}: {done:,} of {total:,} versions and commits", err=True)


def _lines(results: Sequence[Result], *, dry_run: bool, as_json: bool) -> Iterator[str]:
    if as_json:
        for result in results:
            said = result._asdict() | ({"dry_run": True} if dry_run else {})
            yield json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        return
    for result in results:
        if result.ending == "counted":
            continue
        what = (WOULD if dry_run else TEXTS)[result.ending]
        if result.is_equal:
            figures = f"revision {result.revision}, {counted(result.keys, 'key')}, {counted(result.commits, 'commit')}"
            figures += f", {counted(result.checkpoints, 'checkpoint')}, {counted(result.outcomes, 'outcome')}"
            yield f"{result.namespace}: {what}. {figures}"
        else:
            yield f"{result.namespace}: {what}: {result.reason}"
    names = sum(result.ending == "counted" for result in results)
    if names:
        yield f"{counted(names, 'name')} of deleted namespaces {'would go' if dry_run else 'go'} on counting"
    if not results:
        yield "the source has no namespaces"
