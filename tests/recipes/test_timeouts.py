"""What a wait says when its time is up: what did not happen, and what kept the server from telling."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

import comity
from comity import Client, Unavailable
from comity.recipes import Barrier, Election, Lock, Queue, Semaphore
from tests import servers
from tests.waiting import until

Waiting = Callable[[Client, float], Coroutine[Any, Any, object]]
WAITS: list[tuple[Waiting, str]] = [
    (lambda state, timeout: Lock(state, "a").acquire(timeout), "lock 'a' was not had"),
    (lambda state, timeout: Semaphore(state, "a", 1).acquire(timeout), "semaphore 'a' had no free slot"),
    (lambda state, timeout: Election(state, "a").campaign("me", timeout), "election 'a' was not won"),
    (lambda state, timeout: Barrier(state, "a", 2).wait(timeout), "barrier 'a' was not passed"),
    (lambda state, timeout: Queue(state, "a").get(timeout), "queue 'a' had no free item"),
]


@pytest.mark.parametrize(("waiting", "missed"), WAITS)
async def test_it_is_said_what_was_waited_for(state: Client, waiting: Waiting, missed: str) -> None:
    async with Lock(state, "a"), Semaphore(state, "a", 1), Election(state, "a").leading("them"):
        held = await state.list(keys_only=True).all()
        with pytest.raises(TimeoutError) as caught:
            await waiting(state, 0.2)
        assert str(caught.value) == f"{missed} within 0.2 s"
        assert caught.value.__cause__ is None
        assert await state.list(keys_only=True).all() == held


@pytest.mark.parametrize(("waiting", "missed"), WAITS)
async def test_a_server_that_cannot_be_reached_is_the_cause(namespace: str, waiting: Waiting, missed: str) -> None:
    with servers.start() as server:
        server.kill()
        async with comity.connect(server.address, namespace=namespace) as client:
            with pytest.raises(TimeoutError) as caught:
                await waiting(client, 2.0)
    assert str(caught.value) == f"{missed} within 2 s: cannot reach {server.address}: connection refused"
    assert isinstance(caught.value.__cause__, Unavailable)


async def test_a_server_that_is_away_in_the_end_is_the_cause(namespace: str) -> None:
    with servers.start() as server:
        async with comity.connect(server.address, namespace=namespace) as client:
            assert await Lock(client, "a").try_acquire()
            waits = [
                asyncio.create_task(wait)
                for wait in (Lock(client, "a").acquire(5), Barrier(client, "a", 2).wait(5), Queue(client, "a").get(5))
            ]

            def watching() -> int:
                watches: Iterable[Any] = client._calls.channels.connection().watches
                return sum(watch.live is not None for watch in watches)

            await until(lambda: watching() == len(waits))
            server.kill()
            for error in await asyncio.gather(*waits, return_exceptions=True):
                assert isinstance(error, TimeoutError)
                assert isinstance(error.__cause__, Unavailable)
