"""Shares the event loop between what takes long and everything else.

What takes long is done in turns of some milliseconds, one at a time in the whole process, whoever has it. After each
the loop belongs to all others for as long as the turn took, unless nobody came meanwhile. One round of the loop would
be too little: gRPC hands over about one event in each, and a call takes several, each of which comes of the one before.
So what takes long has half of the loop at the least, and all of it where nobody else wants any.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

SECONDS: Final = 0.002  # of a turn, after which the next one may have it
MOST: Final = 0.05  # that what begins in the same round takes together, and that is given to others after a turn
SHORT: Final = 0.0005  # what takes less is as short as what others do
STEPS: Final = 1_000  # after which it is looked how late it is: each takes about a µs
EMPTY: Final = 0.00005  # what a round takes at most in which there is nothing to do
ROUNDS: Final = 4  # of those after a turn, which say that nobody came meanwhile


class Turns:
    """One for all that an event loop does."""

    def __init__(self) -> None:
        # One of those that go in steps and one of those that do not are at the lock, which lets in whoever came first:
        # so they alternate, however many there are of a kind.
        self._order = asyncio.Lock()
        self._paced = asyncio.Lock()
        self._whole = asyncio.Lock()
        self._spent = 0.0  # in this round
        self._until = 0.0  # when others had as much as was taken of them, by the monotonic clock

    @property
    def is_full(self) -> bool:
        """Whether so much of this round was taken that nothing more may begin in it."""
        return self._spent >= MOST

    def spend(self, seconds: float) -> None:
        """So much of this round was taken."""
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._begin)
        self._spent += seconds
        self._until = time.monotonic() + min(self._spent, MOST)

    async def next(self, *, paced: bool = True) -> None:
        """Return when others had their part. Whoever waits has a turn in the order of arrival, and says what it took
        by `spend`."""
        async with self._paced if paced else self._whole, self._order:
            until, now = self._until, time.monotonic()
            rounds = 0
            while not rounds or (now < until and rounds < ROUNDS):
                await asyncio.sleep(0)
                before, now = now, time.monotonic()
                rounds += 1
                if now - before > EMPTY and now < until:
                    await asyncio.sleep(until - now)
                    break

    def _begin(self) -> None:
        self._spent = 0.0


class Pace:
    """Of a piece of work that takes long: where it lets others in.

    Args:
        begun: when it last began to take up the loop, by the monotonic clock; None: now.
    """

    __slots__ = ("_begun", "_steps")

    def __init__(self, begun: float | None = None) -> None:
        self._begun = time.monotonic() if begun is None else begun
        self._steps = 0

    async def step(self, count: int = 1) -> None:
        """So many more steps were done, of about a µs each. Returns when there may be more."""
        self._steps += count
        if self._steps >= STEPS:
            self._steps = 0
            if (seconds := time.monotonic() - self._begun) >= SECONDS:
                turns = of_this_loop()
                turns.spend(min(seconds, MOST))  # what is more was not work but waited for
                await turns.next()
                self.resume()

    def resume(self) -> None:
        """Go on after something was waited for."""
        self._begun = time.monotonic()

    def pause(self) -> None:
        """It is done, or waits for something."""
        if (seconds := time.monotonic() - self._begun) > SHORT:
            of_this_loop().spend(seconds)


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for a turn, for something that is done in one go."""
    turns = of_this_loop()
    await turns.next(paced=False)
    begun = time.monotonic()
    try:
        yield
    finally:
        turns.spend(time.monotonic() - begun)


def of_this_loop() -> Turns:
    loop = asyncio.get_running_loop()
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = Turns()
    return found


_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]] = WeakKeyDictionary()
