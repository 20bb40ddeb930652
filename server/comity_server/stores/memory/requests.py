"""What became of the writes that have a name, so that a repeat answers the same and applies nothing.

The outcome of a write is kept until its client says that it awaits it no longer, or is silent for the window: RIFL
(Lee et al., "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from comity_server.errors import Overloaded, QuotaExceeded, RequestIdForgotten, RequestIdReused
from comity_server.limits import Limits
from comity_server.model import (
    Checkpoint,
    DeleteResult,
    GetResult,
    ListResult,
    MergeResult,
    Outcome,
    PutResult,
    RequestId,
)
from comity_server.record import size

_CLIENT_BYTES = 512  # what a client counts for, beside its name and its outcomes: about what it takes up
_OUTCOME_BYTES = 400  # likewise an outcome, beside what follows
_PART_BYTES = 64  # what a result or a failed condition counts for, beside the entries in it
_SWEPT = 1000  # clients that are forgotten at a time


class Remembered(NamedTuple):
    fingerprint: int
    outcome: Outcome
    size_bytes: int


class Client:
    """Whose name stands in request ids."""

    __slots__ = ("awaited", "heard", "outcomes", "says_awaited", "size_bytes")

    def __init__(self, name: str) -> None:
        self.awaited = 0
        self.says_awaited = False
        self.heard = 0.0
        self.outcomes: dict[int, Remembered] = {}
        self.size_bytes = _CLIENT_BYTES + len(name.encode())

    def await_from(self, awaited: int) -> None:
        """The client says that it awaits nothing below a sequence.

        Outcomes come about in the order of their sequences: nearly, so some may stay until those before them go.
        """
        if awaited <= self.awaited:
            return
        self.says_awaited = True
        self.awaited = awaited
        while self.outcomes:
            oldest = next(iter(self.outcomes))
            if oldest >= awaited:
                return
            self._drop(oldest)

    def drop_stragglers(self) -> None:
        """What `await_from` left, at the cost of a look at all."""
        for sequence in [sequence for sequence in self.outcomes if sequence < self.awaited]:
            self._drop(sequence)

    def drop_lowest(self) -> None:
        """Some of the lowest sequences, since finding the lowest one costs a look at all."""
        lowest = sorted(self.outcomes)[: 1 + len(self.outcomes) // 16]
        for sequence in lowest:
            self._drop(sequence)
        self.awaited = max(self.awaited, lowest[-1] + 1)

    def add(self, sequence: int, remembered: Remembered) -> None:
        self.outcomes[sequence] = remembered
        self.size_bytes += remembered.size_bytes

    def _drop(self, sequence: int) -> None:
        self.size_bytes -= self.outcomes.pop(sequence).size_bytes


class Requests:
    """The outcomes of one namespace. Times are seconds of a clock that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, Client] = OrderedDict()  # the one that was silent longest comes first
        self._size_bytes = 0
        self.swept: list[str] = []  # clients that were forgotten, until somebody who keeps them elsewhere takes note

    def __bool__(self) -> bool:
        return bool(self._clients)

    def find(self, request: RequestId, fingerprint: int, now: float) -> Outcome | None:
        """The outcome of a write that was applied before.

        Raises RequestIdReused, RequestIdForgotten, or for a new write of a client that awaits too many, Overloaded;
        QuotaExceeded where the namespace remembers too much.
        """
        self.sweep(now)
        client = self._clients.get(request.client)
        if client is None:
            if request.sequence < request.awaited:
                raise RequestIdForgotten(request.sequence, request.awaited)
            if len(self._clients) >= self._limits.request_clients:
                raise QuotaExceeded("clients with request ids", self._limits.request_clients)
            self._check_total()
            return None
        self._hear(request, client, now)
        if request.sequence < client.awaited:
            raise RequestIdForgotten(request.sequence, client.awaited)
        remembered = client.outcomes.get(request.sequence)
        if remembered is None:
            if client.says_awaited and self._is_full(client) and request.sequence > client.awaited:
                self._resize(client, client.drop_stragglers)
                if self._is_full(client):
                    raise Overloaded  # what is awaited must not be forgotten; the lowest sequence always goes through
            self._check_total()
            return None
        if remembered.fingerprint != fingerprint:
            raise RequestIdReused(request.sequence)
        return remembered.outcome

    def remember(self, request: RequestId, fingerprint: int, outcome: Outcome, now: float) -> None:
        """Keep the outcome of a write that `find` did not know."""
        client = self._clients.get(request.client)
        if client is None:
            client = self._begin(request.client)
        self._hear(request, client, now)
        remembered = Remembered(fingerprint, outcome, _size(outcome))
        client.add(request.sequence, remembered)
        self._size_bytes += remembered.size_bytes
        while not client.says_awaited and self._is_full(client, spare=1) and len(client.outcomes) > 1:
            self._resize(client, client.drop_lowest)

    def awaited(self, name: str) -> tuple[int, bool]:
        """The lowest sequence that a client awaits, and whether it said so itself."""
        client = self._clients.get(name)
        return (client.awaited, client.says_awaited) if client is not None else (0, False)

    def load(self, name: str, awaited: int, says_awaited: bool, now: float) -> Client:
        """A client that was kept elsewhere. It has the whole window before it."""
        client = self._begin(name)
        client.awaited, client.says_awaited, client.heard = awaited, says_awaited, now
        return client

    def load_outcome(self, client: Client, sequence: int, fingerprint: int, outcome: Outcome) -> None:
        remembered = Remembered(fingerprint, outcome, _size(outcome))
        client.add(sequence, remembered)
        self._size_bytes += remembered.size_bytes

    def all(self) -> Iterator[tuple[str, int, bool, Mapping[int, Remembered]]]:
        """Each client, what it awaits, whether it said so itself, and its outcomes."""
        for name, client in self._clients.items():
            yield name, client.awaited, client.says_awaited, client.outcomes

    def has_seen(self, request: RequestId) -> bool:
        """Whether the outcome of a request is kept, or is awaited no longer."""
        client = self._clients.get(request.client)
        return client is not None and (request.sequence in client.outcomes or request.sequence < client.awaited)

    def knows(self, name: str) -> bool:
        return name in self._clients

    def names(self) -> list[str]:
        """The clients that are known."""
        return list(self._clients)

    def sweep(self, now: float) -> bool:
        """Forget some of the clients that were silent for the window. Returns whether there may be more."""
        for _ in range(_SWEPT):
            if not self._clients:
                return False
            name, client = next(iter(self._clients.items()))
            if client.heard + self._limits.request_window > now:
                return False
            self._size_bytes -= client.size_bytes
            self.swept.append(name)
            del self._clients[name]
        return True

    def take_swept(self) -> list[str]:
        """The clients that were forgotten since this was asked last, and are not known again."""
        swept, self.swept = self.swept, []
        return [name for name in swept if name not in self._clients]

    def _begin(self, name: str) -> Client:
        """A new client, in the place of one that was loaded under the name before."""
        before = self._clients.get(name)
        client = self._clients[name] = Client(name)
        self._size_bytes += client.size_bytes - (before.size_bytes if before else 0)
        return client

    def _hear(self, request: RequestId, client: Client, now: float) -> None:
        client.heard = now
        self._clients.move_to_end(request.client)
        if request.awaited > client.awaited:
            self._resize(client, lambda: client.await_from(request.awaited))

    def _resize(self, client: Client, change: Callable[[], None]) -> None:
        before = client.size_bytes
        change()
        self._size_bytes += client.size_bytes - before

    def _is_full(self, client: Client, spare: int = 0) -> bool:
        too_many = len(client.outcomes) >= self._limits.request_outcomes + spare
        return too_many or client.size_bytes >= self._limits.request_bytes + spare

    def _check_total(self) -> None:
        if self._size_bytes >= self._limits.request_total_bytes:
            raise QuotaExceeded("bytes of remembered outcomes", self._limits.request_total_bytes)


def _size(outcome: Outcome) -> int:
    total = _OUTCOME_BYTES + _PART_BYTES * (len(outcome.results) + len(outcome.failed))
    for failed in outcome.failed:
        total += size(failed.current) if failed.current else 0
    for result in outcome.results:
        match result:
            case GetResult(entry=record) | PutResult(previous=record):
                total += size(record) if record else 0
            case ListResult(entries=records) | DeleteResult(previous=records):
                total += sum(map(size, records))
            case Checkpoint(message=message, labels=labels):
                total += len(message.encode()) + sum(len(key.encode()) + len(value.encode()) for key, value in labels)
            case MergeResult(conflicts=conflicts):
                total += sum(size(entry) for conflict in conflicts for entry in conflict[1:4] if entry is not None)
    return total
