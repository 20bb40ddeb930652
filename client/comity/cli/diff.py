"""`comity diff`: what changed between two revisions."""

from typing import TYPE_CHECKING

import click

from . import shapes
from .comparison import KIND_STYLES, compare, kind
from .options import REF, TEXT, Options, client_options, examples
from .render import Output
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client

__all__ = ["diff", "show_kind"]


@click.command(
    short_help="Compare two revisions.",
    epilog=examples(
        "comity diff before-refactor",
        "comity diff 12 14 --prefix agents/",
        "comity diff before-refactor --keys-only",
        "comity diff 12 --json | jq -c '[.key, .before.value, .after.value]'",
    ),
)
@click.argument("base", metavar="REF", type=REF)
@click.argument("target", metavar="[REF]", required=False, type=REF)
@click.option("--prefix", type=TEXT, default="", metavar="PREFIX", help="Only keys that begin with this.")
@click.option("--keys-only", is_flag=True, help="Leave the values out: a line a key.")
@client_options
def diff(options: Options, base: str | int, target: str | int | None, prefix: str, keys_only: bool) -> None:
    """Print how the keys differ between two revisions, the second of which is now unless it is named.

    REF is a revision or the name of a checkpoint. JSON is compared as it is laid out for people, text by its lines; of
    other values the sizes are shown. Control characters are escaped. With --json: a line a key, with its entry "before"
    and "after"; one that is left out was absent.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        begun = False
        async for difference in client.diff(base, target, prefix, keys_only=keys_only):
            if output.json:
                output.object(shapes.difference(difference, keys_only=keys_only))
            elif keys_only:
                show_kind(output, difference)
            else:
                if begun:
                    output.text("")
                for text, style in compare(difference):
                    output.text(text, style)
                begun = True

    run(options, work)


def show_kind(output: Output, difference: "model.Difference") -> None:
    """A line without the values: what became of the key."""
    what = kind(difference)
    output.fields([(what, KIND_STYLES[what]), (difference.key, "bold")])
