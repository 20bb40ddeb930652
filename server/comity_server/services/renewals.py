"""Which renewals of leases wait for a rate, and how long.

A lease must not end because its holder is busy: so as often as a ttl asks for it, and some times more, it is renewed
whatever the rates say. What comes more often than that waits until the rates have room for it, or until its lease is
to be renewed anyway. Meanwhile the stream is read on, so that the other leases on it are renewed, up to a bound.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from comity_server import tasks
from comity_server.access.bounds import Meter
from comity_server.access.buckets import Bucket, Rate

OF_A_TTL: Final = 12  # renewals that wait for nothing; due are three. So many may come at once, too.
WAITING: Final = 16  # renewals of a stream that wait, beyond which it is not read
UNKNOWN: Final = 16  # renewals on a stream of leases that are not there, beyond which those of what is not known wait
UNKNOWN_SECONDS: Final = 0.1  # how long they do at most
FIRST: Final = Rate(OF_A_TTL, OF_A_TTL)  # of a lease whose ttl is not known yet
SWEPT: Final = 1000  # leases that are remembered, at which it is looked whether they need be


class Renewal(NamedTuple):
    namespace: str
    lease_id: int
    ended: bool  # so the store is not asked to renew it

    @property
    def lease(self) -> tuple[str, int]:
        return self.namespace, self.lease_id


class Allowances:
    """How often each lease may be renewed without waiting for a rate, on whatever stream.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, int], Bucket] = {}
        self._sweep_at = SWEPT

    def knows(self, lease: tuple[str, int]) -> bool:
        """Whether it was there lately."""
        bucket = self._buckets.get(lease)
        return bucket is not None and bucket.rate is not FIRST

    def seconds(self, lease: tuple[str, int]) -> float:
        """How long until it may be renewed without waiting."""
        bucket = self._buckets.get(lease)
        return 0.0 if bucket is None else bucket.wait(1, self._clock())

    def take(self, lease: tuple[str, int]) -> None:
        """It is to be renewed."""
        bucket = self._buckets.get(lease)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._sweep()
            bucket = self._buckets[lease] = Bucket(FIRST)
        bucket.take(1, self._clock())

    def renewed(self, lease: tuple[str, int], micros: int) -> None:
        """It was, and lives for so many µs: its ttl, or less if it took long until that was known."""
        bucket = self._buckets.get(lease)
        rate = Rate(OF_A_TTL * 1e6 / micros, OF_A_TTL)
        if bucket is not None and (bucket.rate is FIRST or rate.per_second < bucket.rate.per_second):
            bucket.change(rate, self._clock())

    def __len__(self) -> int:
        return len(self._buckets)

    def _sweep(self) -> None:
        """Forget those of which nothing is missing."""
        now = self._clock()
        self._buckets = {lease: bucket for lease, bucket in self._buckets.items() if not bucket.is_full(now)}
        self._sweep_at = max(SWEPT, 2 * len(self._buckets))


class Turnstile:
    """Lets the renewals of one stream through.

    Args:
        allowances: of all leases.
        meter: what the stream's caller may do.
        go_on: takes renewals that may be done.
    """

    def __init__(self, allowances: Allowances, meter: Meter, go_on: Callable[[Sequence[Renewal]], None]) -> None:
        self._allowances = allowances
        self._meter = meter
        self._go_on = go_on
        self._unknown = 0
        self._waiting: dict[tuple[str, int], list[Renewal]] = {}
        self._letting: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._count = 0
        self._room = asyncio.Event()

    async def enter(self, renewal: Renewal, size: int) -> None:
        """Take up a renewal that came, in so many bytes. Returns when the next one may be read."""
        lease = renewal.lease
        meter = self._meter.of(renewal.namespace)
        if not meter.counts:
            self._go_on([renewal])
        elif self._seconds(lease):
            meter.charge(0, size)
            self._count += 1
            self._waiting.setdefault(lease, []).append(renewal)
            if lease not in self._letting:
                self._letting[lease] = asyncio.create_task(self._let(lease, meter))
            while self._count >= WAITING:
                self._room.clear()
                await self._room.wait()
        else:
            self._allowances.take(lease)
            meter.charge(1, size)
            self._go_on([renewal])

    def done(self, renewal: Renewal, micros: int) -> None:
        """A renewal was done, of a lease that lives for so many µs; 0: it is not there."""
        if not micros:
            self._unknown += 1
            return
        self._unknown = max(0, self._unknown - 1)
        if self._meter.of(renewal.namespace).counts:
            self._allowances.renewed(renewal.lease, micros)

    def open(self) -> None:
        """Let all that waits go on at once."""
        for task in self._letting.values():
            task.cancel()
        self._letting.clear()
        for lease, renewals in list(self._waiting.items()):
            self._meter.of(lease[0]).charge(len(renewals), 0)
            self._let_go(lease)

    async def close(self) -> None:
        """Let nothing go on any more."""
        for task in list(self._letting.values()):
            await tasks.end(task)

    async def _let(self, lease: tuple[str, int], meter: Meter) -> None:
        """Let the renewals of a lease go on together, when they are paid for or the lease is to be renewed anyway."""
        paid = len(self._waiting[lease])
        try:
            async with asyncio.timeout(self._seconds(lease)):
                await meter.hold(paid, 0)
        except TimeoutError:
            self._allowances.take(lease)
        del self._letting[lease]
        meter.charge(len(self._waiting[lease]) - paid, 0)  # what came meanwhile
        self._let_go(lease)

    def _let_go(self, lease: tuple[str, int]) -> None:
        renewals = self._waiting.pop(lease)
        self._count -= len(renewals)
        self._go_on(renewals)
        self._room.set()

    def _seconds(self, lease: tuple[str, int]) -> float:
        """How long a renewal waits at most."""
        if self._allowances.knows(lease) or self._unknown < UNKNOWN:
            return self._allowances.seconds(lease)
        return UNKNOWN_SECONDS
