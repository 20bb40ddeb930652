"""The commands together, and how the process ends."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from .bench import bench
from .checkpoints import checkpoint, checkpoints, restore
from .diff import diff
from .entries import delete, get, list_, put
from .failures import INTERRUPTED, Failure, report
from .forks import fork, merge
from .history import blame, log
from .leases import lease
from .lock import lock
from .namespaces import compact, namespaces, status
from .needs import NEEDS
from .options import examples
from .server import backup, check, copy, health, policy, serve, token
from .top import top
from .transact import transact
from .watch import watch

__all__ = ["run"]


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from comity import __version__

        click.echo(f"comity {__version__}")
        ctx.exit()


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "comity serve &",
        """comity put plan '{"step": 1}'""",
        "comity get plan",
        "comity watch --prefix '' --from 1",
    ),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def app(ctx: click.Context) -> None:
    """Shared state for agents: reads, writes, transactions, watches, history, checkpoints, forks.

    Exit codes: 0 done, 1 other failure, 2 usage, 3 conflict, failed condition or lost lease, 4 not found, 5 unavailable
    or out of time.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (
    *(get, put, delete, list_, watch, transact),
    *(log, diff, blame, checkpoint, checkpoints, restore, fork, merge),
    *(lease, lock),
    *(status, namespaces, compact, top),
    *(serve, health, token, policy, backup, check, copy, bench),
):
    app.add_command(_command)


def run() -> int:
    """Run the command that the arguments of the process name, and return its exit code. What goes wrong is one line on
    standard error; with COMITY_DEBUG=1 the traceback stands before it."""
    if sys.stdout is None:  # the shell closed it, as `>&-` does
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
    try:
        code: Any = app.main(prog_name="comity", standalone_mode=False)
    except click.ClickException as error:
        return _report(error)
    except click.Abort as error:
        return INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1
    except ModuleNotFoundError as error:
        return _report(Failure(f"{NEEDS} ({error})"))
    except OSError as error:
        return _report(Failure(str(error)))
    except Exception as error:  # noqa: BLE001 - whatever it is: no traceback for users, unless they ask
        return _report(Failure(f"a defect of this command: {type(error).__name__}: {error}"))
    return code if isinstance(code, int) else 0


def _report(error: click.ClickException) -> int:
    if os.environ.get("COMITY_DEBUG") == "1":
        traceback.print_exc()
    arguments = sys.argv[1:]
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    return report(error, as_json="--json" in arguments)
