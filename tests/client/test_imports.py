"""The modules of the client build on one another in one direction."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import comity

ROOT = Path(comity.__file__).parent
GENERATED = ROOT / "v1"
KNOWN = ("comity.cell", "comity.client")  # a client makes the cells that call it


def modules() -> dict[str, Path]:
    """The client's own modules, by name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        if GENERATED not in path.parents:
            name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that one imports, wherever in it, and be it for its types alone. Packages are no modules here."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {each for each in found if each in known and known[each].name != "__init__.py"}


def test_an_import_is_seen_in_each_of_its_forms(tmp_path: Path) -> None:
    file = tmp_path / "beside.py"
    known = {f"comity.{name}": tmp_path / f"{name}.py" for name in ("one", "two", "three", "four")}
    file.write_text("import comity.one\nfrom . import two\nfrom .three import a\nfrom comity import four as b\n")
    assert imported("comity.beside", file, known) == set(known)


def test_no_module_imports_what_imports_it() -> None:
    known = modules()
    graph = {name: imported(name, path, known) for name, path in known.items()}
    assert "comity.stubs" in graph["comity.pipelined"]
    graph[KNOWN[0]].discard(KNOWN[1])
    assert len(list(TopologicalSorter(graph).static_order())) == len(known)
