"""Draws what was found: a bar for each row of a table, on a scale of powers of ten where the rows are far apart."""

from pathlib import Path
from typing import Any

import pygal  # type: ignore[import-untyped]
from pygal.style import CleanStyle  # type: ignore[import-untyped]

from benchmarks.report import Report, Table, text

FAR_APART = 30  # times


def draw(report: Report, file: Path, name: str) -> list[Path]:
    """Write a picture of each table beside the file of the figures, and return their names."""
    made = []
    for number, table in enumerate(report.tables, 1):
        path = file.with_name(f"{file.stem}-{name}-{number}.svg")
        chart = _chart(table)
        if chart is not None:
            path.write_bytes(chart.render())
            made.append(path)
    return made


def _chart(table: Table) -> Any:
    """Of the first column of figures that has one in any row."""
    for place, column in enumerate(table.columns):
        cells = [(row, row[place]) for row in table.rows]
        found = [(row, cell) for row, cell in cells if isinstance(cell, int | float) and cell > 0]
        if column.unit in ("per second", "s", "bytes", "ratio") and found:
            break
    else:
        return None
    numbers = [cell for _, cell in found]
    chart: Any = pygal.HorizontalBar(
        title=f"{table.title}: {column.name}",
        style=CleanStyle(title_font_size=12),
        show_legend=True,
        legend_at_bottom=True,
        legend_at_bottom_columns=1,
        logarithmic=max(numbers) > FAR_APART * min(numbers),
        print_values=True,
        height=200 + 40 * len(found),
    )
    for row, cell in found:
        label = ", ".join(
            text(each, of.unit)
            for each, of in zip(row, table.columns, strict=True)
            if of.unit in ("", "count") and each is not None
        )
        chart.add(label, [{"value": cell, "label": label}], formatter=lambda value: text(value, column.unit))
    return chart
