"""How much a caller may do in a time: what it has left as the principal that it is, and in the namespace that it uses.

What is let in at once is paid for at once, or refused with the time to wait. What is known only later, as how large an
answer is, is paid for later: then whoever is in debt waits, or is refused until the debt is gone. Streams are not
refused but held back. While one is, nothing is ever there for who comes: so a call waits for its turn then, for a
moment, and calls and streams take turns.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from comity_server.access.buckets import Bucket
from comity_server.access.limits import Rates
from comity_server.errors import RateLimited

ACCOUNTS: Final = 10_000  # names that something was taken from; callers choose some
LOOKED_AT: Final = 64  # of them, for one that may be forgotten
FULL_SECONDS: Final = 1.0  # how long who comes is refused where none may be
UNITS: Final = ("operations", "bytes")
UNBOUNDED: Final = Rates()
LOOK_SECONDS: Final = 1.0  # after which it is looked whether who waits has to wait as long still: rates may change

WAIT_SECONDS: Final = 1.0  # how long a call waits for its turn where streams wait
WAITING: Final = 100  # calls that do, of one account; others are refused at once
TURN_SECONDS: Final = 0.01  # what a stream takes at a time
PIECE_BYTES: Final = 1024  # the least that it takes at a time, but for the rest

Patience = Callable[[], float]
"""Tells for how many seconds a call may wait for its turn. Asked when it has to wait."""


def patient() -> float:
    """Of a call that has all the time that it may take."""
    return WAIT_SECONDS


class Account:
    """What one principal, or one namespace, has left.

    Args:
        limit: which bound that is, as the settings call it.
        name: whose, for who is refused.
        rates: how much comes to be there again.
        clock: the time in seconds.
    """

    __slots__ = ("_buckets", "_calls", "_clock", "_held", "_limit", "_name", "_streams", "_turn", "_waiting")

    def __init__(self, limit: str, name: str, rates: Rates, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._name = name
        self._clock = clock
        self._buckets = [None if rate is None else Bucket(rate) for rate in rates]
        # One of the calls and one of the streams that wait are at the lock, which lets in whoever came first: so they
        # alternate.
        self._turn = asyncio.Lock()
        self._calls = asyncio.Lock()
        self._streams = asyncio.Lock()
        self._waiting = 0  # calls
        self._held = 0  # streams

    def change(self, rates: Rates) -> None:
        """Go on with other rates, and as much missing as there is."""
        for place, rate in enumerate(rates):
            bucket = self._buckets[place]
            if rate is None or bucket is None:
                self._buckets[place] = None if rate is None else Bucket(rate)
            else:
                bucket.change(rate, self._clock())

    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        now = self._clock()
        return not self.is_awaited() and all(bucket is None or bucket.is_full(now) for bucket in self._buckets)

    def is_awaited(self) -> bool:
        """Whether anybody waits for what is to come."""
        return bool(self._held or self._waiting)

    def pay(self, operations: int) -> None:
        """Take so many operations. Raises RateLimited, having taken none, if they are not there or bytes are owed."""
        self.check(operations)
        self.charge(operations, 0)

    def check(self, operations: int) -> None:
        """Raise RateLimited if so many operations are not there, or bytes are owed."""
        now = self._clock()
        for bucket, cost, unit in zip(self._buckets, (operations, 0), UNITS, strict=True):
            if bucket is not None and (seconds := bucket.wait(cost, now)):
                raise RateLimited(self._limit, self._name, bucket.rate.per_second, unit, seconds)

    def refusal(self, operations: int, size: int) -> RateLimited | None:
        """Why `hold` would wait with so much, and for how long, if nobody else did; None: it would not."""
        now = self._clock()
        longest: RateLimited | None = None
        for bucket, cost, unit in zip(self._buckets, (operations, size), UNITS, strict=True):
            if bucket is None:
                continue
            per_second, burst = bucket.rate
            seconds = bucket.wait(cost, now) + max(cost - burst, 0.0) / per_second
            if seconds and (longest is None or seconds > longest.seconds):
                longest = RateLimited(self._limit, self._name, per_second, unit, seconds)
        return longest

    def per_second(self) -> tuple[float, float]:
        """The operations and the bytes that come to be there."""
        operations, size = (math.inf if bucket is None else bucket.rate.per_second for bucket in self._buckets)
        return operations, size

    async def pay_in_turn(self, operations: int, patience: Patience) -> None:
        """The same; where others wait, do so in turn with them, for as long as `patience` says then."""
        if not self.is_awaited() or self._waiting >= WAITING:
            self.pay(operations)
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(patience()), self._calls, self._turn:
                while seconds := self._wait(operations, 0):  # noqa: ASYNC110 - it is time that has to pass
                    await asyncio.sleep(min(seconds, LOOK_SECONDS))
                self.charge(operations, 0)
        except TimeoutError:
            self.pay(operations)
        finally:
            self._waiting -= 1

    def charge(self, operations: int, size: int) -> None:
        """Take so many operations and bytes, be they there or not."""
        now = self._clock()
        for bucket, cost in zip(self._buckets, (operations, size), strict=True):
            if bucket is not None and cost:
                bucket.take(cost, now)

    def owe(self, seconds: float) -> None:
        """Take what it takes so many seconds to come back from owing."""
        now = self._clock()
        for bucket in self._buckets:
            if bucket is not None:
                bucket.take(bucket.rate.burst + bucket.rate.per_second * seconds, now)

    def give(self, operations: int) -> None:
        """Put operations back that were taken."""
        bucket = self._buckets[0]
        if bucket is not None:
            bucket.give(operations)

    def owes(self) -> float:
        """How many seconds it takes until what was taken is there."""
        return self._wait(0, 0)

    async def hold(self, operations: int, size: int) -> None:
        """Take as much, a little at a time, and return when nothing is owed. Whoever waits does so in turn."""
        if not self.is_awaited() and not self._wait(operations, size):
            self.charge(operations, size)
            return
        self._held += 1
        try:
            pieces = self._pieces(operations, size)
            for piece in range(pieces):
                async with self._streams, self._turn:
                    self.charge(_part(operations, piece, pieces), _part(size, piece, pieces))
                    while seconds := self.owes():  # noqa: ASYNC110 - it is time that has to pass
                        await asyncio.sleep(min(seconds, LOOK_SECONDS))
        finally:
            self._held -= 1

    def _pieces(self, operations: int, size: int) -> int:
        """In how many parts to take as much, so that each takes a short time to be there."""
        pieces = 1
        for bucket, cost, most in zip(
            self._buckets, (operations, size), (operations, size // PIECE_BYTES), strict=True
        ):
            if bucket is not None:
                pieces = max(pieces, min(most, math.ceil(cost / (bucket.rate.per_second * TURN_SECONDS))))
        return pieces

    def _wait(self, operations: int, size: int) -> float:
        now = self._clock()
        return max(
            0.0 if bucket is None else bucket.wait(cost, now)
            for bucket, cost in zip(self._buckets, (operations, size), strict=True)
        )


def _part(amount: int, piece: int, pieces: int) -> int:
    return amount * (piece + 1) // pieces - amount * piece // pieces


class Accounts:
    """The accounts from which something is missing, up to a bound: beyond it one goes that was used least lately, and
    that owes nothing. Where all owe, what is new is refused, as if it owed too.

    Args:
        limit: which bound they are of, as the settings call it.
        rates: those of a name.
        clock: the time in seconds.
    """

    def __init__(self, limit: str, rates: Callable[[str], Rates], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._rates = rates
        self._clock = clock
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def find(self, name: str, address: str = "") -> Account | None:
        """The account of a name, or of an address that has none, if there is a bound on it. To be used at once."""
        key = (name, address)
        account = self._accounts.get(key)
        if account is not None:
            self._accounts.move_to_end(key)
            return account
        rates = self._rates(name)
        if rates == UNBOUNDED:
            return None
        account = Account(self._limit, name or address, rates, self._clock)
        if self._make_room():
            self._accounts[key] = account
        else:
            account.owe(FULL_SECONDS)
        return account

    def known(self, name: str, address: str = "") -> Account | None:
        """The same if something was taken from it."""
        return self._accounts.get((name, address))

    def changed(self) -> None:
        """The rates are others."""
        for name, address in list(self._accounts):
            rates = self._rates(name)
            self._accounts[name, address].change(rates)
            if rates == UNBOUNDED:
                del self._accounts[name, address]

    def _make_room(self) -> bool:
        """Make room for one, if there is any to be made. What is owed is not forgotten."""
        accounts = self._accounts
        while accounts and next(iter(accounts.values())).is_whole():
            accounts.popitem(last=False)
        if len(accounts) < ACCOUNTS:
            return True
        for _ in range(LOOKED_AT):
            key, account = next(iter(accounts.items()))
            if not account.is_awaited() and not account.owes():
                del accounts[key]
                return True
            accounts.move_to_end(key)  # so that the next one looks at others
        return False
