"""Every benchmark runs in its short form and says what it found in one shape. No time decides anything."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import catalog, report
from benchmarks.peers import process

ROOT = Path(__file__).parents[2]
PARTS = 4  # into which the benchmarks are parted; those of a part run one after another, in one process
UNITS = {"", "s", "bytes", "ratio", "per second", "count"}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("part", range(PARTS))
def test_benchmarks_measure_and_say_so_in_tables_and_in_json(part: int, tmp_path: Path) -> None:
    names = catalog.names()[part::PARTS]
    file = tmp_path / "some" / "where.json"

    done = run(*names, "--quick", "--json", file, "--folder", tmp_path / "data")

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["quick"] is True
    assert found["machine"]["python"]
    assert list(found["benchmarks"]) == names
    for name in names:
        assert all(isinstance(note, str) for note in found["benchmarks"][name]["notes"])
        tables = found["benchmarks"][name]["tables"]
        assert tables
        for table in tables:
            check(table)
            assert table["title"] in done.stdout
        pictures = list(file.parent.glob(f"{file.stem}-{name}-*.svg"))
        assert pictures
        assert all(b"<svg" in picture.read_bytes() for picture in pictures)
    assert not list((tmp_path / "data").iterdir()), "what was written for the measurement is removed"


def check(table: dict[str, Any]) -> None:
    """Each row has each column, with text where there is no unit, and else a number that was measured, or nothing."""
    units = {column["name"]: column["unit"] for column in table["columns"]}
    assert set(units.values()) <= UNITS
    assert table["rows"]
    for row in table["rows"]:
        assert list(row) == list(units)
        for name, cell in row.items():
            if units[name] == "":
                assert isinstance(cell, str)
            elif cell is not None:
                assert math.isfinite(cell)
    measured = [name for name, unit in units.items() if unit and any(row[name] is not None for row in table["rows"])]
    assert measured


def test_the_list_names_each_benchmark_and_what_it_measures() -> None:
    done = run("--list")

    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == catalog.names()
    assert all(len(line.split()) > 3 for line in lines)


def test_one_peer_alone(tmp_path: Path) -> None:
    file = tmp_path / "where.json"
    done = run("lists", "--quick", "--peer", "redis", "--json", file, "--folder", tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    (table,) = json.loads(file.read_text())["benchmarks"]["lists"]["tables"]
    assert {row["peer"] for row in table["rows"]} <= {"redis-py"}


def test_a_peer_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = run("lists", "--quick", "--peer", "nobody", "--folder", tmp_path / "data")
    assert done.returncode == 2
    assert "redis-py" in done.stderr


def test_columns_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="one name"):
        report.Report().table("t", "a", report.Column("a", "s"))


def test_an_unknown_benchmark_is_refused() -> None:
    assert run("nothing-of-the-kind").returncode == 2


def test_a_peer_that_is_not_installed_is_missing_with_a_line_that_says_so() -> None:
    with pytest.raises(process.Missing, match="no-such-program is left out: neither is no-such-wheel installed"):
        process.find("no-such-program", "no_such_wheel", "bin")


@pytest.mark.parametrize(
    ("cell", "unit", "shown"),
    [
        (None, "s", "-"),
        (0.0, "s", "0 µs"),
        (2.5e-5, "s", "25 µs"),
        (0.1234, "s", "123 ms"),
        (12.0, "s", "12 s"),
        (123_456, "bytes", "123 kB"),
        (1.5, "bytes", "1.5 B"),
        (1.234, "ratio", "1.23"),
        (12_345.6, "per second", "12,346/s"),
        (1_000, "count", "1,000"),
        ("words", "", "words"),
    ],
)
def test_cells_are_shown_in_the_unit_that_reads_best(cell: report.Cell, unit: report.Unit, shown: str) -> None:
    assert report.text(cell, unit) == shown
