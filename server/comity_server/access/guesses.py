"""Who shows tokens that are wrong, by address: each costs a look, a JWT a verification, which no principal pays for.
Beyond a bound an address is shed with what is not known already; other addresses are not, nor is who is known."""

import time
from collections.abc import Callable
from typing import Final

from comity_server.access.buckets import Rate
from comity_server.access.limits import Rates
from comity_server.access.rates import Accounts

LIMIT: Final = "rate_unauthenticated"


class Guesses:
    """Counts them. Use from one event loop.

    Args:
        rate: how many an address may make; None: no bound.
        clock: the time in seconds.
    """

    def __init__(self, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = Accounts(LIMIT, lambda _: Rates(rate), clock)

    def check(self, address: str) -> None:
        """Raise RateLimited if an address has made too many."""
        account = self._accounts.known("", address)
        if account is not None:
            account.check(1)

    def count(self, address: str) -> None:
        """An address has made one."""
        account = self._accounts.find("", address)
        if account is not None:
            account.charge(1, 0)
