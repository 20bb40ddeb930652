"""docs/observability.md has what there is."""

import re
from pathlib import Path

import pytest

from comity_server.observing.metrics import MEASURED, OBSERVED
from comity_server.settings import Settings
from tests.telemetry.prometheus import row

FLAG = re.compile(r"comity serve --([a-z-]+)|`--((?:log|metrics|otlp)[a-z-]*)")
DOCS = (Path(__file__).parents[2] / "docs/observability.md").read_text("utf-8")


def test_the_table_has_each_metric_as_it_is_defined() -> None:
    table = [line for line in DOCS.splitlines() if line.startswith(("| `comity_", "| `rpc_"))]
    assert table == [row(metric) for metric in (*MEASURED, *OBSERVED)]


@pytest.mark.parametrize("flag", sorted(set(FLAG.findall(DOCS))))
def test_each_setting_that_is_named_exists(flag: tuple[str, str]) -> None:
    assert "".join(flag).replace("-", "_") in Settings.model_fields
