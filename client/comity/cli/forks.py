"""`comity fork` and `comity merge`: branching a namespace, and bringing the branch back."""

from typing import TYPE_CHECKING

import click

from . import shapes
from .failures import CONFLICT
from .options import REF, TEXT, Options, client_options, examples, guard_of, guard_option, write_options
from .render import Output, counted
from .session import run
from .values import inline

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.request_ids import RequestId

__all__ = ["fork", "merge"]

STRATEGIES = ["fail", "ours", "theirs"]


@click.command(
    short_help="Branch the namespace.",
    epilog=examples(
        "comity fork idea-1",
        "comity fork idea-2 --from before-refactor --message 'what if'",
        "comity put plan '{}' --namespace idea-2",
    ),
)
@click.argument("new", type=TEXT)
@click.option("--from", "ref", type=REF, metavar="REF", help="The revision or checkpoint at which to fork.  [newest]")
@write_options
@client_options
def fork(options: Options, new: str, ref: str | int | None, message: str, request_id: "RequestId | None") -> None:
    """Make a namespace NEW that starts as this one (--namespace) is; exit with 3 if the name is taken.

    What is written to one of them is not seen in the other. `comity merge` brings the changes back, and
    `comity namespaces --delete` does away with a fork.
    """

    async def work(client: "Client") -> None:
        made = await client.fork(new, ref, message=message, request_id=request_id)
        found = await made.namespace_info()
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.namespace(found))
        else:
            output.line(f"fork {found.name}: of {found.parent} at revision {found.fork_revision}")

    run(options, work)


@click.command(
    short_help="Bring the changes of a fork back.",
    epilog=examples(
        "comity merge idea-1 --dry-run",
        "comity merge idea-1 --message 'the best of three'",
        "comity merge idea-1 --strategy theirs",
    ),
)
@click.argument("fork", type=TEXT)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="fail",
    show_default=True,
    help="Of keys that both sides changed: merge nothing, keep ours, or take theirs (the fork's).",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and print what would happen.")
@guard_option
@write_options
@client_options
def merge(
    options: Options,
    fork: str,
    strategy: str,
    dry_run: bool,
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Bring what FORK changed since it was made into the namespace (--namespace) that it was forked from.

    Keys that both sides changed to different ends are conflicts: each is printed with its entry when it was forked
    (base), here (ours) and in the fork (theirs), and unless a strategy says otherwise nothing is merged, and the exit
    code is 3.
    """

    async def work(client: "Client") -> int:
        from comity.model import MergeStrategy

        done = await client.merge(
            fork,
            strategy=MergeStrategy(strategy),
            dry_run=dry_run,
            guard=guard_of(guard),
            message=message,
            request_id=request_id,
        )
        stuck = done.conflict_count > 0 and strategy == "fail"
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.merged(done))
        else:
            for conflict in done.conflicts:
                _show(output, conflict)
            if len(done.conflicts) < done.conflict_count:
                output.line(f"... and {done.conflict_count - len(done.conflicts)} more conflicts")
            output.line(_summary(done, f"{fork} into {options.namespace}", strategy, dry_run=dry_run, stuck=stuck))
        return CONFLICT if stuck else 0

    run(options, work)


def _summary(done: "model.MergeResult", what: str, strategy: str, *, dry_run: bool, stuck: bool) -> str:
    conflicts = counted(done.conflict_count, "conflict")
    if stuck:
        return f"{'would not merge' if dry_run else 'not merged'} {what}: {conflicts}"
    settled = f"{conflicts} settled by {strategy}, " if done.conflict_count else ""
    changes = f"{what}: {settled}{done.put} put, {done.deleted} deleted"
    return f"would merge {changes}" if dry_run else f"merged {changes}, revision {done.revision}"


def _show(output: Output, conflict: "model.MergeConflict") -> None:
    output.fields([("conflict", "red"), (conflict.key, "bold")])
    for name, entry in (("base", conflict.base), ("ours", conflict.ours), ("theirs", conflict.theirs)):
        if entry is None:
            output.fields([(f"  {name}", "dim"), ("absent", "dim")])
        else:
            value = "(left out for its size)" if conflict.values_omitted else inline(entry)
            output.fields([(f"  {name}", "dim"), (f"revision {entry.mod_revision}", "yellow"), (value, "")])
