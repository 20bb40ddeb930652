"""What recipes look like where they are printed: their names, and how they are."""

import asyncio

import comity.sync
from comity import Client
from comity.recipes import Barrier, CircuitBreaker, Counter, Election, Lock, Queue, Semaphore
from comity.sync import recipes as plain
from tests.servers import Server


async def test_holders_say_whether_they_hold(state: Client) -> None:
    lock, other = Lock(state, "a"), Lock(state, "a")
    assert repr(lock) == "<comity.recipes.Lock 'a': not held>"
    async with lock:
        assert repr(lock) == f"<comity.recipes.Lock 'a': held, fence {lock.fence}>"
        waiting = asyncio.create_task(other.acquire())
        await asyncio.wait([waiting], timeout=0)
        assert repr(other) == "<comity.recipes.Lock 'a': waiting>"
    fence = await waiting
    await state.revoke_lease(fence)
    await other.lease.lost()
    assert repr(other) == f"<comity.recipes.Lock 'a': lost, fence {fence}>"
    assert repr(Semaphore(state, "a", 2)) == "<comity.recipes.Semaphore 'a': not held>"
    assert repr(Election(state, "a")) == "<comity.recipes.Election 'a': not held>"


async def test_items_say_whether_they_are_claimed(state: Client) -> None:
    queue = Queue(state, "a")
    assert repr(queue) == "<comity.recipes.Queue 'a'>"
    id = await queue.put("x")
    item = await queue.get()
    assert repr(item) == f"<comity.recipes.Item {id}: claimed, try 1, fence {item.fence}>"
    await item.ack()
    assert repr(item) == f"<comity.recipes.Item {id}: settled, try 1, fence {item.fence}>"


async def test_the_others_say_their_names(state: Client) -> None:
    assert repr(Barrier(state, "a", 3)) == "<comity.recipes.Barrier 'a' of 3>"
    assert repr(Counter(state, "a")) == "<comity.recipes.Counter 'a'>"
    breaker = CircuitBreaker(state, "a")
    assert repr(breaker) == "<comity.recipes.CircuitBreaker 'a': not looked at yet>"
    await breaker.state()
    assert repr(breaker) == "<comity.recipes.CircuitBreaker 'a': closed>"
    await breaker.trip()
    assert repr(breaker) == "<comity.recipes.CircuitBreaker 'a': open>"
    await breaker.close()


def test_those_without_async_say_the_same(server: Server, namespace: str) -> None:
    with comity.sync.connect(server.address, namespace=namespace) as state:
        with plain.Lock(state, "a") as lock:
            assert repr(lock) == f"<comity.recipes.Lock 'a': held, fence {lock.fence}>"
        queue = plain.Queue(state, "a")
        assert repr(queue) == "<comity.recipes.Queue 'a'>"
        queue.put("x")
        with queue.claim() as item:
            assert repr(item) == f"<comity.recipes.Item {item.id}: claimed, try 1, fence {item.fence}>"
        assert repr(plain.Barrier(state, "a", 3)) == "<comity.recipes.Barrier 'a' of 3>"
        assert repr(plain.Counter(state, "a")) == "<comity.recipes.Counter 'a'>"
        breaker = plain.CircuitBreaker(state, "a")
        breaker.state()
        assert repr(breaker) == "<comity.recipes.CircuitBreaker 'a': closed>"
        breaker.close()
