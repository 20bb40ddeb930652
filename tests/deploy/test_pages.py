"""The pages for operators: each reason that a client can be told is explained, links lead somewhere, sums are right."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.cli.app import app
from comity_server import errors
from comity_server.services.status import CODES
from comity_server.settings import Settings
from tests.deploy.deployed import ROOT

DOCS = ROOT / "docs"
PAGES = ["operations", "upgrades", "backup", "capacity", "security", "troubleshooting"]
LINKING = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SOURCE = "\n".join(path.read_text() for path in (ROOT / "server" / "comity_server").rglob("*.py"))


def tree(kind: type[errors.StateError] = errors.StateError) -> Iterator[type[errors.StateError]]:
    for each in kind.__subclasses__():
        yield each
        yield from tree(each)


def told() -> Iterator[tuple[str, str]]:
    """Each code and reason that a client can be told; those of classes that only stand above others nobody is told."""
    for kind in tree():
        if not kind.__subclasses__() or re.search(rf"raise (errors\.)?{kind.__name__}\(", SOURCE):
            code = next(CODES[each] for each in kind.__mro__ if each in CODES)
            yield code.name, kind.reason
    yield "INTERNAL", "INTERNAL"


def test_each_reason_is_explained_under_its_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    sections = dict(re.findall(r"^## ([A-Z_]+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    explained = {
        (code, reason) for code in sections for reason in re.findall(r"^\| `(\w+)` \|", sections[code], re.MULTILINE)
    }
    assert set(told()) - explained == set()


def test_each_reason_is_in_the_contract_under_its_code() -> None:
    """And what is there is told by something."""
    page = (DOCS / "wire.md").read_text()
    (rows,) = re.findall(r"^\| code \| reason \| metadata \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    written = set()
    code = ""
    for row in rows.splitlines():
        named, reasons, *_ = (cell.strip() for cell in row.strip("|").split(" | "))
        code = named or code
        written |= {(code, reason) for reason in re.findall(r"`(\w+)`", reasons)}
    assert written == set(told())


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, target


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_metrics_are_those_that_there_are(page: str) -> None:
    there = (DOCS / "observability.md").read_text()
    for name in re.findall(r"`((?:comity|process)_\w+)`", (DOCS / f"{page}.md").read_text()):
        assert f"`{name}`" in there or name.startswith("process_"), name


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_those_that_there_are(page: str) -> None:
    """What is written as `max_pending` is, of the names that only settings have."""
    for name in re.findall(
        r"`((?:limit|max|retention|rate|tls|jwt|drain|keepalive|log)_[a-z_]+)`", (DOCS / f"{page}.md").read_text()
    ):
        assert name in Settings.model_fields, name


@pytest.mark.parametrize("page", [*PAGES, "server"])
def test_what_is_run_there_is_a_command(page: str) -> None:
    """Each `comity COMMAND` of a page."""
    named = re.findall(r"(?:^ {4}|`|\$ |until |&& )comity ([a-z]+)", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    assert set(named) <= set(app.commands)


def test_the_sizes_of_the_table_are_as_the_page_computes_them() -> None:
    page = (DOCS / "capacity.md").read_text()
    (formula,) = re.findall(r"^    memory = (.*(?:\n {11,}.*)*)", page, re.MULTILINE)
    (rows,) = re.findall(r"^\| keys \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    names = ["keys", "value", "commits", "connections", "watches", "leases"]
    units = {"MB": "* 10**6", "kB": "* 10**3", "B": ""}
    sum_ = re.sub(r"([\d.]+) (MB|kB|B)\b", lambda found: f"({found[1]} {units[found[2]]})", formula)
    for row in rows.splitlines():
        *figures, told = (cell.strip() for cell in row.strip("|").split("|"))
        values = {name: float(figure.replace(",", "")) for name, figure in zip(names, figures, strict=True)}
        computed = eval(sum_.replace("\n", " "), {"__builtins__": {}}, values)
        assert float(told.removesuffix(" GB")) == round(computed / 10**9, 1), row
