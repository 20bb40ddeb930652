"""What became of the writes that have a name, so that a repeat answers the same and applies nothing.

The outcome of a write is kept until its client says that it awaits it no longer, or is silent for the window: RIFL
(Lee et al., "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015).
"""

from collections import OrderedDict
from typing import NamedTuple

from comity_server.errors import Overloaded, QuotaExceeded, RequestIdForgotten, RequestIdReused
from comity_server.limits import Limits
from comity_server.model import DeleteResult, GetResult, ListResult, Outcome, PutResult, RequestId
from comity_server.record import size

_OUTCOME_BYTES = 256  # what an outcome counts for, beside the entries that it answered with


class Remembered(NamedTuple):
    fingerprint: int
    outcome: Outcome
    size_bytes: int


class _Client:
    __slots__ = ("awaited", "heard", "outcomes", "says_awaited", "size_bytes")

    def __init__(self) -> None:
        self.awaited = 0
        self.says_awaited = False
        self.heard = 0.0
        self.outcomes: dict[int, Remembered] = {}
        self.size_bytes = 0


class Requests:
    """The outcomes of one namespace. Times are seconds of a clock that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # the one that was silent longest comes first

    def find(self, request: RequestId, fingerprint: int, now: float) -> Outcome | None:
        """The outcome of a write that was applied before.

        Raises RequestIdReused, RequestIdForgotten, or Overloaded for a new write of a client that awaits too many.
        """
        self.sweep(now)
        client = self._clients.get(request.client)
        if client is None:
            if len(self._clients) >= self._limits.request_clients:
                raise QuotaExceeded("clients with request ids", self._limits.request_clients)
            client = self._clients[request.client] = _Client()
        client.heard = now
        self._clients.move_to_end(request.client)
        if request.awaited > client.awaited:
            client.says_awaited = True
            _forget_below(client, request.awaited)
        if request.sequence < client.awaited:
            raise RequestIdForgotten(request.sequence, client.awaited)
        remembered = client.outcomes.get(request.sequence)
        if remembered is None:
            if client.says_awaited and self._is_full(client) and request.sequence > client.awaited:
                _forget_stragglers(client)
                if self._is_full(client):
                    raise Overloaded  # what is awaited must not be forgotten; the lowest sequence always goes through
            return None
        if remembered.fingerprint != fingerprint:
            raise RequestIdReused(request.sequence)
        return remembered.outcome

    def remember(self, request: RequestId, fingerprint: int, outcome: Outcome) -> None:
        """Keep the outcome of a write that `find` did not know."""
        client = self._clients[request.client]
        remembered = Remembered(fingerprint, outcome, _size(outcome))
        client.outcomes[request.sequence] = remembered
        client.size_bytes += remembered.size_bytes
        while not client.says_awaited and self._is_full(client, spare=1) and len(client.outcomes) > 1:
            # Some more than need be, since finding the lowest ones costs a look at all.
            lowest = sorted(client.outcomes)[: 1 + len(client.outcomes) // 16]
            for sequence in lowest:
                client.size_bytes -= client.outcomes.pop(sequence).size_bytes
            client.awaited = max(client.awaited, lowest[-1] + 1)

    def _is_full(self, client: _Client, spare: int = 0) -> bool:
        too_many = len(client.outcomes) >= self._limits.request_outcomes + spare
        return too_many or client.size_bytes >= self._limits.request_bytes + spare

    def sweep(self, now: float) -> None:
        """Forget the clients that were silent for the window."""
        while self._clients:
            name, client = next(iter(self._clients.items()))
            if client.heard + self._limits.request_window > now:
                return
            del self._clients[name]


def _forget_below(client: _Client, awaited: int) -> None:
    """Outcomes come about in the order of their sequences: nearly, so some may stay until those before them go."""
    client.awaited = max(client.awaited, awaited)
    while client.outcomes:
        oldest = next(iter(client.outcomes))
        if oldest >= awaited:
            return
        client.size_bytes -= client.outcomes.pop(oldest).size_bytes


def _forget_stragglers(client: _Client) -> None:
    """What `_forget_below` left, at the cost of a look at all."""
    for sequence in [sequence for sequence in client.outcomes if sequence < client.awaited]:
        client.size_bytes -= client.outcomes.pop(sequence).size_bytes


def _size(outcome: Outcome) -> int:
    total = _OUTCOME_BYTES
    for result in outcome.results:
        match result:
            case GetResult(entry=record) | PutResult(previous=record):
                total += size(record) if record else 0
            case ListResult(entries=records) | DeleteResult(previous=records):
                total += sum(map(size, records))
    return total
