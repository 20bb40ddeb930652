"""What became of the writes that have a name, so that a repeat answers the same and applies nothing.

The outcome of a write is kept until its client says that it awaits it no longer, or is silent for the window: RIFL
(Lee et al., "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015).
"""

from collections import OrderedDict
from typing import NamedTuple

from comity_server.errors import QuotaExceeded, RequestIdForgotten, RequestIdReused
from comity_server.limits import Limits
from comity_server.model import DeleteResult, GetResult, ListResult, Outcome, PutResult, RequestId
from comity_server.record import size

_OUTCOME_BYTES = 256  # what an outcome counts for, beside the entries that it answered with


class Remembered(NamedTuple):
    fingerprint: int
    outcome: Outcome
    size_bytes: int


class _Client:
    __slots__ = ("awaited", "heard", "outcomes", "size_bytes")

    def __init__(self) -> None:
        self.awaited = 0
        self.heard = 0.0
        self.outcomes: dict[int, Remembered] = {}
        self.size_bytes = 0


class Requests:
    """The outcomes of one namespace. Times are seconds of a clock that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # the one that was silent longest comes first

    def find(self, request: RequestId, fingerprint: int, now: float) -> Outcome | None:
        """The outcome of a write that was applied before. Raises RequestIdReused or RequestIdForgotten."""
        self.sweep(now)
        client = self._clients.get(request.client)
        if client is None:
            if len(self._clients) >= self._limits.request_clients:
                raise QuotaExceeded("clients with request ids", self._limits.request_clients)
            client = self._clients[request.client] = _Client()
        client.heard = now
        self._clients.move_to_end(request.client)
        if request.awaited > client.awaited:
            _forget_below(client, request.awaited)
        if request.sequence < client.awaited:
            raise RequestIdForgotten(request.sequence, client.awaited)
        remembered = client.outcomes.get(request.sequence)
        if remembered is None:
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
        while len(client.outcomes) > self._limits.request_outcomes or (
            client.size_bytes > self._limits.request_bytes and len(client.outcomes) > 1
        ):
            # Some more than need be, since finding the lowest ones costs a look at all.
            lowest = sorted(client.outcomes)[: 1 + len(client.outcomes) // 16]
            for sequence in lowest:
                client.size_bytes -= client.outcomes.pop(sequence).size_bytes
            client.awaited = max(client.awaited, lowest[-1] + 1)

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


def _size(outcome: Outcome) -> int:
    total = _OUTCOME_BYTES
    for result in outcome.results:
        match result:
            case GetResult(entry=record) | PutResult(previous=record):
                total += size(record) if record else 0
            case ListResult(entries=records) | DeleteResult(previous=records):
                total += sum(map(size, records))
    return total
