"""The names that Prometheus has for metrics, and its text."""

import re
import urllib.request
from collections.abc import Mapping

from comity_server.observing.metrics import MEASURED, Measured, Observed

UNITS = {"s": "_seconds", "By": "_bytes"}
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = Mapping[str, str]


def read(address: str) -> str:
    """A scrape."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def name_of(metric: Measured | Observed) -> str:
    """What Prometheus calls a metric; of a histogram, without _bucket, _sum and _count."""
    total = "_total" if isinstance(metric, Observed) and metric.kind == "counter" else ""
    return label_of(metric.name) + UNITS.get(metric.unit, "") + total


def label_of(attribute: str) -> str:
    return attribute.replace(".", "_")


def samples(text: str) -> list[tuple[str, Labels, float]]:
    """What a scrape says."""
    found = [SAMPLE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#")]
    return [(one[1], dict(LABEL.findall(one[2] or "")), float(one[3])) for one in found if one is not None]


def series(metric: Measured | Observed) -> set[str]:
    """The names of its samples."""
    name = name_of(metric)
    return {name + part for part in ("_bucket", "_sum", "_count")} if metric in MEASURED else {name}


def row(metric: Measured | Observed) -> str:
    """The row of a metric in the table of docs/observability.md."""
    labels = ", ".join(f"`{label_of(attribute)}`" for attribute in metric.attributes)
    return f"| `{name_of(metric)}` | {labels} | {metric.description} |"
