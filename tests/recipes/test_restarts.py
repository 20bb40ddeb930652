"""A server over a file is killed and starts again: whoever holds something holds it on, and whoever waits waits on."""

import asyncio
from pathlib import Path

import comity
from comity.recipes import CircuitBreaker, CircuitState, Election, Lock, Queue, Semaphore
from tests import servers
from tests.waiting import until


async def test_a_restart_is_borne_with(tmp_path: Path) -> None:
    with servers.start("--store", f"sqlite:{tmp_path / 'comity.db'}") as server:
        async with comity.connect(server.address, author="ann", timeout=30) as state:
            queue, breaker = Queue(state, "a", 30), CircuitBreaker(state, "a", 1, reset_after=60)
            assert await breaker.state() is CircuitState.CLOSED
            await queue.put("held")
            async with Lock(state, "a", 30) as lock, Semaphore(state, "a", 1, 30) as slot, queue.claim() as item:
                next_lock = asyncio.create_task(Lock(state, "a", 30).acquire())
                next_slot = asyncio.create_task(Semaphore(state, "a", 1, 30).acquire())
                next_item = asyncio.create_task(queue.get())
                observed = Election(state, "a").observe()
                assert await anext(observed) is None

                async def are_in_line() -> bool:
                    return len(await state.list("locks/").all()) + len(await state.list("semaphores/").all()) == 5

                await until(are_in_line)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
                for held in (lock, slot, item):
                    await state.put("x", 1, guard=held)
                await breaker.trip()
                await until(lambda: breaker._circuit().last.open is not None)
                await queue.put("late")
                assert (await next_item).value == "late"
                assert not next_lock.done()
                assert not next_slot.done()
            await next_lock
            await next_slot
            async with Election(state, "a", 30).leading("me"):
                leader = await anext(observed)
                assert leader is not None
                assert leader.value == "me"
            await breaker.close()
