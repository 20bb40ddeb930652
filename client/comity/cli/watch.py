"""`comity watch`: changes as they happen."""

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from . import shapes
from .options import REVISION, TEXT, Options, client_options, examples, one_target
from .render import Field, Output, counted
from .session import run
from .values import inline

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.errors import ComityError

__all__ = ["watch"]

STYLES = {"put": "green", "delete": "red", "expire": "red"}


@click.command(
    short_help="Print changes as they happen.",
    epilog=examples(
        "comity watch plan",
        "comity watch --prefix agents/ --type put",
        "comity watch --prefix '' --from 1",
        "comity watch --prefix agents/ --json | jq -c '[.entry.key, .entry.value]'",
    ),
)
@click.argument("key", required=False, type=TEXT)
@click.option("--prefix", type=TEXT, metavar="PREFIX", help="All keys that begin with this; '' is every key.")
@click.option("--from", "from_revision", type=REVISION, metavar="REVISION", help="The first revision to show.  [now]")
@click.option("--epoch", type=TEXT, metavar="EPOCH", help="Of the history that --from is of.  [not checked]")
@click.option("--previous", is_flag=True, help="Show the entry before each change too.")
@click.option("--type", "kind", type=click.Choice(["put", "delete"]), help="Only changes of this type.")
@client_options
def watch(
    options: Options,
    key: str | None,
    prefix: str | None,
    from_revision: int | None,
    epoch: str | None,
    previous: bool,
    kind: str | None,
) -> None:
    """Print the changes of KEY, or of every key under a prefix, until interrupted (which is no failure).

    A line each, written at once: the revision, put or delete (or expire, where a lease ended), the key, the value. The
    watch survives the loss of its server, and goes on where it was. Where the history that it needs is gone, it says so
    with a line "resync", shows the whole state, and goes on from there: with --json as one object that has "resync":
    true, "revision" and "entries". That the server was lost, and is there again, stands on standard error. --timeout is
    how long to try to reach a server at first.

    With --epoch, as `comity status` prints it, the history is also taken for gone if the state was lost since, and the
    revisions after --from are now those of another one.
    """
    one_target(key, prefix)
    if epoch and not from_revision:
        raise click.UsageError("--epoch goes with --from", click.get_current_context())

    async def work(client: "Client") -> None:
        from comity.model import EventType, Resync

        output = Output(as_json=options.json)
        stream = client.watch(
            prefix or "",
            key=key,
            from_revision=from_revision or 0,
            epoch=epoch or "",
            types=None if kind is None else [EventType[kind.upper()]],
            previous=previous,
            on_connection=_say_connection,
        )
        with _broken_pipe_noticed():
            async with stream:
                await stream.ready()
                async for change in stream:
                    if isinstance(change, Resync):
                        _show_resync(output, change)
                    elif output.json:
                        output.object(shapes.event(change))
                    else:
                        output.fields(_event(change, terminal=output.terminal, previous=previous))
                    output.flush()

    run(options, work, interrupted=0)


def _say_connection(lost: "ComityError | None") -> None:
    print("comity: connected again" if lost is None else "comity: lost the connection, trying again", file=sys.stderr)


def _event(event: "model.Event", *, terminal: bool, previous: bool) -> list[Field]:
    from comity.model import EventCause

    kind = "expire" if event.cause is EventCause.LEASE_EXPIRY else event.type.name.lower()
    fields = [
        (str(event.revision), "yellow"),
        (kind, STYLES[kind]),
        (event.key, "bold"),
        ("" if event.is_delete else inline(event.entry), ""),
    ]
    if previous:
        before = "" if event.previous is None else inline(event.previous)
        fields.append((f"was {before}" if terminal and before else before, "dim"))
    if terminal:
        fields += [(event.author, "cyan"), (event.message, "italic"), (f"{event.time.astimezone():%H:%M:%S}", "dim")]
    return fields


def _show_resync(output: Output, resync: "model.Resync") -> None:
    if output.json:
        output.object(shapes.resync(resync))
        return
    revision = (str(resync.revision), "yellow")
    output.fields([revision, ("resync", "magenta"), (counted(len(resync.entries), "entry", "entries"), "")])
    for entry in resync.entries:
        output.fields([revision, ("entry", "magenta"), (entry.key, "bold"), (inline(entry), "")])


@contextlib.contextmanager
def _broken_pipe_noticed() -> Iterator[None]:
    """Raises BrokenPipeError once nobody reads standard output any more, though nothing is written: a quiet watch
    would wait for its next event else, as in `comity watch KEY | head -1`."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    output = sys.stdout.fileno()
    closed = False

    def notice() -> None:
        nonlocal closed
        closed = True
        loop.remove_reader(output)
        assert task is not None
        task.cancel()

    watched = os.name == "posix" and stat.S_ISFIFO(os.fstat(output).st_mode)
    if watched:
        loop.add_reader(output, notice)
    try:
        yield
    except asyncio.CancelledError:
        if closed:
            raise BrokenPipeError from None
        raise
    finally:
        if watched:
            loop.remove_reader(output)
