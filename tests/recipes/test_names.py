"""What recipes may be called, and what they are made with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from comity import Client, FailedPrecondition, InvalidArgument
from comity.recipes import Barrier, CircuitBreaker, Counter, Election, Lock, Queue, QueueSize, Semaphore

MADE: list[Callable[[Client, Any], object]] = [
    Lock,
    partial(Semaphore, limit=2),
    Election,
    partial(Barrier, parties=2),
    Queue,
    Counter,
    CircuitBreaker,
]
WRONG_NAMES = ["", "a/b", "/", "nul\0", "x" * 201, "ü" * 101, "\ud800"]
STRANGE_NAMES = ["x" * 200, "ü" * 100, " ", "..", "a b", "%2F", "locks", "\n", "🔒", "*", "a\\b", "ID"]


@pytest.mark.parametrize("made", MADE)
async def test_names_that_do_not_fit_are_refused(state: Client, made: Callable[[Client, Any], object]) -> None:
    for name in WRONG_NAMES:
        with pytest.raises(ValueError, match="a name"):
            made(state, name)
    wrong: list[object] = [None, 7, b"a", ["a"]]
    for each in wrong:
        with pytest.raises(TypeError, match="name must be a str"):
            made(state, each)


@pytest.mark.parametrize("name", STRANGE_NAMES)
async def test_all_else_is_a_name(state: Client, name: str) -> None:
    async with Lock(state, name) as lock, Semaphore(state, name, 1), Election(state, name).leading(name):
        assert lock.held
    assert await Barrier(state, name, 1).wait() == 1
    assert await Counter(state, name).increment() == 1
    queue = Queue(state, name)
    await queue.put(name)
    async with queue.claim() as item:
        assert item.value == name
    breaker = CircuitBreaker(state, name)
    async with breaker:
        pass
    await breaker.trip()
    await breaker.reset()
    await breaker.close()
    left = {
        "counters/" + name,
        f"barriers/{name}/round",
        f"barriers/{name}/passed",
        f"queues/{name}/tail",
        f"semaphores/{name}/limit",
    }
    assert {entry.key async for entry in state.list()} == left


async def test_one_name_is_no_part_of_another(state: Client) -> None:
    for first, second in (("a", "ab"), ("a", "a "), ("a", "A")):
        async with Lock(state, first), Semaphore(state, first, 1):
            assert await Lock(state, second).try_acquire()
            assert await Semaphore(state, second, 1).try_acquire()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda state: Lock(state, "a", 0), ValueError, "ttl is a number of seconds above 0, not 0"),
        (lambda state: Lock(state, "a", float("nan")), ValueError, "ttl"),
        (lambda state: Lock(state, "a", float("inf")), ValueError, "ttl"),
        (lambda state: Lock(state, "a", "1"), TypeError, "ttl must be a number of seconds, not str"),  # type: ignore[arg-type]
        (lambda state: Lock(state, "a", True), TypeError, "ttl"),
        (lambda state: Semaphore(state, "a", 0), ValueError, "limit is a whole number from 1"),
        (lambda state: Semaphore(state, "a", 1.5), TypeError, "limit must be a whole number, not float"),  # type: ignore[arg-type]
        (lambda state: Barrier(state, "a", 0), ValueError, "parties is a whole number from 1"),
        (lambda state: Barrier(state, "a", 1_001), ValueError, "parties is a whole number from 1"),
        (lambda state: Queue(state, "a", tries=0), ValueError, "tries is a whole number from 1"),
        (lambda state: Queue(state, "a", lease=7), TypeError, "lease must be Lease, not int"),  # type: ignore[arg-type]
        (lambda state: Lock(state, "a", owner=7), TypeError, "owner must be a str, not int"),  # type: ignore[arg-type]
        (lambda state: CircuitBreaker(state, "a", 0), ValueError, "failures is a whole number from 1"),
        (lambda state: CircuitBreaker(state, "a", within=-1), ValueError, "within is a number of seconds"),
        (lambda state: CircuitBreaker(state, "a", reset_after="x"), TypeError, "reset_after must be a number"),  # type: ignore[arg-type]
    ],
)
async def test_arguments_that_do_not_fit_are_refused(
    state: Client, wrong: Callable[[Client], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        wrong(state)


async def test_waits_are_numbers_of_seconds(state: Client) -> None:
    waits: list[Callable[[Any], Any]] = [
        Lock(state, "a").acquire,
        Semaphore(state, "a", 1).acquire,
        partial(Election(state, "a").campaign, "me"),
        Barrier(state, "a", 2).wait,
        Queue(state, "a").get,
    ]
    for wait in waits:
        for wrong in ("1", True, [1]):
            with pytest.raises(TypeError, match="timeout must be a number of seconds"):
                await wait(wrong)
        with pytest.raises(ValueError, match="timeout is a number of seconds"):
            await wait(float("nan"))
    for wait in waits[3:]:
        for late in (0, -1):
            with pytest.raises(TimeoutError):
                await wait(late)
    assert await waits[0](float("inf"))
    assert [entry.key async for entry in state.list("barriers/")] == []


async def test_what_others_wrote_there_is_told_or_ignored(state: Client) -> None:
    await state.put("counters/a", "many")
    for use in (Counter(state, "a").get, Counter(state, "a").increment, Counter(state, "a").reset):
        with pytest.raises(FailedPrecondition):
            await use()
    for key in ("line/x", "line/x/claim", "line/0999-1", "line/0999-0000000000000001/x", "x"):
        await state.put(f"queues/a/{key}", "x")
    queue = Queue(state, "a")
    assert await queue.try_get() is None
    assert await queue.size() == QueueSize(0, 0, 0)
    await state.put("barriers/a/waiting/x", "x", ttl=60)
    with pytest.raises(FailedPrecondition):
        await Barrier(state, "a", 2).wait()
    await state.put("locks/a/x", b"x", ttl=60)
    assert await Lock(state, "a").owner() == ""
    await state.put("locks/b/x", b"x")
    async with Lock(state, "b"):
        pass


async def test_what_the_server_refuses_is_told(state: Client) -> None:
    with pytest.raises(InvalidArgument, match="ttl"):
        await Lock(state, "a", ttl=0.001).acquire()
    assert [entry async for entry in state.list()] == []
