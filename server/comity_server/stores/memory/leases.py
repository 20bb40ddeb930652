"""The leases of a namespace, the keys that live by each, and what a group of writes does with them.

A lease lives until a commit ends it, whatever its time is: so whether it lives has one answer at each revision, which a
guarded write can be judged by. Its time only says when that commit may be made.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice

from sortedcontainers import SortedDict

from comity_server.model import Event, Lease
from comity_server.record import KEY, LEASE_ID

_NONE: Set[str] = frozenset()
_FEW = 1000  # deadlines, among which those of leases that have ended do not matter


class Held:
    """A lease that lives. The deadline is by the clock of the store, in µs."""

    __slots__ = ("deadline", "keys", "lease")

    def __init__(self, lease: Lease, deadline: int) -> None:
        self.lease = lease
        self.deadline = deadline
        self.keys: set[str] = set()


class Leases:
    """Those of one namespace that live."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: SortedDict[int, Held] = SortedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def get(self, id: int) -> Held | None:
        return self._held.get(id)

    def after(self, id: int, limit: int) -> Sequence[Held]:
        """The leases with ids above one, in their order."""
        return [self._held[one] for one in islice(self._held.irange(id, inclusive=(False, True)), limit)]

    def grant(self, lease: Lease, deadline: int) -> None:
        self._held[lease.id] = Held(lease, deadline)

    def end(self, id: int) -> None:
        self._held.pop(id, None)

    def clear(self) -> None:
        """The namespace is deleted."""
        self._held.clear()

    def attach(self, key: str, id: int) -> None:
        """A key lives by a lease; of what a fork shares of its parent it may be one that is not here."""
        held = self._held.get(id)
        if held is not None:
            held.keys.add(key)

    def index(self, event: Event) -> None:
        """A key was written or deleted."""
        entry, previous, _ = event
        key = entry[KEY]
        if previous is not None and (held := self._held.get(previous[LEASE_ID])) is not None:
            held.keys.discard(key)
        if entry[LEASE_ID]:
            self.attach(key, entry[LEASE_ID])


class LeaseChanges:
    """What a group of writes makes of the leases of a namespace, which is not touched."""

    __slots__ = ("_attached", "_base", "_detached", "_remaining", "ended", "granted")

    def __init__(self, base: Leases) -> None:
        self._base = base
        self.granted: dict[int, Lease] = {}
        self.ended: dict[int, bool] = {}  # and whether they ran out, or else were revoked or are of no use any more
        self._remaining: dict[int, int] = {}  # of those granted that have less than their ttl left
        self._attached: dict[int, set[str]] = {}  # keys that did not live by them before
        self._detached: dict[int, set[str]] = {}  # and keys that did

    def __bool__(self) -> bool:
        return bool(self.granted or self.ended)

    def __len__(self) -> int:
        """How many leases live after the group."""
        return len(self._base) + len(self.granted) - len(self.ended)

    def find(self, id: int) -> Lease | None:
        """A lease that lives."""
        if id in self.ended:
            return None
        held = self._base.get(id)
        return held.lease if held is not None else self.granted.get(id)

    def deadline(self, id: int) -> int | None:
        """Of a lease that the group has not granted."""
        held = self._base.get(id)
        return held.deadline if held is not None else None

    def count_keys(self, id: int) -> int:
        held = self._base.get(id)
        known = len(held.keys) if held is not None else 0
        return known - len(self._detached.get(id, _NONE)) + len(self._attached.get(id, _NONE))

    def keys(self, id: int) -> Set[str]:
        """The keys that live by a lease."""
        held = self._base.get(id)
        known = held.keys if held is not None else _NONE
        return (known - self._detached.get(id, _NONE)) | self._attached.get(id, _NONE)

    def grant(self, lease: Lease, remaining: int | None = None) -> None:
        """One that comes from another store has so many µs left."""
        self.granted[lease.id] = lease
        if remaining is not None:
            self._remaining[lease.id] = remaining

    def remaining(self, id: int) -> int:
        """How long a lease that is granted lives from now on, in µs."""
        return self._remaining.get(id, self.granted[id].ttl)

    def end(self, id: int, *, expired: bool) -> None:
        self.ended[id] = expired

    def index(self, events: Iterable[Event]) -> Set[int]:
        """Keys were written or deleted that live or lived by leases. Returns those by which some do not any more."""
        left: set[int] = set()
        for entry, previous, _ in events:
            key = entry[KEY]
            before = previous[LEASE_ID] if previous is not None else 0
            if before == entry[LEASE_ID]:
                continue
            if before and self.find(before) is not None:
                self._detach(before, key)
                left.add(before)
            if entry[LEASE_ID]:
                self._attach(entry[LEASE_ID], key)
        return left

    def end_unused(self, left: Set[int]) -> None:
        """Of these leases, those end that were for keys alone, of which there are none any more."""
        for id in left:
            lease = self.find(id)
            if lease is not None and lease.ends_with_keys and not self.count_keys(id):
                self.end(id, expired=False)

    def _attach(self, id: int, key: str) -> None:
        detached = self._detached.get(id)
        if detached is not None and key in detached:
            detached.discard(key)
        else:
            self._attached.setdefault(id, set()).add(key)

    def _detach(self, id: int, key: str) -> None:
        attached = self._attached.get(id)
        if attached is not None and key in attached:
            attached.discard(key)
        else:
            self._detached.setdefault(id, set()).add(key)


class Deadlines:
    """When each lease of a store runs out, the next one first.

    A renewal or an end costs it nothing: that is found out when the time has come that was known before, or when there
    are twice as many as there were.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Leases, str, int]] = []
        self._pushed = 0  # so that no more is ever compared
        self._most = _FEW

    def add(self, name: str, leases: Leases, id: int, deadline: int) -> None:
        """A lease of a namespace, given its leases by which it is told from others of its name."""
        self._pushed += 1
        heapq.heappush(self._heap, (deadline, self._pushed, leases, name, id))
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if entry[2].get(entry[4]) is not None]
            heapq.heapify(self._heap)
            self._most = max(_FEW, 2 * len(self._heap))

    def __len__(self) -> int:
        """How many are known, some of which may have ended."""
        return len(self._heap)

    def __bool__(self) -> bool:
        """Whether any lease lives."""
        while self._heap:
            _, _, leases, _, id = self._heap[0]
            if leases.get(id) is not None:
                return True
            heapq.heappop(self._heap)
        return False

    def due(self, now: int, again: int) -> Iterator[tuple[str, Leases, int]]:
        """The leases that have run out. One that has not ended by `again` is told again."""
        while self._heap and self._heap[0][0] <= now:
            _, _, leases, name, id = heapq.heappop(self._heap)
            held = leases.get(id)
            if held is None:
                continue
            if held.deadline > now:
                self.add(name, leases, id, held.deadline)
            else:
                self.add(name, leases, id, again)
                yield name, leases, id
