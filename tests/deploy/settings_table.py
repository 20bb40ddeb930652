"""The table of all settings in docs/server.md. `python -m tests.deploy.settings_table` (`make docs`) writes it anew."""

import re
from collections.abc import Iterator
from typing import Final, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from comity_server.settings import Settings
from tests.deploy.deployed import ROOT

PAGE: Final = ROOT / "docs" / "server.md"
HEAD: Final = "| setting | default | values | |\n|---|---|---|---|\n"
TABLE: Final = re.compile(re.escape(HEAD) + r"(\|.*\n)*")
UNITS: Final = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}


def table() -> str:
    """As the page is to have it."""
    return HEAD + "".join(row(name, field) for name, field in Settings.model_fields.items())


def row(name: str, field: FieldInfo) -> str:
    assert field.description is not None
    default = "the user's own file" if name == "store" else _shown(name, field.get_default(call_default_factory=True))
    return f"| `{name}` | {default} | {_bounds(name, field)} | {field.description} |\n"


def _bounds(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(field.annotation))
    least = next((f"{_shown(name, each.ge)}" for each in field.metadata if isinstance(each, Ge)), None)
    most = next((f"{_shown(name, each.le)}" for each in field.metadata if isinstance(each, Le)), None)
    if most is None:
        return "" if least is None else f"from {least}"
    return f"{least} to {most}"


def _shown(name: str, value: object) -> str:
    """A value as people read it: sizes in their units, no zeros behind the point."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return " ".join(map(str, value))
        case int() | float() if value and name.endswith("_bytes"):
            return next((text for unit, sign in UNITS.items() if (text := _in(unit, sign, value))), f"{value:,}")
        case int() | float():
            return f"{int(value):,}" if value == int(value) else f"{value:g}"
        case _:
            return str(value)


def _in(unit: int, sign: str, value: float) -> str:
    """A size in that unit, if that is a short number."""
    return f"{value / unit:g} {sign}" if unit <= value < 1024 * unit and 2 * value % unit == 0 else ""


def found() -> Iterator[str]:
    """The tables that the page has."""
    for each in TABLE.finditer(PAGE.read_text()):
        yield each[0]


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(), count=1))
