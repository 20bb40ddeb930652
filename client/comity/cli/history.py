"""`comity log`: what was changed, when, by whom and why."""

from typing import TYPE_CHECKING

import click

from . import shapes
from .options import COUNT, NUMBER, TEXT, Options, client_options, examples
from .render import Field, Output
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client

__all__ = ["log"]

PAGE = 1000
SHOWN = 5  # changes of a commit on a line


@click.command(
    short_help="Print the history.",
    epilog=examples(
        "comity log --limit 20",
        "comity log agents/ --author planner",
        "comity log --from 10 --to 20 --oldest-first",
        "comity log plan --json | jq -c '[.revision, .events[0].entry.value]'",
    ),
)
@click.argument("prefix", default="", type=TEXT)
@click.option("--limit", type=COUNT, metavar="N", help="The most commits to print.")
@click.option(
    "--from", "from_revision", type=NUMBER, default=0, metavar="REVISION", help="The oldest to print.  [oldest kept]"
)
@click.option("--to", "to_revision", type=NUMBER, default=0, metavar="REVISION", help="The newest to print.  [newest]")
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest.")
@click.option("--author", type=TEXT, default="", metavar="NAME", help="Only commits of this author.")
@client_options
def log(
    options: Options,
    prefix: str,
    limit: int | None,
    from_revision: int,
    to_revision: int,
    oldest_first: bool,
    author: str,
) -> None:
    """Print the commits that changed keys under PREFIX, the newest first.

    A line each, with tabs between: the revision, the time, the author, the changes, the message. With --json: the
    commit with its entries.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        left = limit
        history = client.history(
            prefix,
            author=author,
            from_revision=from_revision,
            to_revision=to_revision,
            newest_first=not oldest_first,
            page_size=min(limit or 0, PAGE),
            keys_only=not output.json,
        )
        async for commit in history:
            if output.json:
                output.object(shapes.commit(commit))
            else:
                output.fields(_line(commit, terminal=output.terminal))
            if left is not None:
                left -= 1
                if left == 0:
                    return

    run(options, work)


def _line(commit: "model.Commit", *, terminal: bool) -> list[Field]:
    changes = [
        f"{event.type.name.lower()} {event.key}" + (f" v{event.entry.version}" if event.is_put else "")
        for event in commit.events[:SHOWN]
    ]
    if len(commit.events) > SHOWN:
        changes.append(f"{len(commit.events) - SHOWN} more")
    at = f"{commit.time.astimezone():%Y-%m-%d %H:%M:%S}" if terminal else shapes.time(commit.time)
    return [
        (str(commit.revision), "yellow"),
        (at, "dim"),
        (commit.author, "cyan"),
        (", ".join(changes), ""),
        (commit.message, "italic"),
    ]
