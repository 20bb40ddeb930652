"""The event loop is everybody else's between two turns of what takes long."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from comity.v1 import checkpoint_pb2, checkpoint_pb2_grpc, state_pb2
from comity_server import turns
from comity_server.model import Put, Transaction
from comity_server.turns import ROUNDS, Pace, Turns, of_this_loop, turn
from tests.wire.inprocess import run

KEYS = 10_000
CALLERS = 8


class Others:
    """How often the rest of the loop had its turn."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@contextmanager
def others() -> Iterator[Others]:
    made = Others()
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()


async def test_where_nobody_comes_the_next_turn_begins_after_some_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "EMPTY", 1e9)
    shared = Turns()
    with others() as rest:
        shared.spend(turns.MOST)
        await shared.next()
        assert ROUNDS <= rest.count <= ROUNDS + 1


async def test_who_comes_has_the_loop_for_as_long_as_the_turn_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "EMPTY", 0)
    shared = Turns()
    with others() as rest:
        begun = time.monotonic()
        shared.spend(turns.MOST)
        await shared.next()
        assert time.monotonic() - begun >= turns.MOST - 0.002, "but for the grain of timers"
        assert rest.count > ROUNDS + 1


async def test_no_more_is_given_to_others_than_was_done_or_for_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "STEPS", 1)
    pace = Pace(time.monotonic() - 3600)
    await pace.step()
    assert of_this_loop()._until - time.monotonic() <= turns.MOST


async def test_steps_and_what_is_done_in_one_go_alternate() -> None:
    done: list[str] = []

    async def step(pace: Pace) -> None:
        await pace.step()
        done.append("step")

    async def whole() -> None:
        async with turn():
            done.append("whole")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "STEPS", 1)
        patch.setattr(turns, "SECONDS", 0)
        await asyncio.gather(*(step(Pace()) for _ in range(6)), *(whole() for _ in range(3)))
    assert "".join(each[0] for each in done[:6]) in ("swswsw", "sswsws")


async def test_calls_are_answered_while_a_restore_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several for each turn: of a call gRPC hands over several events, one after another."""
    given = 0
    following = Turns.next

    async def counted(shared: Turns, *, paced: bool = True) -> None:
        nonlocal given
        await following(shared, paced=paced)
        given += 1

    monkeypatch.setattr(Turns, "next", counted)
    monkeypatch.setattr(turns, "SECONDS", 0.005)
    async with run() as running:
        for first in range(0, KEYS, 1000):
            puts = [Put(f"k{first + number:05}", b"") for number in range(1000)]
            await running.store.commit("n", [Transaction(then=puts)])
        answered, ended = 0, asyncio.Event()

        async def call() -> None:
            nonlocal answered
            while not ended.is_set():
                await running.state.Get(state_pb2.GetRequest(namespace="other", key="k"))
                answered += 1

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        restores: checkpoint_pb2_grpc.CheckpointServiceAsyncStub = checkpoint_pb2_grpc.CheckpointServiceStub(
            running.channel
        )
        given = answered = 0
        for revision in (1, KEYS // 1000) * 5:
            ref = checkpoint_pb2.RestoreRequest(namespace="n")
            ref.ref.revision = revision
            await restores.Restore(ref)
        shares = answered, given
        ended.set()
        await asyncio.gather(*callers)
    assert shares[1] > 5
    assert shares[0] > 4 * shares[1], "calls that were answered, and turns that were given"
