"""How much a caller may do in a time: what it has left as the principal that it is, and in the namespace that it uses.

What is let in at once is paid for at once, or refused with the time to wait. What is known only later, as how large an
answer is, is paid for later: then whoever is in debt waits, or is refused until the debt is gone. Streams are not
refused but held back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from comity_server.access.buckets import Bucket
from comity_server.access.limits import Rates
from comity_server.errors import RateLimited

ACCOUNTS: Final = 10_000  # names that something was taken from; callers choose some
UNITS: Final = ("operations", "bytes")
UNBOUNDED: Final = Rates()
LOOK_SECONDS: Final = 1.0  # after which it is looked whether who waits has to wait as long still: rates may change


class Account:
    """What one principal, or one namespace, has left.

    Args:
        limit: which bound that is, as the settings call it.
        name: whose, for who is refused.
        rates: how much comes to be there again.
        clock: the time in seconds.
    """

    __slots__ = ("_buckets", "_clock", "_limit", "_name", "_turn")

    def __init__(self, limit: str, name: str, rates: Rates, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._name = name
        self._clock = clock
        self._buckets = [None if rate is None else Bucket(rate) for rate in rates]
        self._turn = asyncio.Lock()

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
        return not self._turn.locked() and all(bucket is None or bucket.is_full(now) for bucket in self._buckets)

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

    def charge(self, operations: int, size: int) -> None:
        """Take so many operations and bytes, be they there or not."""
        now = self._clock()
        for bucket, cost in zip(self._buckets, (operations, size), strict=True):
            if bucket is not None and cost:
                bucket.take(cost, now)

    def give(self, operations: int) -> None:
        """Put operations back that were taken."""
        bucket = self._buckets[0]
        if bucket is not None:
            bucket.give(operations)

    def owes(self) -> float:
        """How many seconds it takes until what was taken is there."""
        return self._wait(0, 0)

    async def hold(self, operations: int, size: int) -> None:
        """Take as much, and return when nothing is owed. Whoever waits does so in the order of arrival."""
        if not self._turn.locked() and not self._wait(operations, size):
            self.charge(operations, size)
            return
        async with self._turn:
            self.charge(operations, size)
            while seconds := self.owes():  # noqa: ASYNC110 - it is time that has to pass
                await asyncio.sleep(min(seconds, LOOK_SECONDS))

    def _wait(self, operations: int, size: int) -> float:
        now = self._clock()
        return max(
            0.0 if bucket is None else bucket.wait(cost, now)
            for bucket, cost in zip(self._buckets, (operations, size), strict=True)
        )


class Accounts:
    """The accounts from which something is missing, up to a bound: beyond it those go that were used least lately.

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
        self._forget()
        account = self._accounts[key] = Account(self._limit, name or address, rates, self._clock)
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

    def _forget(self) -> None:
        """Make room for one."""
        while self._accounts:
            account = next(iter(self._accounts.values()))
            if len(self._accounts) < ACCOUNTS and not account.is_whole():
                break
            self._accounts.popitem(last=False)
