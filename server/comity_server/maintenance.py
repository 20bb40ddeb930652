"""`comity backup` and `comity check`: what is done with the file of a store, beside a server or without one."""

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from comity_server.errors import StateError
from comity_server.settings import PREFIX
from comity_server.stores.sqlite.backup import backup as make_backup
from comity_server.stores.sqlite.check import Report
from comity_server.stores.sqlite.check import check as check_file
from comity_server.stores.url import default_url, sqlite_path
from comity_server.words import counted, plain

BACKUP_EXAMPLES = """\b
Examples:
  comity backup /backups/monday.db
  comity backup copy.db --store sqlite:/var/lib/comity/comity.db
  comity serve --store sqlite:/backups/monday.db"""
CHECK_EXAMPLES = """\b
Examples:
  comity check
  comity check /backups/monday.db --json | jq .problems"""

_store = click.option(
    "--store",
    metavar="URL",
    envvar=PREFIX + "STORE",
    show_envvar=True,
    help="The store: sqlite:PATH.  [default: the user's own]",
)


class NotFound(click.ClickException):
    """There is no such file."""

    exit_code = 4


@click.command(
    "backup",
    short_help="Copy the file of a store, also while a server uses it.",
    epilog=BACKUP_EXAMPLES,
)
@click.argument("dest", type=click.Path(path_type=Path))
@_store
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backup(dest: Path, store: str | None, force: bool, as_json: bool) -> None:
    """Copy the file of a store to DEST, as it is at one moment. A server may be using it, and is not held up.

    The copy is a store like any other. Watches that go on against it are told that its history is another one.
    """
    source = _file(store)
    try:
        make_backup(source, dest, overwrite=force)
    except FileExistsError as error:
        raise click.ClickException(f"{error}: name another file, or overwrite it with --force") from None
    except FileNotFoundError as error:
        raise NotFound(str(error)) from None
    except (StateError, OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise click.ClickException(f"the backup failed: {error}") from None
    said = {"store": str(source), "backup": str(dest), "bytes": dest.stat().st_size}
    click.echo(_json(said) if as_json else f"{dest}: {said['bytes']} bytes")


@click.command(
    "check",
    short_help="Verify the file of a store.",
    epilog=CHECK_EXAMPLES,
)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@_store
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(path: Path | None, store: str | None, as_json: bool) -> None:
    """Verify the file of a store: that all of it can be read, and fits together. A server may be using it.

    Exits with 0 if it is sound, with 1 and a line for each problem if it is not.
    """
    file = path if path is not None else _file(store)
    try:
        report = check_file(file)
    except FileNotFoundError as error:
        raise NotFound(str(error)) from None
    except (StateError, OSError, sqlite3.Error) as error:
        raise click.ClickException(f"{file}: {error}") from None
    if as_json:
        click.echo(_json({"file": str(file), **asdict(report)}))
    else:
        click.echo("\n".join(_lines(file, report)))
    if report.problems:
        raise click.exceptions.Exit(1)


def _json(said: dict[str, Any]) -> str:
    return json.dumps(said, separators=(",", ":"))


def _lines(file: Path, report: Report) -> list[str]:
    if report.problems:
        return [plain(f"{file}: {problem}") for problem in report.problems]
    return [
        f"{file}: sound. {counted(report.namespaces, 'namespace')}, {counted(report.keys, 'key')}, "
        f"{counted(report.commits, 'commit')}, {counted(report.checkpoints, 'checkpoint')}"
    ]


def _file(store: str | None) -> Path:
    try:
        return sqlite_path(store or default_url())
    except ValueError as error:
        raise click.UsageError(f"--store: {error}", click.get_current_context()) from None
