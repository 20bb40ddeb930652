"""What streams hold of what they answered: who waits, who comes next, and that nobody who waits holds anything."""

import asyncio

import pytest

from comity_server.access.bounds import Payer, address
from comity_server.errors import Draining
from comity_server.services.outbox import ANSWER_BYTES, SHARE, Outbox, Outboxes

A, B = "ipv4:192.0.2.1:1", "ipv4:192.0.2.2:1"


class Streams:
    """Streams with the same room: so many answers of one connection, and so many of all."""

    def __init__(self, answers: int, total: int = 100) -> None:
        self.outboxes = Outboxes(SHARE * answers * ANSWER_BYTES, SHARE * total * ANSWER_BYTES)
        self.ready: list[str] = []

    def open(self, peer: str = A) -> Outbox:
        return self.outboxes.open(peer, Payer("", address(peer)))

    def come(self, name: str, outbox: Outbox) -> asyncio.Task[None]:
        async def wait() -> None:
            await outbox.wait()
            self.ready.append(name)

        return asyncio.create_task(wait())

    def is_empty(self) -> bool:
        return not self.outboxes._room._connections


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_streams_of_a_connection_wait_in_the_order_in_which_they_came() -> None:
    streams = Streams(2)
    outboxes = [streams.open() for _ in range(5)]
    waiting = [streams.come(f"{number}", outbox) for number, outbox in enumerate(outboxes)]
    other = streams.open(B)
    await other.wait()
    await turns()
    assert streams.ready == ["0", "1"]
    assert [outbox.waits for outbox in outboxes] == [False, False, True, True, True]
    assert not outboxes[2].now()
    outboxes[0].settle(100)
    await turns()
    assert len(streams.ready) == 2, "what is left is not enough for one"
    waiting[3].cancel()
    outboxes[0].free(100)
    await turns()
    assert streams.ready[2:] == ["2"]
    outboxes[2].settle(2 * ANSWER_BYTES)  # as large as it is
    outboxes[1].leave()
    await turns()
    assert len(streams.ready) == 3
    outboxes[2].leave()
    await turns()
    assert streams.ready[3:] == ["4"]
    for outbox in (*outboxes, other):
        outbox.leave()
        outbox.leave()
    assert streams.is_empty()


async def test_who_has_room_waits_no_more_until_all_is_off() -> None:
    streams = Streams(1)
    full, late = streams.open(), streams.open()
    await full.wait()
    waiting = streams.come("late", late)
    full.settle(ANSWER_BYTES)
    await full.wait()  # as the writer of a stream that holds a page
    full.free(ANSWER_BYTES)
    await turns()
    assert not streams.ready
    full.settle(10)
    full.free(10)
    await waiting
    late.leave()
    assert streams.is_empty()


async def test_a_reservation_that_two_wait_for_lets_both_go_on() -> None:
    streams = Streams(1)
    full, two = streams.open(), streams.open()
    await full.wait()
    waiting = [streams.come("writer", two), streams.come("lists", two)]
    await turns()
    waiting[0].cancel()
    await turns()
    waiting.append(streams.come("writer", two))
    await turns()
    assert not streams.ready
    full.leave()
    await turns()
    assert sorted(streams.ready) == ["lists", "writer"]
    two.settle(10)
    two.free(10)
    assert not streams.is_empty(), "the other one's"
    two.leave()
    assert streams.is_empty()


async def test_who_gives_up_waits_no_more() -> None:
    streams = Streams(1)
    full, stream = streams.open(), streams.open()
    await full.wait()
    stream.give_up()
    waiting = streams.come("", stream)
    await turns()
    stream.give_up()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    full.leave()
    assert streams.is_empty()


async def test_nobody_waits_once_it_is_closed() -> None:
    streams = Streams(1)
    full, stream = streams.open(), streams.open()
    await full.wait()
    waiting = streams.come("", stream)
    await turns()
    streams.outboxes.close()
    with pytest.raises(Draining):
        await waiting
    full.leave()
    assert streams.is_empty()


async def test_where_all_is_taken_up_every_address_has_one_answer() -> None:
    streams = Streams(1, total=1)
    full, same, other = streams.open(), streams.open(), streams.open(B)
    await full.wait()
    waiting = streams.come("same", same)
    await other.wait()
    full.leave()
    await turns()
    assert streams.ready == ["same"]
    await waiting
    same.leave()
    other.leave()
    assert streams.is_empty()
