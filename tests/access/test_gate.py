"""What is looked at when rights change: all calls that last, without having others wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial

import pytest

from comity_server import tasks
from comity_server.access.caller import NOBODY, Caller
from comity_server.access.gate import PORTION, Gate
from tests.waiting import until

CALLS = 5 * PORTION


class Lasting:
    """Calls that last, which know in which turn of the event loop they are looked at."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.looks: Counter[int] = Counter()
        self.turns: Counter[int] = Counter()
        self.turn = 0
        self.change_after = 0  # so many looks, what is allowed changes once more

    async def count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def look(self, number: int) -> None:
        self.looks[number] += 1
        self.turns[self.turn] += 1
        if self.looks.total() == self.change_after:
            self.gate.changed()

    def end(self, error: Exception) -> None:
        raise AssertionError(error)


@pytest.fixture
async def lasting() -> AsyncIterator[Lasting]:
    calls = Lasting(Gate())
    running = [asyncio.create_task(calls.gate.run()), asyncio.create_task(calls.count())]
    with ExitStack() as stack:
        for number in range(CALLS):
            caller = Caller(NOBODY, calls.gate)
            stack.enter_context(caller.standing(partial(calls.look, number), calls.end))
        yield calls
    await asyncio.gather(*map(tasks.end, running))


async def test_others_have_their_turn_while_all_calls_are_looked_at(lasting: Lasting) -> None:
    lasting.gate.changed()
    await until(lambda: len(lasting.looks) == CALLS)
    assert max(lasting.turns.values()) <= PORTION
    assert set(lasting.looks.values()) == {1}


async def test_a_second_change_begins_anew(lasting: Lasting) -> None:
    lasting.change_after = PORTION + 1
    lasting.gate.changed()
    await until(lambda: lasting.looks.total() == CALLS + PORTION + 1)
    assert Counter(lasting.looks.values()) == {1: CALLS - PORTION - 1, 2: PORTION + 1}
