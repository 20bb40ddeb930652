"""What parts of the server write to knows none of them, and what looks at them is known to none that it looks at."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import comity_server
from comity_server import names
from comity_server.telemetry import trail

ROOT = Path(comity_server.__file__).parent


def imported(part: str) -> Iterator[str]:
    """The parts of the server that a package or module of it imports."""
    files = [*(ROOT / part).rglob("*.py")] or [ROOT / f"{part}.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "comity_server":
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("comity_server."):
                yield str(node.module).split(".")[1]


def test_telemetry_imports_no_other_part() -> None:
    assert set(imported("telemetry")) == {"telemetry"}


def test_telemetry_knows_the_names_of_namespaces() -> None:
    assert trail.NAMESPACE == names.NAMESPACE


@pytest.mark.parametrize("part", ["committer", "compactor", "expiry", "feed", "stores", "access"])
def test_what_is_looked_at_does_not_import_what_looks(part: str) -> None:
    found = set(imported(part))
    assert found
    assert "observing" not in found


def test_what_parts_import_leads_back_to_none_of_them() -> None:
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts >= {"access", "services", "settings", "stores"}
    TopologicalSorter({part: set(imported(part)) - {part} for part in parts}).prepare()  # raises CycleError
