"""`comity checkpoint`, `checkpoints`, `restore`: names for revisions, and returning to one."""

from typing import TYPE_CHECKING

import click

from . import shapes
from .diff import show_kind
from .options import (
    NUMBER,
    REF,
    REVISION,
    TEXT,
    Options,
    client_options,
    confirm,
    examples,
    guard_of,
    guard_option,
    label_option,
    write_options,
)
from .render import Output, counted
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.request_ids import RequestId

__all__ = ["checkpoint", "checkpoints", "restore"]


@click.command(
    short_help="Name a revision, to return to.",
    epilog=examples(
        "comity checkpoint before-refactor",
        "comity checkpoint release-7 --message 'as it was shipped' --label kind=release",
        "comity checkpoint yesterday --revision 1200",
    ),
)
@click.argument("name", type=TEXT)
@click.option("--revision", type=REVISION, metavar="N", help="The revision to name.  [newest]")
@label_option("A label, to find it by. May be repeated.")
@guard_option
@write_options
@client_options
def checkpoint(
    options: Options,
    name: str,
    revision: int | None,
    labels: dict[str, str],
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Give the name NAME to the newest revision, or to another one; exit with 3 if the name is taken.

    The revision stays readable, whatever is compacted, for as long as the name is there. A name is of letters, digits,
    ".", "_" and "-", and has a letter in it.
    """

    async def work(client: "Client") -> None:
        made = await client.checkpoint(
            name, revision=revision or 0, labels=labels, guard=guard_of(guard), message=message, request_id=request_id
        )
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.checkpoint(made))
        else:
            output.line(f"checkpoint {made.name}: revision {made.revision}, {counted(made.key_count, 'key')}")

    run(options, work)


@click.command(
    short_help="Print the checkpoints, or delete one.",
    epilog=examples(
        "comity checkpoints",
        "comity checkpoints --label kind=release",
        "comity checkpoints --delete before-refactor --yes",
    ),
)
@label_option("Only those with this label. May be repeated: with all of them.")
@click.option("--delete", "doomed", type=TEXT, metavar="NAME", help="Delete this checkpoint.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@client_options
def checkpoints(options: Options, labels: dict[str, str], doomed: str | None, yes: bool) -> None:
    """Print the checkpoints in the order of their names, or delete one.

    A line each, with tabs between: the name, the revision, the time, the author, the number of keys, the labels, the
    message.
    """
    if doomed is None:
        run(options, lambda client: _list(client, options, labels))
        return
    if labels:
        raise click.UsageError("Give either --label or --delete NAME", click.get_current_context())
    confirm(f"Delete the checkpoint {doomed!r}, after which its revision may be forgotten?", yes=yes)

    async def work(client: "Client") -> None:
        await client.delete_checkpoint(doomed)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"deleted": doomed})
        else:
            output.line(f"deleted {doomed}")

    run(options, work)


async def _list(client: "Client", options: Options, labels: dict[str, str]) -> None:
    output = Output(as_json=options.json)
    if output.json:
        async for found in client.checkpoints(labels):
            output.object(shapes.checkpoint(found))
        return
    rows = [_row(found, terminal=output.terminal) async for found in client.checkpoints(labels)]
    if rows:
        header = ["name", "revision", "created", "author", "keys", "labels", "message"]
        output.table(header, rows, numbers=["revision", "keys"])


def _row(found: "model.Checkpoint", *, terminal: bool) -> list[str]:
    return [
        found.name,
        str(found.revision),
        f"{found.create_time.astimezone():%Y-%m-%d %H:%M}" if terminal else shapes.time(found.create_time),
        found.author,
        str(found.key_count),
        ",".join(f"{name}={text}" for name, text in sorted(found.labels.items())),
        found.message,
    ]


@click.command(
    short_help="Return to an earlier revision.",
    epilog=examples(
        "comity restore before-refactor",
        "comity restore 12 --prefix drafts/ --dry-run",
        "comity restore before-refactor --if-revision 41 --message 'it did not work out'",
    ),
)
@click.argument("ref", type=REF)
@click.option("--prefix", type=TEXT, default="", metavar="PREFIX", help="Only keys that begin with this.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and print what would change.")
@click.option("--if-revision", type=NUMBER, metavar="N", help="Only if the newest revision of the namespace is N.")
@guard_option
@write_options
@client_options
def restore(
    options: Options,
    ref: str | int,
    prefix: str,
    dry_run: bool,
    if_revision: int | None,
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Make the keys what they were at REF, a revision or the name of a checkpoint, in one new commit.

    Exits with 3 if --if-revision does not hold, and with 4 if there is no such checkpoint. What is restored can be
    undone by a restore to the revision before it.
    """

    async def work(client: "Client") -> None:
        done = await client.restore(
            ref,
            prefix,
            dry_run=dry_run,
            if_revision=if_revision,
            guard=guard_of(guard),
            message=message,
            request_id=request_id,
        )
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.restored(done))
            return
        for difference in done.differences:
            show_kind(output, difference)
        changed = done.put + done.deleted
        if 0 < len(done.differences) < changed:
            output.line(f"... and {changed - len(done.differences)} more")
        what = f"{ref}: {done.put} put, {done.deleted} deleted"
        output.line(f"would restore {what}" if dry_run else f"restored {what}, revision {done.revision}")

    run(options, work)
