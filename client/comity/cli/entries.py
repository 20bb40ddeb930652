"""`comity get`, `put`, `delete`, `list`: the entries of a namespace."""

import contextlib
import re
import sys
from typing import TYPE_CHECKING

import click

from . import shapes
from .failures import Failure
from .options import (
    COUNT,
    LEASE,
    NUMBER,
    REVISION,
    SECONDS,
    TEXT,
    Options,
    client_options,
    examples,
    guard_of,
    guard_option,
    one_target,
    write_options,
)
from .render import Output, counted, escape_lines
from .session import run
from .values import argument_bytes, inline, parse, pretty

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.request_ids import RequestId

__all__ = ["delete", "get", "list_", "put"]

NEGATIVE = re.compile(r"-\d[\d.eE+-]*")
PAGE = 1000  # the most that a server answers with at a time, unless it is set up otherwise


@click.command(
    short_help="Print the value of a key.",
    epilog=examples(
        "comity get plan",
        "comity get plan --revision 12",
        "comity get plan --json | jq .value.step",
        "comity get photo > photo.jpg",
    ),
)
@click.argument("key", type=TEXT)
@click.option("--revision", type=REVISION, metavar="N", help="Read the state at this revision.  [newest]")
@client_options
def get(options: Options, key: str, revision: int | None) -> None:
    """Print the value of KEY; exit with 4 if it is absent.

    Text and JSON end with a line break, other bytes are written as they are. With --json: the entry.
    """

    async def work(client: "Client") -> None:
        entry = await client.get(key, revision=revision or 0)
        if entry is None:
            raise absent(key)
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.entry(entry))
        else:
            show_value(output, entry)

    run(options, work)


def absent(key: str) -> Failure:
    return Failure(f"the key {key!r} does not exist", "NOT_FOUND", reason="KEY_NOT_FOUND", metadata={"key": key})


def show_value(output: Output, entry: "model.Entry") -> None:
    from comity.codec import is_json

    readable = is_json(entry.content_type) or entry.content_type.startswith("text/")
    if not output.terminal:
        ends = not readable or entry.data.endswith(b"\n")
        output.raw(entry.data if ends else entry.data + b"\n")
        return
    text = entry.data.decode(errors="backslashreplace")
    if is_json(entry.content_type):
        with contextlib.suppress(ValueError):  # what is no JSON is shown as it is
            text = pretty(text)
    output.console.print(escape_lines(text.removesuffix("\n")), highlight=is_json(entry.content_type))


class _PutCommand(click.Command):
    """Takes a negative number for an argument: `comity put temperature -5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takers = [param for param in self.params if isinstance(param, click.Option) and not param.is_flag]
        taking = {name for option in takers for name in option.opts}
        options: list[str] = []
        others: list[str] = []
        left = iter(args)
        for text in left:
            if text == "--":
                others += left
            elif text in taking:
                value = next(left, None)
                if value is None:  # click says what is wrong with it
                    return super().parse_args(ctx, args)
                options += [text, value]
            elif text.startswith("-") and text != "-" and NEGATIVE.fullmatch(text) is None:
                options.append(text)
            else:
                others.append(text)
        return super().parse_args(ctx, [*options, "--", *others])


@click.command(
    cls=_PutCommand,
    short_help="Write a key.",
    epilog=examples(
        """comity put plan '{"step": 1}'""",
        "comity put greeting hello --message 'be polite'",
        "comity put report - < report.json",
        "comity put photo - --content-type image/jpeg < photo.jpg",
        "comity put leader agent-7 --if-version 0",
        "comity put agents/a busy --ttl 10",
        "comity put plan '{}' --request-id job-42",
    ),
)
@click.argument("key", type=TEXT)
@click.argument("value")
@click.option("--bytes", "as_bytes", is_flag=True, help="Store VALUE as bytes (application/octet-stream).")
@click.option("--content-type", type=TEXT, metavar="TYPE", help="Store VALUE as it is, with this media type.")
@click.option("--if-version", type=NUMBER, metavar="N", help="Only if KEY has this version; 0: only if it is absent.")
@click.option("--if-revision", type=NUMBER, metavar="N", help="Only if KEY was last written by this revision.")
@click.option("--lease", type=LEASE, metavar="ID", help="KEY lives by this lease: it is deleted when that ends.")
@click.option("--ttl", type=SECONDS, metavar="SECONDS", help="KEY lives so long unless it is written again.")
@guard_option
@write_options
@client_options
def put(
    options: Options,
    key: str,
    value: str,
    as_bytes: bool,
    content_type: str | None,
    if_version: int | None,
    if_revision: int | None,
    lease: int | None,
    ttl: float | None,
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Write VALUE to KEY; exit with 3 if a condition does not hold.

    VALUE is read from standard input if it is "-". It is stored as JSON if it parses as such, else as text, or where it
    is not UTF-8 as bytes. With --ttl the key has a lease of its own, whose id is printed.
    """
    if lease is not None and ttl is not None:
        raise click.UsageError("Give either --lease or --ttl", click.get_current_context())
    data = sys.stdin.buffer.read() if value == "-" else argument_bytes(value)

    async def work(client: "Client") -> None:
        stored, stored_type = parse(data, as_bytes=as_bytes, content_type=content_type)
        done = await client.put(
            key,
            stored,
            content_type=stored_type,
            if_version=if_version,
            if_revision=if_revision,
            lease=lease,
            ttl=ttl,
            guard=guard_of(guard),
            message=message,
            request_id=request_id,
        )
        output = Output(as_json=options.json)
        if output.json:
            named = {} if ttl is None else {"lease_id": done.lease_id}
            output.object({"revision": done.revision, "version": done.version, **named})
        else:
            named_lease = "" if ttl is None else f", lease {done.lease_id}"
            output.line(f"put {key}: version {done.version}, revision {done.revision}{named_lease}")

    run(options, work)


@click.command(
    short_help="Delete a key, or all under a prefix.",
    epilog=examples(
        "comity delete plan",
        "comity delete plan --if-version 3",
        "comity delete --prefix drafts/",
        "comity delete --prefix drafts/ --if-revision 41",
    ),
)
@click.argument("key", required=False, type=TEXT)
@click.option("--prefix", type=TEXT, metavar="PREFIX", help="All keys that begin with this; '' is every key.")
@click.option("--if-version", type=NUMBER, metavar="N", help="Only if KEY has this version.")
@click.option(
    "--if-revision",
    type=NUMBER,
    metavar="N",
    help="Only if KEY was last written by this revision, or nothing under PREFIX changed after it.",
)
@guard_option
@write_options
@client_options
def delete(
    options: Options,
    key: str | None,
    prefix: str | None,
    if_version: int | None,
    if_revision: int | None,
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Delete KEY, or every key under a prefix.

    Exits with 4 if KEY is absent, and with 3 if a condition does not hold. A prefix under which there is nothing is
    no failure.
    """
    one_target(key, prefix)
    if prefix is not None and if_version is not None:
        raise click.UsageError("--if-version goes with a KEY, not with --prefix", click.get_current_context())

    async def work(client: "Client") -> None:
        done = await client.delete(
            key,
            prefix=prefix,
            if_version=if_version,
            if_revision=if_revision,
            guard=guard_of(guard),
            message=message,
            request_id=request_id,
        )
        if key is not None and not done.deleted:
            raise absent(key)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"revision": done.revision, "deleted": done.deleted})
        else:
            what = key if key is not None else counted(done.deleted, "key")
            output.line(f"deleted {what}, revision {done.revision}")

    run(options, work)


@click.command(
    "list",
    short_help="Print the entries under a prefix.",
    epilog=examples(
        "comity list",
        "comity list agents/ --keys-only",
        "comity list agents/ --revision 12 --limit 10",
        "comity list --json | jq -r .key",
    ),
)
@click.argument("prefix", default="", type=TEXT)
@click.option("--revision", type=REVISION, metavar="N", help="Read the state at this revision.  [newest]")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--limit", type=COUNT, metavar="N", help="The most entries to print.")
@client_options
def list_(options: Options, prefix: str, revision: int | None, keys_only: bool, limit: int | None) -> None:
    """Print the entries whose keys begin with PREFIX, in the order of their keys, all as one revision has them.

    A line each: the key and the value, with a tab between; with --keys-only the key. Control characters are escaped.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        left = limit
        listing = client.list(prefix, revision=revision or 0, keys_only=keys_only, page_size=min(limit or PAGE, PAGE))
        async for page in listing.pages():
            shown = page[:left]
            show_entries(output, shown, keys_only=keys_only)
            if left is not None:
                left -= len(shown)
                if left == 0:
                    return

    run(options, work)


def show_entries(output: Output, entries: "tuple[model.Entry, ...]", *, keys_only: bool = False) -> None:
    if output.json:
        for entry in entries:
            output.object(shapes.entry(entry, keys_only=keys_only))
    elif not output.terminal:
        for entry in entries:
            output.fields([(entry.key, ""), *([] if keys_only else [(inline(entry), "")])])
    elif entries:
        header = ["key", "version", "revision", "updated", *([] if keys_only else ["value"])]
        rows = (
            [
                entry.key,
                str(entry.version),
                str(entry.mod_revision),
                f"{entry.update_time.astimezone():%Y-%m-%d %H:%M}",
                *([] if keys_only else [inline(entry)]),
            ]
            for entry in entries
        )
        output.table(header, rows, numbers=["version", "revision"])
    output.flush()
