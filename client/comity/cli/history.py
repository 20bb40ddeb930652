"""`comity log` and `comity blame`: what was changed, when, by whom and why."""

import datetime
from typing import TYPE_CHECKING

import click

from . import shapes
from .options import COUNT, REVISION, TEXT, Options, client_options, examples
from .render import Field, Output
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client

__all__ = ["blame", "log"]

PAGE = 1000
ON_A_LINE = 5  # changes of a commit that --oneline shows
IN_A_BLOCK = 20  # and that are shown without it
INDENT = "    "


@click.command(
    short_help="Print the history.",
    epilog=examples(
        "comity log --limit 20",
        "comity log agents/ --author planner",
        "comity log --oneline --from 10 --to 20 --oldest-first",
        "comity log plan --json | jq -c '[.revision, .events[0].entry.value]'",
    ),
)
@click.argument("prefix", default="", type=TEXT)
@click.option("--oneline", is_flag=True, help="A line a commit.")
@click.option("--limit", type=COUNT, metavar="N", help="The most commits to print.")
@click.option("--from", "from_revision", type=REVISION, metavar="REVISION", help="The oldest to print.  [oldest kept]")
@click.option("--to", "to_revision", type=REVISION, metavar="REVISION", help="The newest to print.  [newest]")
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest.")
@click.option("--author", type=TEXT, default="", metavar="NAME", help="Only commits of this author.")
@client_options
def log(
    options: Options,
    prefix: str,
    oneline: bool,
    limit: int | None,
    from_revision: int | None,
    to_revision: int | None,
    oldest_first: bool,
    author: str,
) -> None:
    """Print the commits that changed keys under PREFIX, the newest first.

    With --oneline: a line each, with tabs between: the revision, the time, the author, the changes, the message. With
    --json: the commit with its entries.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        shown = 0
        history = client.history(
            prefix,
            author=author,
            from_revision=from_revision or 0,
            to_revision=to_revision or 0,
            newest_first=not oldest_first,
            page_size=min(limit or 0, PAGE),
            keys_only=not output.json,
        )
        async for commit in history:
            if output.json:
                output.object(shapes.commit(commit))
            elif oneline:
                output.fields(_line(commit, terminal=output.terminal))
            else:
                if shown:
                    output.text("")
                _show(output, commit)
            shown += 1
            if shown == limit:
                return

    run(options, work)


def _line(commit: "model.Commit", *, terminal: bool) -> list[Field]:
    at = f"{commit.time.astimezone():%Y-%m-%d %H:%M:%S}" if terminal else shapes.time(commit.time)
    return [
        (str(commit.revision), "yellow"),
        (at, "dim"),
        (commit.author, "cyan"),
        (", ".join(_changes(commit, ON_A_LINE)), ""),
        (commit.message, "italic"),
    ]


def _show(output: Output, commit: "model.Commit") -> None:
    """A commit as a block: what is known of it, why, and what it changed."""
    output.text(f"revision {commit.revision}", "yellow")
    if commit.author:
        output.line(f"Author: {commit.author}")
    output.line(f"Date:   {_local(commit.time) if output.terminal else shapes.time(commit.time)}")
    if commit.trace_parent:
        output.line(f"Trace:  {commit.trace_parent}")
    if commit.message:
        output.text("")
        for line in commit.message.split("\n"):
            output.text(f"{INDENT}{line}")
    if commit.events:
        output.text("")
        for change in _changes(commit, IN_A_BLOCK):
            output.line(f"{INDENT}{change}")


def _local(at: datetime.datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %z}"


def _changes(commit: "model.Commit", most: int) -> list[str]:
    """What a commit did to each key, of up to so many keys."""
    changes = [
        f"{event.type.name.lower()} {event.key}" + (f" v{event.entry.version}" if event.is_put else "")
        for event in commit.events[:most]
    ]
    if len(commit.events) > most:
        changes.append(f"{len(commit.events) - most} more")
    return changes


@click.command(
    short_help="Print who wrote each key last.",
    epilog=examples(
        "comity blame",
        "comity blame agents/ --revision 12",
        "comity blame --json | jq -r '[.entry.key, .author] | @tsv'",
    ),
)
@click.argument("prefix", default="", type=TEXT)
@click.option("--revision", type=REVISION, metavar="N", help="Read the state at this revision.  [newest]")
@client_options
def blame(options: Options, prefix: str, revision: int | None) -> None:
    """Print who wrote each key under PREFIX last, and why, in the order of keys.

    A line each, with tabs between: the revision, the author, the time, the key, the message. Control characters are
    escaped.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        async for page in client.blame(prefix, revision=revision or 0).pages():
            if output.json:
                for found in page:
                    output.object(shapes.attribution(found))
            elif page:
                rows = [_row(found, terminal=output.terminal) for found in page]
                output.table(["revision", "author", "time", "key", "message"], rows, numbers=["revision"])
            output.flush()

    run(options, work)


def _row(found: "model.Attribution", *, terminal: bool) -> list[str]:
    at = found.entry.update_time
    return [
        str(found.entry.mod_revision),
        found.author,
        f"{at.astimezone():%Y-%m-%d %H:%M}" if terminal else shapes.time(at),
        found.entry.key,
        found.message,
    ]
