"""How much callers may do at a time: calls that are open, and rates. What is too much is shed before it is read."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from math import inf
from typing import Final, NamedTuple
from urllib.parse import unquote

from comity_server.access.caller import Caller
from comity_server.access.limits import Rules, Table
from comity_server.access.rates import Account, Accounts, Patience, patient
from comity_server.access.rights import ADMIN, EVERYTHING, READ, WRITE
from comity_server.errors import RateLimited, TooManyCalls
from comity_server.names import NAMESPACE_LENGTH

NETWORK_BITS: Final = 64  # of an IPv6 address, of which one caller may have all that share them
PEERS: Final = 4096  # whose addresses are remembered


class Payer(NamedTuple):
    """Who a call counts as: the principal, or if that is nobody in particular, the address."""

    principal: str
    address: str


class Bounds:
    """Counts what is open and what is done. Use from one event loop.

    Args:
        rules: what each may take up.
        max_calls: calls that may be open in all; 0: no bound.
        clock: the time in seconds.
    """

    def __init__(
        self, rules: Rules | None = None, max_calls: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rules = rules or Rules()
        self.counts = self.rules.has_rates
        """Whether there is a rate on anything."""
        self.open = 0
        self._max_calls = max_calls
        self._calls: dict[Payer, int] = {}
        self._streams: dict[Payer, int] = {}
        self.principals = Accounts("rate_principal", lambda name: self.rules.principal(name).rates, clock)
        self.namespaces = Accounts("rate_namespace", lambda name: self.rules.namespace(name).rates, clock)

    def use(self, tables: Sequence[Table]) -> None:
        """From now on go by other tables. What is open stays open."""
        self.rules = self.rules.with_tables(tables)
        self.counts = self.rules.has_rates
        self.principals.changed()
        self.namespaces.changed()

    def enter(self, caller: Caller, peer: str, *, stream: bool, patience: Patience = patient) -> "Meter":
        """Let a call in, which takes up a place until its meter is told that it ended. Raises TooManyCalls.

        Args:
            caller: who makes it.
            peer: the other end of its connection.
            stream: whether it is a stream.
            patience: tells for how many seconds it may wait for its turn, when it has to.
        """
        payer = Payer(caller.principal, "" if caller.principal else address(peer))
        _, max_calls, max_streams = self.rules.principal(payer.principal)
        if stream:
            limit, open_calls, most = "max_principal_streams", self._streams, max_streams
        else:
            limit, open_calls, most = "max_principal_calls", self._calls, max_calls
        if self._max_calls and self.open >= self._max_calls:
            raise TooManyCalls("max_calls", "", self._max_calls)
        count = open_calls.get(payer, 0)
        if most and count >= most:
            raise TooManyCalls(limit, payer.principal or payer.address, most)
        meter = Meter(self, caller, payer, open_calls, patience)
        self.open += 1
        open_calls[payer] = count + 1
        return meter

    def leave(self, payer: Payer, open_calls: dict[Payer, int]) -> None:
        """A call has ended."""
        self.open -= 1
        count = open_calls[payer] - 1
        if count:
            open_calls[payer] = count
        else:
            del open_calls[payer]


class Meter:
    """What one call takes of what its caller may do, and of what may be done in its namespace."""

    __slots__ = ("_bounds", "_caller", "_free", "_left", "_namespace", "_open_calls", "_patience", "payer")

    def __init__(
        self, bounds: Bounds, caller: Caller, payer: Payer, open_calls: dict[Payer, int], patience: Patience
    ) -> None:
        self._bounds = bounds
        self._caller = caller
        self.payer = payer
        self._open_calls = open_calls
        self._patience = patience
        self._namespace = ""
        self._left = False
        self._free = 0  # bytes that are charged next, and cost nothing

    def leave(self, _: object = None) -> None:
        """The call has ended. May be called twice."""
        if not self._left:
            self._left = True
            self._bounds.leave(self.payer, self._open_calls)

    @property
    def open(self) -> int:
        """How many calls of its kind, streams or others, its payer has open."""
        return self._open_calls.get(self.payer, 0)

    @property
    def counts(self) -> bool:
        """Whether there is a rate that what it takes is held against."""
        return self._bounds.counts and bool(self._accounts())

    def of(self, namespace: str) -> "Meter":
        """One for a part of the call, that takes of a namespace of its own."""
        part = Meter(self._bounds, self._caller, self.payer, self._open_calls, self._patience)
        part._left = True
        if self._bounds.counts:
            part.within(namespace)
        return part

    def within(self, namespace: str) -> None:
        """From now on it takes of a namespace, too: of one that is its caller's, since others would pay for it."""
        if len(namespace) <= NAMESPACE_LENGTH:  # of a longer name there is none, so no account
            rights = self._caller.rights(namespace)
            if rights is EVERYTHING or rights.may_somewhere(READ | WRITE | ADMIN):
                self._namespace = namespace

    async def pay(self, operations: int = 1) -> None:
        """Take so many operations of the principal's. Raises RateLimited if they are not there, or bytes are owed."""
        if self._bounds.counts and (account := self._of_principal()) is not None:
            await account.pay_in_turn(operations, self._patience)

    async def begin(self, namespace: str, operations: int, size: int) -> None:
        """Take what a request costs: so many operations, of which one is paid, and bytes. Raises RateLimited: what the
        rate of a namespace refuses takes nothing of the principal's."""
        self.within(namespace)
        if not self._bounds.counts:
            return
        if operations > 1:
            await self.pay(operations - 1)
        if (account := self._of_namespace()) is not None:
            try:
                await account.pay_in_turn(operations, self._patience)
            except RateLimited:
                if (own := self._of_principal()) is not None:
                    own.give(operations)
                raise
        self.charge(0, size)

    def waive(self, size: int) -> None:
        """So many bytes that are charged next cost nothing: else what is sent while nothing is left would be owed, and
        what is owed would grow for as long as nothing is left."""
        self._free += size

    def charge(self, operations: int, size: int) -> None:
        """Take as much, be it there or not: who calls next pays for it."""
        free = min(self._free, size)
        self._free -= free
        size -= free
        if self._bounds.counts:
            for account in self._accounts():
                account.charge(operations, size)

    def owes(self) -> float:
        """For how many seconds it should not take more: until what it took is there."""
        if not self._bounds.counts:
            return 0.0
        return max((account.owes() for account in self._accounts()), default=0.0)

    def refusal(self, operations: int, size: int) -> RateLimited | None:
        """Why `hold` would wait with so much, and for how long, if nobody else did; None: it would not."""
        if not self._bounds.counts:
            return None
        refusals = [refusal for each in self._accounts() if (refusal := each.refusal(operations, size)) is not None]
        return max(refusals, key=lambda refusal: refusal.seconds, default=None)

    def per_second(self) -> tuple[float, float]:
        """The operations and the bytes that come to be there."""
        operations, size = zip((inf, inf), *(each.per_second() for each in self._accounts()), strict=True)
        return min(operations), min(size)

    async def hold(self, operations: int, size: int) -> None:
        """Take as much, and return when it was there."""
        if self._bounds.counts:
            for find in (self._of_principal, self._of_namespace):
                account = find()  # not before the other was waited for: an account is to be used at once
                if account is not None:
                    await account.hold(operations, size)

    def _accounts(self) -> list[Account]:
        return [account for account in (self._of_principal(), self._of_namespace()) if account is not None]

    def _of_principal(self) -> Account | None:
        return self._bounds.principals.find(*self.payer)

    def _of_namespace(self) -> Account | None:
        return self._bounds.namespaces.find(self._namespace) if self._namespace else None


@lru_cache(PEERS)
def address(peer: str) -> str:
    """The part of what gRPC calls the other end of a connection that tells one host from others."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind != "ipv6":
        return kind
    try:
        ip = IPv6Address(rest.partition("]")[0].removeprefix("[").partition("%")[0])
    except ValueError:
        return peer
    return str(ip.ipv4_mapped or IPv6Network((ip, NETWORK_BITS), strict=False))
