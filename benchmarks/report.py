"""What a benchmark found: tables for people, and the same figures as JSON.

A cell is a plain number in the unit of its column (seconds, bytes, a ratio, calls a second), so that the JSON can be
compared from run to run; the table shows it in the unit that reads best.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import rich.table
from rich.console import Console

Unit = Literal["", "s", "bytes", "ratio", "per second", "count"]
Cell = str | float | None  # None: was not measured


class Column(NamedTuple):
    name: str
    unit: Unit = ""


@dataclass
class Table:
    """Figures of one kind, one row for each thing that was measured. Columns have names of their own."""

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len({column.name for column in self.columns}) < len(self.columns):
            raise ValueError(f"two columns of {self.title!r} have one name")

    def add(self, *cells: Cell) -> None:
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)

    def as_json(self) -> dict[str, Any]:
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "columns": [column._asdict() for column in self.columns],
            "rows": [dict(zip(names, row, strict=True)) for row in self.rows],
        }


@dataclass
class Report:
    """All that one benchmark has to say. Notes are sentences: what was left out, and what to bear in mind."""

    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, *columns: Column | str) -> Table:
        """Begin a table. A column that is only a name holds text."""
        table = Table(title, [Column(column) if isinstance(column, str) else column for column in columns])
        self.tables.append(table)
        return table

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def as_json(self) -> dict[str, Any]:
        return {"tables": [table.as_json() for table in self.tables], "notes": self.notes}


def show(console: Console, report: Report) -> None:
    for table in report.tables:
        shown = rich.table.Table(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column.name, justify="right" if column.unit else "left")
        for row in table.rows:
            shown.add_row(*(text(cell, column.unit) for cell, column in zip(row, table.columns, strict=True)))
        console.print(shown)
    for note in report.notes:
        console.print(f"  {note}", highlight=False)


def text(cell: Cell, unit: Unit) -> str:
    """A cell as the table shows it."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    match unit:
        case "s":
            return _scaled(cell, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))
        case "bytes":
            return _scaled(cell, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))
        case "ratio":
            return f"{cell:.2f}"
        case "per second":
            return f"{cell:,.0f}/s"
        case _:
            return f"{cell:,}"


def ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _scaled(number: float, scales: Sequence[tuple[float, str]]) -> str:
    """In the largest unit of which there is one, or in the last."""
    scale, name = next((each for each in scales if abs(number) >= each[0]), scales[-1])
    return f"{number / scale:.3g} {name}"
