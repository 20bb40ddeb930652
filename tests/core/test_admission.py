"""How calls get their places: what a connection takes up, who waits, and who comes next."""

import asyncio

import pytest

from comity_server.access.bounds import Payer, address
from comity_server.errors import Draining, TooManyCalls
from comity_server.services import admission
from comity_server.services.admission import FULL_CONNECTIONS, Admission, Place


class Door:
    """Calls that come to one admission."""

    def __init__(self, connection_bytes: int = 100, request_bytes: int = 10, total: int | None = None) -> None:
        self.admission = Admission(connection_bytes, request_bytes, total)
        self.entered: list[str] = []

    def come(self, name: str, peer: str = "a") -> asyncio.Task[Place]:
        async def enter() -> Place:
            place = await self.admission.enter(peer, Payer("", address(peer)))
            self.entered.append(name)
            return place

        return asyncio.create_task(enter())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_connection_has_as_many_requests_read_as_there_is_room_for() -> None:
    door = Door()
    calls = [door.come(f"{number}") for number in range(12)]
    await turns()
    assert door.entered == [f"{number}" for number in range(10)]
    (await calls[3]).leave()
    await turns()
    assert door.entered[10:] == ["10"]
    (await calls[4]).resize(3)  # there is room for 7 now, and not for 10
    await turns()
    assert door.entered[11:] == []
    (await calls[5]).resize(7)
    await turns()
    assert door.entered[11:] == ["11"]


async def test_large_answers_hold_up_only_their_own_connection() -> None:
    door = Door()
    place = await door.come("large")
    place.resize(1000)
    waiting = [door.come("1"), door.come("2")]
    other = await door.come("other", "b")
    assert door.entered == ["large", "other"]
    place.leave()
    place.leave()
    for each in waiting:
        (await each).leave()
    other.leave()
    assert door.entered == ["large", "other", "1", "2"]
    assert not door.admission._connections
    assert not door.admission._bytes


async def test_a_call_alone_may_be_larger_than_all_there_is_room_for() -> None:
    door = Door(connection_bytes=1)
    first, second = door.come("1"), door.come("2")
    await turns()
    assert door.entered == ["1"]
    (await first).leave()
    (await second).leave()


async def test_where_all_is_taken_up_every_connection_has_one_call_at_a_time() -> None:
    door = Door()
    for number in range(FULL_CONNECTIONS):
        (await door.come("full", f"{number}")).resize(100)
    first, second = door.come("1", "late"), door.come("2", "late")
    await turns()
    assert door.entered[FULL_CONNECTIONS:] == ["1"]
    (await first).leave()
    (await second).leave()


async def test_whoever_is_cancelled_takes_up_nothing() -> None:
    door = Door(connection_bytes=1)
    first = await door.come("1")
    second, third, fourth = (door.come(name) for name in "234")
    await turns()
    third.cancel()
    await turns()
    first.leave()
    second.cancel()  # just when its turn came
    with pytest.raises(asyncio.CancelledError):
        await second
    (await fourth).leave()
    assert door.entered == ["1", "4"]
    assert not door.admission._connections


async def test_nobody_is_let_in_once_it_is_closed() -> None:
    door = Door(connection_bytes=1)
    first = await door.come("1")
    second = door.come("2")
    await turns()
    door.admission.close()
    for refused in (second, door.come("3")):
        with pytest.raises(Draining):
            await refused
    first.leave()
    assert not door.admission._connections


A, B, C = "ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.2:1"


async def test_where_there_is_no_more_every_address_has_one_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.01)
    door = Door(total=25)
    held = [await door.come("1", A), await door.come("2", A)]
    waits, refused = door.come("3", A), door.come("4", B)
    held.append(await door.come("5", C))
    with pytest.raises(TooManyCalls) as error:
        await refused
    assert error.value.metadata == {"limit": "max_bytes", "of": "", "most": "25"}
    assert door.entered == ["1", "2", "5"]
    patient = asyncio.create_task(door.admission.enter(B, Payer("", address(B)), patient=True))
    await turns()
    assert not patient.done()
    held[2].leave()
    held[0].leave()
    held.append(await waits)
    assert not patient.done(), "its connection has come later"
    held[1].leave()
    held.append(await patient)
    for place in held:
        place.leave()
    assert not door.admission._connections
    assert not door.admission._kept_out
    assert not door.admission._by_payer
    assert not door.admission._bytes


async def test_who_waits_for_room_in_all_gets_it_in_the_order_of_arrival() -> None:
    door = Door(total=10)
    first = await door.come("first", A)
    waiting = [door.come(f"{number}", f"{A}{number}") for number in range(4)]
    await turns()
    waiting[1].cancel()
    await turns()
    first.leave()
    for number in (0, 2, 3):
        (await waiting[number]).leave()
    assert door.entered == ["first", "0", "2", "3"]
    assert not door.admission._connections
    assert not door.admission._kept_out
