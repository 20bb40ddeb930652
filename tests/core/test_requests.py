"""The window of remembered outcomes, by a clock of the test's own."""

import pytest

from comity_server.errors import RequestIdForgotten
from comity_server.limits import Limits
from comity_server.model import Outcome, RequestId
from comity_server.stores.memory.requests import Requests

DONE = Outcome(committed=True, revision=1)


def test_a_client_is_forgotten_when_it_was_silent_for_the_window_and_not_before() -> None:
    requests = Requests(Limits(request_window=10))
    requests.find(RequestId("one", 1), 0, now=0)
    requests.remember(RequestId("one", 1), 0, DONE)
    assert requests.find(RequestId("one", 1), 0, now=9) is DONE  # heard again, so the window begins anew
    requests.find(RequestId("two", 1), 0, now=18)
    assert requests.find(RequestId("one", 1), 0, now=18) is DONE
    requests.find(RequestId("two", 2), 0, now=30)
    assert requests.find(RequestId("one", 1), 0, now=30) is None


def test_what_was_said_not_to_be_awaited_is_refused_for_as_long_as_the_client_is_known() -> None:
    requests = Requests(Limits(request_window=10))
    requests.find(RequestId("one", 5, awaited=5), 0, now=0)
    with pytest.raises(RequestIdForgotten):
        requests.find(RequestId("one", 4), 0, now=5)
