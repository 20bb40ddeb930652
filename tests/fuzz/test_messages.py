"""Whatever a client sends as the messages of any method: it is answered by the contract, and nobody else notices."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.calls import Call, calls
from tests.fuzz.examples import MARKS, drawn
from tests.fuzz.fuzzed import Fuzzed, fuzzing, fuzzing_guarded
from tests.fuzz.methods import METHODS, offered
from tests.redis_servers import RedisServer

pytestmark = MARKS


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


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_bears_any_messages(in_memory: Fuzzed, method: str) -> None:
    @drawn(3, 200)
    @given(st.lists(calls(METHODS[method]), min_size=1, max_size=4))
    def whatever_is_sent(made: list[Call]) -> None:
        in_memory.run(made)

    whatever_is_sent()


def test_every_store_bears_any_calls(elsewhere: Fuzzed) -> None:
    @drawn(15, 2_000)
    @given(st.lists(calls(), min_size=1, max_size=6))
    def whatever_is_sent(made: list[Call]) -> None:
        elsewhere.run(made)

    whatever_is_sent()


def test_permissions_bear_any_calls(tmp_path: Path) -> None:
    with fuzzing_guarded(tmp_path) as fuzzed:

        @drawn(25, 3_000)
        @given(st.lists(calls(), min_size=1, max_size=6))
        def whatever_is_sent(made: list[Call]) -> None:
            fuzzed.run(made)

        whatever_is_sent()
