"""Restart strategies, restart types and the restart limit, as of Erlang/OTP."""

import math

from comity.agents import Restart, Strategy
from comity.agents.restarts import RestartLimit, affected


def test_strategies() -> None:
    children = ["a", "b", "c", "d"]
    assert affected(Strategy.ONE_FOR_ONE, children, "b") == ["b"]
    assert affected(Strategy.ONE_FOR_ALL, children, "b") == children
    assert affected(Strategy.REST_FOR_ONE, children, "b") == ["b", "c", "d"]
    assert affected(Strategy.REST_FOR_ONE, children, "d") == ["d"]


def test_types() -> None:
    wants = {(kind, failed): kind.wants(failed=failed) for kind in Restart for failed in (False, True)}
    assert [pair for pair, wanted in wants.items() if wanted] == [
        (Restart.PERMANENT, False),
        (Restart.PERMANENT, True),
        (Restart.TRANSIENT, True),
    ]


def test_limit() -> None:
    limit = RestartLimit(2, 10.0)
    assert [limit.spend(now, "a") for now in (0.0, 1.0, 2.0)] == [True, True, False]
    limit = RestartLimit(2, 10.0)
    assert [limit.spend(now, "a") for now in (0, 9, 10, 19, 20)] == [True, True, True, True, True]
    assert not RestartLimit(0, 1.0).spend(0.0, "a")
    limit = RestartLimit(1, math.inf)
    assert limit.spend(0.0, "a")
    assert not limit.spend(1e9, "a")
    limit.reset()
    assert limit.spend(1e9, "a")


def test_ends_that_come_together_count_once() -> None:
    limit = RestartLimit(2, 60.0, together=5.0)
    assert all(limit.spend(now, child) for now, child in enumerate("abcde"))  # one
    assert limit.spend(4.5, "a")  # again: two
    assert limit.spend(9.0, "b")
    assert not limit.spend(9.5, "c")  # no more with the second: three
    assert not limit.spend(9.6, "d")
    assert limit.spend(69.5, "a")
