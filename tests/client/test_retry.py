"""When to try again."""

import pytest

import comity
from comity.retry import Backoff, Retry


def test_waiting_times_are_spread_up_to_a_bound_that_doubles() -> None:
    for _ in range(200):
        backoff = Backoff(first=0.02, most=0.1)
        delays = [backoff.delay(60) for _ in range(6)]
        for delay, bound in zip(delays, [0.02, 0.04, 0.08, 0.1, 0.1, 0.1], strict=True):
            assert delay is not None
            assert 0 <= delay <= bound


def test_after_a_success_the_waiting_begins_again() -> None:
    backoff = Backoff(first=0.02, most=10)
    for _ in range(10):
        backoff.delay(60)
    backoff.reset()
    delay = backoff.delay(60)
    assert delay is not None
    assert delay <= 0.02


def test_the_jitter_comes_on_top_of_what_the_server_asks_for() -> None:
    delays = {Backoff().delay(60, at_least=2.0) for _ in range(20)}
    assert len(delays) > 1
    assert all(delay is not None and 2.0 <= delay <= 2.02 for delay in delays)


@pytest.mark.parametrize(("remaining", "at_least"), [(0.0, None), (0.01, None), (-1.0, None), (2.0, 2.0), (1.0, 30.0)])
def test_nothing_waits_past_the_deadline(remaining: float, at_least: float | None) -> None:
    assert Backoff(first=0.02).delay(remaining, at_least) is None


def test_a_short_rest_is_still_used() -> None:
    backoff = Backoff(first=0.02, most=10)
    for _ in range(10):
        backoff.delay(60)
    for _ in range(100):
        delay = backoff.delay(0.5)
        assert delay is not None
        assert delay <= 0.5


def test_an_error_that_would_come_again_is_raised_at_once() -> None:
    error = comity.Conflict("lost")
    with pytest.raises(comity.Conflict) as caught:
        Retry(deadline=100).delay(error, now=0)
    assert caught.value is error


def test_a_server_that_is_away_is_tried_until_the_time_is_up() -> None:
    retry = Retry(deadline=100)
    error = comity.Unavailable("away")
    tries = [0.0]

    def try_on() -> None:
        while True:
            tries.append(tries[-1] + retry.delay(error, tries[-1]))

    with pytest.raises(comity.Unavailable) as caught:
        try_on()
    assert caught.value is error
    assert 99 < tries[-1] < 100
    assert len(tries) > 100


NOTHING_DONE = comity.RateLimited("planner has 5 operations a second; nothing was done", reason="RATE_LIMITED")


def test_a_try_that_runs_out_of_time_leaves_the_end_open_and_says_why_the_one_before_failed() -> None:
    retry = Retry(deadline=100)
    retry.delay(NOTHING_DONE, now=0)
    with pytest.raises(comity.DeadlineExceeded) as caught:
        retry.delay(comity.DeadlineExceeded("no answer from h:1 in time"), now=100)
    assert caught.value.message == f"no answer from h:1 in time; another try: {NOTHING_DONE.message}"
    assert caught.value.__cause__ is NOTHING_DONE


def test_a_try_that_runs_out_of_time_leaves_a_server_that_is_away_as_open_as_it_was() -> None:
    retry = Retry(deadline=100)
    first, last = comity.Unavailable("refused"), comity.DeadlineExceeded("no answer from h:1 in time")
    first.__cause__ = cause = OSError("refused")
    retry.delay(first, now=0)
    with pytest.raises(comity.Unavailable) as caught:
        retry.delay(last, now=100)
    assert caught.value is first
    assert caught.value.__cause__ is cause


def test_a_try_that_was_refused_does_not_hide_one_that_had_no_answer() -> None:
    for refused in (NOTHING_DONE, comity.DeadlineExceeded("nothing was done", reason="DEADLINE_PASSED")):
        retry = Retry(deadline=100)
        retry.delay(comity.Unavailable("socket closed"), now=0)
        with pytest.raises(comity.DeadlineExceeded) as caught:
            retry.delay(refused, now=100)
        assert caught.value.reason == ""
        assert caught.value.message.startswith("the time is up, and of one try no answer came")
        assert caught.value.__cause__ is refused


def test_tries_that_were_all_refused_say_that_nothing_was_done() -> None:
    retry = Retry(deadline=100)
    retry.delay(NOTHING_DONE, now=0)
    with pytest.raises(comity.RateLimited):
        retry.delay(NOTHING_DONE, now=100)
    with pytest.raises(comity.DeadlineExceeded) as caught:
        retry.delay(comity.DeadlineExceeded("nothing was done", reason="DEADLINE_PASSED"), now=100)
    assert caught.value.reason == "DEADLINE_PASSED"


def test_a_first_try_that_runs_out_of_time_says_so() -> None:
    with pytest.raises(comity.DeadlineExceeded):
        Retry(deadline=100).delay(comity.DeadlineExceeded("time is up"), now=100)
    assert Retry(deadline=100).remaining(now=101) == 0


def test_certificates_that_do_not_fit_may_be_replaced_in_a_moment_but_not_later() -> None:
    misfit = comity.Unavailable("it is for another name", reason="TLS_FAILED")
    retry = Retry(1000.0)
    assert retry.delay(misfit, 10.0) < 1
    assert retry.delay(misfit, 11.9) < 1
    assert retry.delay(comity.Unavailable("another address"), 12.0) < 1
    assert retry.delay(misfit, 20.0) < 1
    with pytest.raises(comity.Unavailable) as raised:
        retry.delay(misfit, 22.0)
    assert raised.value is misfit


@pytest.mark.parametrize(
    "misfit",
    [
        comity.Unavailable("it is for another name", reason="TLS_FAILED"),
        comity.Unavailable("it closed the connection at once", reason="UNREACHABLE"),
    ],
)
def test_what_one_address_says_is_more_than_that_nobody_listens_at_another(
    misfit: comity.Unavailable,
) -> None:
    refused = comity.Unavailable("connection refused", reason="UNREACHABLE")
    for last, at, raised in (
        (refused, 99.0, misfit),
        (comity.DeadlineExceeded("time is up"), 100.0, misfit),
        (refused, 120.0, refused),
    ):
        retry = Retry(at + 0.01)
        retry.delay(misfit, 98.0)
        retry.delay(refused, 98.5)
        with pytest.raises(comity.Unavailable) as caught:
            retry.delay(last, at)
        assert caught.value is raised
    retry = Retry(100.01)
    retry.delay(misfit, 98.0)
    retry.delay(comity.Unavailable("draining", reason="DRAINING"), 98.5)
    with pytest.raises(comity.Unavailable) as caught:
        retry.delay(refused, 100.0)
    assert caught.value is refused, "it was reached since"
