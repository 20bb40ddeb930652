"""The window of remembered outcomes, by a clock of the test's own."""

import pytest

from comity_server.errors import QuotaExceeded, RequestIdForgotten
from comity_server.limits import Limits
from comity_server.model import FailedCondition, Outcome, RequestId
from comity_server.stores.memory.requests import Requests

DONE = Outcome(committed=True, revision=1)


def test_a_client_is_forgotten_when_it_was_silent_for_the_window_and_not_before() -> None:
    requests = Requests(Limits(request_window=10))
    requests.find(RequestId("one", 1), 0, now=0)
    requests.remember(RequestId("one", 1), 0, DONE, now=0)
    assert requests.find(RequestId("one", 1), 0, now=9) is DONE  # heard again, so the window begins anew
    requests.find(RequestId("two", 1), 0, now=18)
    assert requests.find(RequestId("one", 1), 0, now=18) is DONE
    requests.find(RequestId("two", 2), 0, now=30)
    assert requests.find(RequestId("one", 1), 0, now=30) is None


def test_what_was_said_not_to_be_awaited_is_refused_for_as_long_as_the_client_is_known() -> None:
    requests = Requests(Limits(request_window=10))
    requests.find(RequestId("one", 5, awaited=5), 0, now=0)
    requests.remember(RequestId("one", 5, awaited=5), 0, DONE, now=0)
    with pytest.raises(RequestIdForgotten):
        requests.find(RequestId("one", 4), 0, now=5)


def test_who_only_failed_takes_no_place() -> None:
    requests = Requests(Limits(request_clients=1))
    for name in ("one", "two", "three"):
        assert requests.find(RequestId(name, 1), 0, now=0) is None
    requests.remember(RequestId("four", 1), 0, DONE, now=0)
    with pytest.raises(QuotaExceeded):
        requests.find(RequestId("five", 1), 0, now=0)


def test_what_failed_conditions_answered_counts_too() -> None:
    requests = Requests(Limits(request_total_bytes=100_000))
    entry = ("k", bytes(200_000), "", 1, 1, 1, 0, 0)
    refused = Outcome(committed=False, revision=1, failed=[FailedCondition(0, entry, 0)])
    requests.remember(RequestId("one", 1), 0, refused, now=0)
    with pytest.raises(QuotaExceeded):
        requests.find(RequestId("two", 1), 0, now=0)
    requests.find(RequestId("one", 1, awaited=1), 0, now=0)
    with pytest.raises(RequestIdForgotten):  # which frees what it had
        requests.find(RequestId("one", 1, awaited=2), 0, now=0)
    assert requests.find(RequestId("two", 1), 0, now=0) is None


def test_a_client_counts_for_what_its_name_takes_up() -> None:
    """About a KiB where it is long, however little its outcomes are."""
    requests = Requests(Limits(request_total_bytes=100_000, request_window=10))
    names = [f"{number:0>200}" for number in range(110)]
    for name in names[:80]:
        assert requests.find(RequestId(name, 1), 0, now=0) is None
        requests.remember(RequestId(name, 1), 0, DONE, now=0)
    for name in names[80:]:
        requests.remember(RequestId(name, 1), 0, DONE, now=0)
    with pytest.raises(QuotaExceeded):
        requests.find(RequestId("later", 1), 0, now=0)
    assert requests.find(RequestId("later", 1), 0, now=20) is None  # all that they counted for is there again
    for name in names[:80]:
        requests.remember(RequestId(name, 1), 0, DONE, now=20)
    assert requests.find(RequestId("last", 1), 0, now=20) is None


def test_very_many_clients_are_swept_a_little_at_a_time() -> None:
    requests = Requests(Limits(request_window=10))
    for number in range(5000):
        requests.remember(RequestId(f"c{number}", 1), 0, DONE, now=0)
    counts = []
    while requests:
        requests.sweep(now=20)
        counts.append(len(requests.take_swept()))
    assert sum(counts) == 5000
    assert max(counts) <= 1000
