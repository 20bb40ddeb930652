"""What a group of writes makes of a namespace, before it becomes part of it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from sortedcontainers import SortedList

from comity_server.errors import Compacted, LeaseLost, QuotaExceeded, TransactionTooCostly
from comity_server.limits import Limits, Share
from comity_server.model import Checkpoint, Commit, Event, Guard, Lease, Outcome, RequestId, Write
from comity_server.record import LEASE_ID, Record
from comity_server.stores.memory.leases import LeaseChanges
from comity_server.stores.memory.log import totals_before
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.pins import Totals
from comity_server.stores.memory.versions import under
from comity_server.turns import Pace

_CHUNK: Final = 250  # events that are looked at in one go


class Named(NamedTuple):
    """An outcome to be remembered."""

    request: RequestId
    fingerprint: int
    outcome: Outcome


class Found(NamedTuple):
    """What a search for changes under a prefix came to."""

    revision: int  # of the newest; 0: there is none
    steps: int


class Following(NamedTuple):
    """What comes next in a namespace, as another store has it."""

    commits: Sequence[Commit]  # as they are
    totals: Totals  # how much there is after them
    checkpoints: Mapping[str, Checkpoint | None]  # that were made, and dropped
    named: Sequence[Named]
    granted: Sequence[tuple[Lease, int]] = ()  # leases, and how many µs each has left
    ended: Sequence[int] = ()  # and those that live no more, which the commits need not show


class Draft:
    """The commits of a group and what it does with checkpoints and leases, on top of a namespace that is not touched.

    `now` is by the clock of request ids, in seconds; `time` by that of commits, and `clock` by that of leases, in µs.

    `time` is always later than any commit that granted a lease, and is the id of the lease that is granted next. So ids
    are greater than all before, also than those of a life of the namespace that this store knows nothing of: which
    ended with a server, or which a Redis has lost.
    """

    def __init__(
        self, base: Namespace, limits: Limits, *, time: int, now: float, clock: int, full: Share | None
    ) -> None:
        self.base = base
        self.full = full  # what has no room for the namespace, if it does not exist
        self.limits = limits
        self.time = max(time, base.time + 1)
        self.now = now
        self.clock = clock
        self.revision = base.revision
        self.keys = base.versions.key_count
        self.size_bytes = base.versions.live_bytes
        self.steps = 0  # of the present transaction, which begins with none
        self.found: dict[tuple[str, int], Found] = {}  # for its conditions: by prefix and revision, what changed since
        self.heads: dict[str, Record] = {}
        self._sorted_keys: SortedList[str] | None = None  # of `heads`, from the first search on
        self.commits: list[Commit] = []
        self.checkpoints: dict[str, Checkpoint | None] = {}  # None: dropped
        self.leases = LeaseChanges(base.leases)
        self.named: dict[tuple[str, int], Named] = {}
        self.awaited: dict[str, int] = {}  # by those who are named
        self.changes = 0  # commits, checkpoints made and dropped, leases ended without a commit

    def check_room(self) -> None:
        """Raise QuotaExceeded if the namespace would be one too many."""
        if self.full is not None:
            raise QuotaExceeded("namespaces", self.full.most, self.full.prefix)

    def head(self, key: str) -> Record | None:
        return self.heads.get(key) or self.base.versions.head(key)

    def changed_keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys under a prefix that the group wrote and that are greater than `after`, in order."""
        if self._sorted_keys is None:
            self._sorted_keys = SortedList(self.heads)
        return under(self._sorted_keys, prefix, after)

    def checkpoint(self, name: str) -> Checkpoint | None:
        if name in self.checkpoints:
            return self.checkpoints[name]
        return self.base.checkpoints.get(name)

    def count_checkpoints(self) -> int:
        known = self.base.checkpoints
        return len(known) + sum((made is not None) - (name in known) for name, made in self.checkpoints.items())

    def set_checkpoint(self, name: str, checkpoint: Checkpoint | None) -> None:
        """Make one, or drop one."""
        self.checkpoints[name] = checkpoint
        self.changes += 1

    def made(self) -> Sequence[Checkpoint]:
        """The checkpoints that the group makes."""
        return [checkpoint for checkpoint in self.checkpoints.values() if checkpoint is not None]

    def readable(self, revision: int) -> int:
        """The revision, if it can be read after what the group did. Raises Compacted or RevisionInFuture."""
        if self.base.revision < revision <= self.revision:
            return revision
        revision = self.base.readable(revision)
        if revision < self.base.floor:
            known = self.base.checkpoints
            holders = self.base.versions.pins.holders(revision)
            holders -= sum(name in known and known[name].revision == revision for name in self.checkpoints)
            holders += sum(checkpoint.revision == revision for checkpoint in self.made())
            if not holders:
                raise Compacted(revision, self.base.floor, self.revision)
        return revision

    def totals(self, revision: int) -> Totals:
        """How much there is at a revision that is readable in the base, or one of this draft's."""
        if revision <= self.base.revision:
            return self.base.totals(revision)
        totals = Totals(self.keys, self.size_bytes)
        for commit in reversed(self.commits):
            if commit.revision > revision:
                totals = totals_before(totals, commit)
        return totals

    def begin_search(self) -> None:
        """A search begins, which will add to the steps. Raises TransactionTooCostly."""
        if self.steps > self.limits.transaction_steps:
            raise TransactionTooCostly(self.limits.transaction_steps)

    def check_guard(self, guard: Guard) -> None:
        """Raises LeaseLost if the lease that is to guard a write does not live, or has another fence."""
        lease = self.leases.find(guard.lease_id)
        if lease is None:
            raise LeaseLost(guard.lease_id)
        if guard.fence not in (0, lease.id):
            raise LeaseLost(guard.lease_id, guard.fence)

    def end_lease(self, id: int, *, expired: bool) -> None:
        """A lease ends. The commit that deletes its keys, if it has any, is added beside."""
        self.leases.end(id, expired=expired)
        self.changes += 1

    def add(
        self, write: Write, events: dict[str, Event], *, keys: int, size_bytes: int, lease: Lease | None = None
    ) -> None:
        """A write ends in a commit, with so many keys and bytes more. `lease` is one that it grants."""
        for _ in self._add(write, events, keys, size_bytes, lease):
            pass

    async def add_paced(
        self, write: Write, events: dict[str, Event], pace: Pace, *, keys: int, size_bytes: int
    ) -> None:
        """The same, a little at a time."""
        for count in self._add(write, events, keys, size_bytes):
            await pace.step(count)

    def _add(
        self, write: Write, events: dict[str, Event], keys: int, size_bytes: int, lease: Lease | None = None
    ) -> Iterator[int]:
        """Yields how many steps were done."""
        self.revision += 1
        self.keys += keys
        self.size_bytes += size_bytes
        heads = self.heads
        if self._sorted_keys is not None:
            self._sorted_keys.update(key for key in events if key not in heads)
        if lease is not None:
            self.leases.grant(lease)
        left: set[int] = set()
        all_events = iter(events.items())
        while some := list(islice(all_events, _CHUNK)):
            lives = False
            for key, event in some:
                heads[key] = record = event.entry
                if record[LEASE_ID] or (event.previous is not None and event.previous[LEASE_ID]):
                    lives = True
            if lives:
                left |= self.leases.index(event for _, event in some)
            yield 2 * len(some)
        self.leases.end_unused(left)
        self.changes += 1
        self.commits.append(
            Commit(self.revision, self.time, write.author, write.message, write.trace_parent, tuple(events.values()))
        )
        if lease is not None:
            self.time += 1

    def name(self, request: RequestId, fingerprint: int, outcome: Outcome) -> None:
        """The outcome just reached is to be remembered."""
        self.named[request.client, request.sequence] = Named(request, fingerprint, outcome)
        self.awaited[request.client] = max(request.awaited, self.awaited.get(request.client, 0))
