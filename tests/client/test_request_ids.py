"""Names for writes: never given out twice, in any event loop or process."""

import asyncio
import os
import threading

import pytest

from comity import RequestId
from comity.request_ids import RequestIds


async def test_sequences_grow_from_1_under_one_name() -> None:
    ids = RequestIds()
    with ids.use() as first:
        pass
    with ids.use() as second:
        pass
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.client == second.client
    with RequestIds().use() as other:
        assert other.client != first.client


async def test_awaited_is_the_lowest_in_flight() -> None:
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


async def test_a_write_that_failed_is_not_awaited_any_more() -> None:
    ids = RequestIds()
    with pytest.raises(OSError, match="lost"), ids.use():
        raise OSError("lost")
    with ids.use() as following:
        assert following.awaited == 2


async def test_a_given_id_is_used_as_it_is() -> None:
    ids = RequestIds()
    given = RequestId("job-7", 3)
    with ids.use(given) as used:
        assert used is given
    with ids.use() as own:
        assert own.sequence == 1


def test_event_loops_never_share_a_name() -> None:
    ids = RequestIds()
    used: list[RequestId] = []

    async def write() -> None:
        for _ in range(500):
            with ids.use() as request_id:
                used.append(request_id)
                await asyncio.sleep(0)

    threads = [threading.Thread(target=asyncio.run, args=(write(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {request_id.client for request_id in used}
    assert len(names) == 8
    for name in names:
        own = [request_id for request_id in used if request_id.client == name]
        assert [(one.sequence, one.awaited) for one in own] == [(number, number) for number in range(1, 501)]


def test_what_one_event_loop_leaves_pending_no_other_awaits() -> None:
    ids = RequestIds()

    pending = ids.use()

    async def begin() -> None:
        pending.__enter__()

    async def write() -> RequestId:
        with ids.use():
            pass
        with ids.use() as request_id:
            return request_id

    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(begin())
    assert asyncio.run(write()).awaited == 2
    assert stopped.run_until_complete(write()).awaited == 1
    stopped.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_is_another_writer() -> None:
    ids = RequestIds()

    async def write() -> RequestId:
        with ids.use() as request_id:
            return request_id

    mine = asyncio.run(write())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        its = asyncio.run(write())
        os.write(writing, f"{its.client} {its.sequence}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        client, sequence = answer.read().split()
    assert client != mine.client
    assert sequence == "1"
