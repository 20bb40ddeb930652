"""The dashboard of Grafana asks for what there is, and the alerts of the docs do."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.conftest import Busy
from tests.telemetry.prometheus import samples

promql = pytest.importorskip("promql_parser", reason="there is no wheel of promql-parser for this system")

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/comity.json").read_text("utf-8"))
DOCS = (ROOT / "docs/observability.md").read_text("utf-8")
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERT = re.compile(r"expr: (.+)")
VARIABLE = re.compile(r"label_values\((.+), (\w+)\)")
OF_TARGETS = {"job", "instance"}  # labels that Prometheus gives


def queries() -> Iterator[str]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if found := VARIABLE.fullmatch(variable["query"]):
            yield found[1]
    for expression in ALERT.findall(DOCS):
        yield expression.strip("'")


def selectors(query: str) -> Iterator[Any]:
    """The vector selectors of a query, with the variables of Grafana as it would put them in."""
    filled = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
    assert "$" not in filled
    found: list[Any] = []

    def note(node: Any) -> Any:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        return True

    promql.walk(promql.parse(filled), note)
    yield from found


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_what_there_is(busy_server: Busy, query: str) -> None:
    known: dict[str, set[str]] = {}
    for name, labels, _ in samples(busy_server.first):
        known.setdefault(name, set()).update(labels)
    for selector in selectors(query):
        assert selector.name in known, query
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= known[selector.name] | OF_TARGETS, query
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        kept = {label for selector in selectors(query) for label in known[selector.name]}
        assert {label.strip() for label in grouped.split(",")} <= kept | OF_TARGETS, query


def test_legends_are_of_labels_that_the_query_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert label in OF_TARGETS if not kept else any(label in one for one in kept), target


def test_there_are_queries_of_all_of_it() -> None:
    assert len(set(queries())) > 40
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert ALERT.findall(DOCS)
