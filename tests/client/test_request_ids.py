"""Names for writes: never given out twice, in any thread or process."""

import os
import threading

import pytest

from comity import RequestId
from comity.request_ids import RequestIds


def test_sequences_grow_from_1_under_one_name() -> None:
    ids = RequestIds()
    with ids.use() as first:
        pass
    with ids.use() as second:
        pass
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.client == second.client
    with RequestIds().use() as other:
        assert other.client != first.client


def test_awaited_is_the_lowest_in_flight() -> None:
    ids = RequestIds()
    slow = ids.use()
    assert slow.__enter__().awaited == 1
    with ids.use():
        pass
    with ids.use() as third:
        assert (third.sequence, third.awaited) == (3, 1)
    slow.__exit__(None, None, None)
    with ids.use() as fourth:
        assert (fourth.sequence, fourth.awaited) == (4, 4)


def test_a_write_that_failed_is_not_awaited_any_more() -> None:
    ids = RequestIds()
    with pytest.raises(OSError, match="lost"), ids.use():
        raise OSError("lost")
    with ids.use() as following:
        assert following.awaited == 2


def test_a_given_id_is_used_as_it_is() -> None:
    ids = RequestIds()
    given = RequestId("job-7", 3)
    with ids.use(given) as used:
        assert used is given
    with ids.use() as own:
        assert own.sequence == 1


def test_threads_never_share_a_sequence() -> None:
    ids = RequestIds()
    used: list[RequestId] = []

    def write() -> None:
        for _ in range(500):
            with ids.use() as request_id:
                used.append(request_id)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(request_id.sequence for request_id in used) == list(range(1, 4001))
    assert all(0 < request_id.awaited <= request_id.sequence for request_id in used)
    with ids.use() as last:
        assert last.awaited == 4001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_is_another_writer() -> None:
    ids = RequestIds()
    with ids.use() as mine:
        pass
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with ids.use() as its:
            os.write(writing, f"{its.client} {its.sequence}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        client, sequence = answer.read().split()
    assert client != mine.client
    assert sequence == "1"
