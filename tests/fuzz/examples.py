"""How many examples the fuzzers draw, and how: in `make test` the same few each time, in `make soak` many new ones."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

SOAK = os.environ.get("COMITY_SOAK") == "1"
MARKS = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.timeout(0 if SOAK else 300),  # seconds that a failure may take to be made small; else it takes a few
]


def drawn(short: int, long: int) -> settings:
    """A failure prints its example, and `@reproduce_failure`, which has the test repeat it."""
    return settings(
        max_examples=long if SOAK else short,
        derandomize=not SOAK,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
