"""Load: the same calls over and over from many tasks, with how long each took. For `comity bench` and `make bench`."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

__all__ = ["Call", "Times", "drive"]

Call = Callable[[int], Awaitable[object]]
"""A call, which is told its number."""

DIGITS = 3  # that are kept of a time: within half a percent of it, in no more buckets than a long run can fill


class Times:
    """How long calls took, in seconds, in buckets: what it holds does not grow with the calls."""

    def __init__(self) -> None:
        self._buckets: Counter[float] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[float(f"{seconds:.{DIGITS - 1}e}")] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float:
        """What so many of a hundred calls took at the most. Raises ValueError if there were none."""
        if not self.count:
            raise ValueError("nothing was timed")
        left = self.count * percent / 100
        for seconds, calls in self.buckets():
            left -= calls
            if left <= 0:
                return seconds
        return self.longest

    def add_all(self, buckets: Iterable[tuple[float, int]], longest: float) -> None:
        """Add what another one has, by its buckets."""
        for seconds, calls in buckets:
            self._buckets[seconds] += calls
            self.count += calls
        self.longest = max(self.longest, longest)

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Times and how many calls took about so long, the shortest first."""
        return iter(sorted(self._buckets.items()))


async def drive(
    call: Call,
    *,
    tasks: int,
    seconds: float,
    times: Times | None = None,
    failed: Callable[[Exception], None] | None = None,
) -> float:
    """Make calls for a while, and return how long that was, in seconds.

    tasks: how many calls are in progress at a time.
    times: what the calls that succeed are added to, unless the calls time themselves.
    failed: told what a call raises, before the task goes on; without it that is raised.
    """
    numbers = itertools.count()
    began = time.perf_counter()
    end = began + seconds

    async def work() -> None:
        while (start := time.perf_counter()) < end:
            try:
                await call(next(numbers))
            except Exception as error:
                if failed is None:
                    raise
                failed(error)
                continue
            if times is not None:
                times.add(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return time.perf_counter() - began
