"""`comity status`, `namespaces`, `compact`: what there is, how large it is, forgetting its past."""

import datetime
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from . import shapes
from .options import NUMBER, TEXT, Options, client_options, confirm, examples
from .render import Output
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client

__all__ = ["compact", "namespaces", "status"]


@click.command(
    short_help="Print what is known of the namespace.",
    epilog=examples("comity status", "comity status --namespace research --json | jq .revision"),
)
@client_options
def status(options: Options) -> None:
    """Print what is known of the namespace: its revision, floor, size; exit with 4 if it does not exist."""

    async def work(client: "Client") -> None:
        found = await client.namespace_info()
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.namespace(found))
        else:
            output.properties(_properties(found, terminal=output.terminal))

    run(options, work)


def _properties(found: "model.Namespace", *, terminal: bool) -> dict[str, str]:
    shown = {}
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, datetime.datetime):
            value = f"{value.astimezone():%Y-%m-%d %H:%M:%S}" if terminal else shapes.time(value)
        if field.name not in ("parent", "fork_revision") or found.parent:
            shown[field.name] = str(value)
    return shown


@click.command(
    short_help="Print the namespaces, or delete one.",
    epilog=examples("comity namespaces", "comity namespaces test-", "comity namespaces --delete scratch --yes"),
)
@click.argument("prefix", required=False, type=TEXT)
@click.option("--delete", "doomed", type=TEXT, metavar="NAME", help="Delete this namespace with its history.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@client_options
def namespaces(options: Options, prefix: str | None, doomed: str | None, yes: bool) -> None:
    """Print the namespaces whose names begin with PREFIX, or delete one.

    A line each, with tabs between: the name, the revision, the number of keys, the bytes of the newest state.
    """
    if doomed is None:
        run(options, lambda client: _list(client, options, prefix or ""))
        return
    if prefix is not None:
        raise click.UsageError("Give either PREFIX or --delete NAME", click.get_current_context())
    confirm(f"Delete the namespace {doomed!r} with all its keys and history?", yes=yes)

    async def work(client: "Client") -> None:
        await client.with_options(namespace=doomed).delete_namespace()
        output = Output(as_json=options.json)
        if output.json:
            output.object({"deleted": doomed})
        else:
            output.line(f"deleted {doomed}")

    run(options, work)


async def _list(client: "Client", options: Options, prefix: str) -> None:
    output = Output(as_json=options.json)
    if output.json:
        async for found in client.namespaces(prefix):
            output.object(shapes.namespace(found))
        return
    rows = [
        [found.name, str(found.revision), str(found.key_count), str(found.size_bytes)]
        async for found in client.namespaces(prefix)
    ]
    if rows:
        output.table(["name", "revision", "keys", "bytes"], rows, numbers=["revision", "keys", "bytes"])


@click.command(short_help="Forget old revisions.", epilog=examples("comity compact", "comity compact --revision 1000"))
@click.option("--revision", type=NUMBER, metavar="N", help="The oldest revision to keep; 0: all.  [newest]")
@client_options
def compact(options: Options, revision: int | None) -> None:
    """Forget what was before a revision, and print the floor: the oldest revision that can still be read."""

    async def work(client: "Client") -> None:
        floor = await client.compact(revision)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"floor": floor})
        else:
            output.line(f"floor {floor}")

    run(options, work)
