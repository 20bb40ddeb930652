"""What commands write to standard output: JSON lines, plain text for pipes, or colours and tables for a terminal."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Field", "Output", "counted", "escape", "escape_lines", "plain_json"]

# Control characters of ASCII and Latin-1, line separators, what turns the direction of writing, and lone surrogates.
UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
ONE_LINE = re.compile(f"[{UNSAFE}]")
LINES = re.compile(f"(?![\t\n])[{UNSAFE}]")
IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Of a table that is too wide: the share of the width that a column may have, the least that the last one has. And of
# any: the space around a column.
SHARE, NARROW, PADDING = 0.3, 10, 3

Field = tuple[str, str]  # a text, and the style in which a terminal shows it


def escape(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    return ONE_LINE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def escape_lines(text: str) -> str:
    """The same, with its line breaks and tabs."""
    return LINES.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def plain_json(text: str) -> str:
    """The same JSON, with what a terminal might obey as escapes of JSON. (It may only be within strings.)"""
    return IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """So many of something: "1 key", "2 keys". The plural is with an s unless given."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


class Output:
    """Standard output, in one of three ways: `json`, `terminal`, or neither of them for plain text."""

    def __init__(self, *, as_json: bool) -> None:
        self.json = as_json
        self.terminal = not as_json and sys.stdout.isatty()

    @cached_property
    def console(self) -> "Console":
        """What colours and tables are written to. Only on a terminal, so that others need not wait for the import."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def raw(self, data: bytes) -> None:
        """Bytes, as they are."""
        sys.stdout.buffer.write(data)

    def line(self, text: str) -> None:
        """One line of text."""
        self.raw(escape(text).encode() + b"\n")

    def text(self, text: str, style: str = "") -> None:
        """Text with its line breaks and tabs, on a terminal in a style."""
        safe = escape_lines(text)
        if not self.terminal:
            self.raw(safe.encode() + b"\n")
            return
        from rich.text import Text

        self.console.print(Text(safe, style))

    def object(self, message: Mapping[str, Any]) -> None:
        """One JSON object on a line."""
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self.raw(plain_json(text).encode() + b"\n")

    def fields(self, fields: Sequence[Field]) -> None:
        """One line of fields: tabs between them, or on a terminal colours, and empty ones left out."""
        if not self.terminal:
            self.raw("\t".join(escape(text) for text, _ in fields).encode() + b"\n")
            return
        from rich.text import Text

        parts = [Text(escape(text), style) for text, style in fields if text]
        self.console.print(Text("  ").join(parts))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
        """Rows: tabs between the fields, or on a terminal a table. `numbers`: the columns that stand to the right."""
        if not self.terminal:
            for row in rows:
                self.fields([(text, "") for text in row])
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        cells = [[Text(escape(text)) for text in row] for row in rows]
        widths = [max(len(name), *(line[place].cell_len for line in cells)) for place, name in enumerate(header)]
        # Left to itself, rich would squeeze all columns for one long value.
        room = self.console.width - PADDING * len(header)
        if sum(widths) > room:
            widths = [min(width, int(SHARE * self.console.width)) for width in widths[:-1]] + widths[-1:]
            widths[-1] = min(widths[-1], max(NARROW, room - sum(widths[:-1])))
        for name, width in zip(header, widths, strict=True):
            justify: Literal["left", "right"] = "right" if name in numbers else "left"
            table.add_column(name, justify=justify, width=width, no_wrap=True, overflow="ellipsis")
        for line in cells:
            table.add_row(*line)
        self.console.print(table, soft_wrap=False)

    def properties(self, properties: Mapping[str, str]) -> None:
        """Names and what they are, a line each."""
        width = max(map(len, properties)) + 1 if self.terminal else 0
        for name, text in properties.items():
            if self.terminal:
                self.fields([(f"{name}:".ljust(width), "bold"), (text, "")])
            else:
                self.line(f"{name}: {text}")

    def flush(self) -> None:
        """Hand what was written to whoever reads it. Raises BrokenPipeError if nobody does any more."""
        sys.stdout.flush()
