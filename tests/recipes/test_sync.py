"""The recipes without async, for plain threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import comity.sync.recipes
from comity import LeaseLost, recipes, sync
from comity.sync.recipes import (
    Barrier,
    CircuitBreaker,
    CircuitOpen,
    CircuitState,
    Counter,
    Election,
    Leader,
    Lock,
    Queue,
    QueueSize,
    Semaphore,
)
from tests.servers import Server

# What agents are built upon.
INNER = {"give_back"}


@pytest.fixture
def state(server: Server, namespace: str) -> Iterator[sync.Client]:
    with sync.connect(server.address, namespace=namespace, author="ann") as client:
        yield client


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_there_is_the_same() -> None:
    assert recipes.__all__ == comity.sync.recipes.__all__
    for name in recipes.__all__:
        here, there = getattr(comity.sync.recipes, name), getattr(recipes, name)
        assert public(there) - public(here) <= INNER, name


def test_locks(state: sync.Client) -> None:
    inside = 0

    def contend(_: int) -> None:
        nonlocal inside
        with Lock(state, "a") as lock:
            inside += 1
            assert inside == 1
            state.put("x", 1, guard=lock)
            inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(contend, range(24)))
    lock = Lock(state, "a")
    assert lock.try_acquire()
    assert Lock(state, "a").owner() == "ann"
    with pytest.raises(TimeoutError):
        Lock(state, "a").acquire(timeout=0.1)
    lock.release()
    assert not lock.locked()


def test_a_loss_is_told_at_the_end_of_the_block(state: sync.Client) -> None:
    def hold() -> None:
        with Lock(state, "a") as lock:
            state.revoke_lease(lock.lease.id)
            lock.lease.lost(timeout=30)
            assert not lock.held
            with pytest.raises(LeaseLost):
                lock.check()
            with pytest.raises(LeaseLost):
                state.put("x", 1, guard=lock.guard)

    with pytest.raises(LeaseLost):
        hold()


def test_semaphores_and_elections(state: sync.Client) -> None:
    with Semaphore(state, "a", 2) as one, Semaphore(state, "a", 2):
        assert one.owners() == ["ann", "ann"]
        assert not Semaphore(state, "a", 2).try_acquire()
    election = Election(state, "a")
    with election.leading("here"):
        election.proclaim("there")
        assert Election(state, "a").leader() == Leader("there", election.fence)
        assert next(Election(state, "a").observe()) == election.leader()
    assert election.leader() is None


def test_barriers_and_counters(state: sync.Client) -> None:
    barrier = Barrier(state, "a", 4)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: barrier.wait(timeout=30), range(4))) == [1] * 4
    assert barrier.waiting() == 0
    counter = Counter(state, "a")
    assert [counter.increment(), counter.decrement(3), counter.get(), counter.reset()] == [1, -2, -2, -2]


def test_queues(state: sync.Client) -> None:
    queue = Queue(state, "a", tries=1)
    done: list[int] = []

    def plan(tx: sync.Transaction) -> None:
        for number in range(20):
            queue.put(number, tx=tx)

    def consume(_: int) -> None:
        while True:
            try:
                item = queue.get(timeout=1)
            except TimeoutError:
                return
            assert threading.current_thread() is not threading.main_thread()
            item.ack(lambda tx: tx.increment("done"))
            done.append(item.value)

    state.transact(plan)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(consume, range(4)))
    assert sorted(done) == list(range(20))
    counted = state.get("done")
    assert counted is not None
    assert counted.value == 20

    def fail() -> None:
        with queue.claim() as item:
            state.put("y", 1, guard=item)
            raise KeyError

    queue.put("x", 5)
    with pytest.raises(KeyError):
        fail()
    assert queue.size() == QueueSize(0, 0, 1)
    assert queue.requeue() == 1
    with queue.claim() as item:
        assert item.value == "x"
    assert queue.try_get() is None


def test_claims_live_by_a_shared_lease(state: sync.Client) -> None:
    lease = state.grant_lease(60)
    queue = Queue(state, "a", lease=lease)
    for number in range(3):
        queue.put(number)
    with queue.claim() as item:
        assert item.lease.id == lease.id
    queue.get().close()
    assert queue.size() == QueueSize(1, 1, 0)
    assert lease.alive
    lease.revoke()
    assert queue.size() == QueueSize(2, 0, 0)
    with pytest.raises(TypeError, match="lease must be Lease, not int"):
        Queue(state, "a", lease=lease.id)  # type: ignore[arg-type]


def test_circuit_breakers(state: sync.Client) -> None:
    breaker = CircuitBreaker(state, "a", 2)

    @breaker
    def search(query: str) -> str:
        if not query:
            raise KeyError
        return query

    assert search("x") == "x"
    for _ in range(2):
        with pytest.raises(KeyError):
            search("")
    while breaker.state() is not CircuitState.OPEN:
        pass
    with pytest.raises(CircuitOpen):
        search("x")
    assert breaker.retry_after() > 0
    state.delete("breakers/a/state/open")
    while breaker.state() is not CircuitState.HALF_OPEN:
        pass
    assert search("x") == "x"
    while breaker.state() is not CircuitState.CLOSED:
        pass
    breaker.close()
