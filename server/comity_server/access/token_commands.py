"""`comity token new` and `comity token hash`: what is written into a token file."""

import codecs
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from comity_server.access.files import FileError, read
from comity_server.access.tokens import MOST_CHARACTERS, line_of, new_token, parse, time_of

EXAMPLES = """\b
Examples:
  comity token new planner --file tokens
  comity token new dashboard --file tokens --expires 90d
  comity token hash planner <token.txt >>tokens
  comity serve --tokens tokens"""
AGE = re.compile(r"(\d{1,6})([dhms])")
UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


@click.group("token", short_help="Make bearer tokens.", epilog=EXAMPLES)
def command() -> None:
    """Make bearer tokens, and lines of the file of `comity serve --tokens`, which holds their SHA-256 alone."""


_expires = click.option(
    "--expires", metavar="TIME", help="When it ends: as 2027-01-31T00:00:00Z, or from now on as 90d, 12h, 30m, 45s."
)


@command.command("new", short_help="Make a token.")
@click.argument("name")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The token file to append its line to, made if there is none. Without it the line goes to standard error.",
)
@_expires
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the token and its line.")
def new(name: str, file: Path | None, expires: str | None, as_json: bool) -> None:
    """Make a token for the principal NAME, and write it to standard output. Nobody can tell it again.

    A principal may have several tokens. A server that runs knows a new one within about a second.
    """
    token = new_token()
    line = _line(name, token, expires)
    if file is not None:
        _append(file, line)
    if as_json:
        click.echo(json.dumps({"name": name, "token": token, "line": line}, ensure_ascii=False))
        return
    if file is None:
        click.echo(line, err=True)
    click.echo(token)


@command.command("hash", short_help="Make the line of a token.")
@click.argument("name")
@_expires
def hash_(name: str, expires: str | None) -> None:
    """Read a token from standard input, and write the line by which it is NAME's.

    It must be one that a program made from at least 128 random bits: a word that somebody thought of can be found by
    its SHA-256.
    """
    data = sys.stdin.buffer.read(MOST_CHARACTERS + len(codecs.BOM_UTF8) + 3)
    token = data.decode("utf-8-sig", errors="replace").removesuffix("\n").removesuffix("\r")
    click.echo(_line(name, token, expires))


def _line(name: str, token: str, expires: str | None) -> str:
    try:
        return line_of(name, token, None if expires is None else _time(expires))
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


def _time(text: str) -> datetime:
    """When a token ends. Raises ValueError."""
    now = datetime.now(UTC)
    match = AGE.fullmatch(text)
    try:
        when = now + timedelta(**{UNITS[match[2]]: int(match[1])}) if match else time_of(text)
    except OverflowError:
        raise ValueError(f"--expires: {text!r} is too far away") from None
    except ValueError as error:
        raise ValueError(f"--expires: {error}") from None
    if when <= now:
        raise ValueError(f"--expires: {text!r} is not in the future")
    return when


def _append(file: Path, line: str) -> None:
    """Append a line to a token file, in one write, if the file is in order with it."""
    try:
        content = read(file) if file.exists() else b""
        added = (b"" if not content or content.endswith(b"\n") else b"\n") + line.encode() + b"\n"
        parse(content + added, file)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "wb", buffering=0) as opened:  # noqa: PTH123 - of a descriptor
            opened.write(added)
    except FileError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
