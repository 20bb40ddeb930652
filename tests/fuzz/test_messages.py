"""Whatever a client sends as the messages of any method: it is answered by the contract, and nobody else notices.

A failure prints the calls of its example, and `@reproduce_failure`, which has the test repeat it.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.calls import Call, calls
from tests.fuzz.fuzzed import Fuzzed, fuzzing
from tests.fuzz.methods import METHODS, offered
from tests.redis_servers import RedisServer

SOAK = os.environ.get("COMITY_SOAK") == "1"
EXAMPLES = 400 if SOAK else 8  # of each method
MIXED_EXAMPLES = 4_000 if SOAK else 25  # of all of them, over each other store
SETTINGS = settings(
    derandomize=not SOAK,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.timeout(
        0 if SOAK else 300
    ),  # seconds that a failure may take to be made small; without one it is soon over
]


@pytest.fixture(scope="module")
def in_memory() -> Iterator[Fuzzed]:
    with fuzzing() as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Fuzzed]:
    if request.param == "sqlite":
        url = f"sqlite:{request.getfixturevalue('tmp_path')}/fuzz.db"
    else:
        redis: RedisServer = request.getfixturevalue("redis_server")
        url = f"{redis.url}?prefix=fuzz-{os.getpid()}"
    with fuzzing("--store", url) as running:
        yield running


def test_no_method_is_left_out(in_memory: Fuzzed) -> None:
    assert offered(in_memory.hostile) == set(METHODS)


@pytest.mark.soak
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_bears_any_messages(in_memory: Fuzzed, method: str) -> None:
    @settings(SETTINGS, max_examples=EXAMPLES)
    @given(st.lists(calls(METHODS[method]), min_size=1, max_size=4))
    def whatever_is_sent(made: list[Call]) -> None:
        in_memory.run(made)

    whatever_is_sent()
    in_memory.check_log()


@pytest.mark.soak
def test_every_store_bears_any_calls(elsewhere: Fuzzed) -> None:
    @settings(SETTINGS, max_examples=MIXED_EXAMPLES)
    @given(st.lists(calls(), min_size=1, max_size=6))
    def whatever_is_sent(made: list[Call]) -> None:
        elsewhere.run(made)

    whatever_is_sent()
    elsewhere.check_log()
