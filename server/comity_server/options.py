"""The settings as options of a command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from comity_server.settings import PREFIX, Settings

Function = Callable[..., Any]

EPILOG = f"""\b
Each option is also a variable, as {PREFIX}DRAIN_TIMEOUT (of --listen with commas),
and a key of the file of --config, as drain_timeout. An option wins over a
variable, and a variable over the file."""
METAVARS: dict[object, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", str | None: "TEXT", Path | None: "FILE"}


def settings_options(function: Function) -> Function:
    """Give a command's function an option for each setting, and --config."""
    for name, field in reversed(Settings.model_fields.items()):
        function = _option(name, field)(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar=PREFIX + "CONFIG",
        show_envvar=True,
        help="A TOML file of settings.",
    )(function)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were on the command line. `Settings` knows the defaults, and checks what was given."""
    return {name: value for name, value in values.items() if value not in (None, ())}


def _option(name: str, field: FieldInfo) -> Callable[[Function], Function]:
    flag = "--" + name.replace("_", "-")
    kind = field.annotation
    default = field.get_default(call_default_factory=True)
    about: dict[str, Any] = {"metavar": METAVARS.get(kind, "TEXT")}
    if kind in (bool, bool | None):
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
        default = None if default is None else "on" if default else "off"
        about = {}
    elif get_origin(kind) is list:
        default = ", ".join(default) or "none"
        about = {"metavar": "HOST:PORT", "multiple": True}
    elif get_origin(kind) is Literal:
        about = {"type": click.Choice(get_args(kind))}
    help_text = field.description if default in (None, "") else f"{field.description}  [default: {default}]"
    return click.option(flag, name, default=None, help=help_text, **about)
