"""Runs the asynchronous part of a command with a client, and turns what may go wrong into an exit code."""

import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from .failures import INTERRUPTED, failure
from .options import Options

if TYPE_CHECKING:
    from comity.client import Client

__all__ = ["run"]


def run(
    options: Options, work: Callable[["Client"], Coroutine[Any, Any, int | None]], *, interrupted: int = INTERRUPTED
) -> None:
    """Run `work` to its end, and exit with what it returns. `interrupted`: the exit code after Ctrl-C."""
    import asyncio

    from comity.connecting import connect_by
    from comity.errors import ComityError

    try:
        client = connect_by(
            options.access(), namespace=options.namespace, author=options.author, timeout=options.timeout
        )
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error

    async def session() -> int:
        async with client:
            code = await work(client)
        sys.stdout.flush()
        return code or 0

    try:
        code = asyncio.run(session())
    except ComityError as error:
        sys.stdout.flush()
        raise failure(error) from error
    except BrokenPipeError:
        # Whoever read has enough. What Python still wants to write at its exit goes nowhere, without a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = interrupted
    raise click.exceptions.Exit(code)
