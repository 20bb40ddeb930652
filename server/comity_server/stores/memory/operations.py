"""Runs the operations of one transaction: what they answer, and what they change."""

import re
from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from comity_server.errors import (
    CommitTooLarge,
    InvalidRequest,
    LeaseNotFound,
    NotANumber,
    PermissionDenied,
    QuotaExceeded,
    ResultTooLarge,
    Violation,
)
from comity_server.model import (
    Cause,
    Delete,
    DeletePrefix,
    DeleteResult,
    Event,
    Get,
    GetResult,
    Increment,
    IncrementResult,
    List,
    ListResult,
    Operation,
    Put,
    PutResult,
    Result,
)
from comity_server.names import owns
from comity_server.record import (
    CONTENT_TYPE,
    CREATE_REVISION,
    KEY,
    LARGEST_INTEGER,
    LEASE_ID,
    VALUE,
    VERSION,
    Record,
    shown_size,
    size,
    tombstone,
    without_value,
)
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.versions import under
from comity_server.turns import Pace

_CHUNK: Final = 500  # keys that are looked at in one go
KEY_STEPS: Final = 5  # what it takes to compare a key and to write it
JSON: Final = "application/json"

_whole_number = re.compile(rb"-?(?:0|[1-9][0-9]{0,15})").fullmatch


class Work:
    """The operations of one transaction: their results, and what they change.

    Args:
        draft: what it changes.
        lease_owner: the principal whose leases have to be by which keys come to live; None: they may be anybody's.
    """

    __slots__ = (
        "_answer_bytes",
        "_draft",
        "_lease_owner",
        "_limits",
        "_revision",
        "events",
        "keys",
        "leased",
        "size_bytes",
        "ttl",
    )

    def __init__(self, draft: Draft, lease_owner: str | None = None) -> None:
        self._draft = draft
        self._lease_owner = lease_owner
        self._limits = draft.limits
        self._revision = draft.revision + 1
        self._answer_bytes = 0
        self.events: dict[str, Event] = {}
        self.keys = 0
        self.size_bytes = 0
        self.leased: dict[int, int] = {}  # how many keys live by a lease that did not before
        self.ttl = 0  # µs: of the lease that is made for keys of this transaction; 0: none is

    def run(self, operations: Sequence[Operation]) -> Sequence[Result]:
        """None of them searches."""
        return tuple([self._run(operation) for operation in operations])

    async def run_paced(self, operations: Sequence[Operation], pace: Pace) -> Sequence[Result]:
        """Let others in meanwhile."""
        results: list[Result] = []
        for operation in operations:
            match operation:
                case DeletePrefix(prefix, return_previous):
                    entries = await self._search(prefix, self._limits.commit_events + 1, pace)
                    if len(self.events) + len(entries) > self._limits.commit_events:
                        raise CommitTooLarge(self._limits.commit_events)
                    await self.delete_all(entries, pace)
                    results.append(self._deleted(entries, return_previous))
                case List(prefix, limit, keys_only):
                    results.append(self._list(await self._search(prefix, limit + 1, pace), limit, keys_only))
                case _:
                    results.append(self._run(operation))
            await pace.step()
        return tuple(results)

    async def delete_all(self, entries: Sequence[Record], pace: Pace, cause: Cause = Cause.CLIENT) -> None:
        """Let others in meanwhile."""
        for entry in entries:
            self._change(tombstone(entry[KEY], self._revision, self._draft.time), entry, cause)
            await pace.step(KEY_STEPS)

    def make_equal(self, key: str, wanted: Record | None) -> None:
        """Write the value and the content type of another entry to its key, or delete the key."""
        current = self.live(key)
        if wanted is None:
            assert current is not None, "what is absent is equal already"
            self._change(tombstone(key, self._revision, self._draft.time), current)
        else:
            self._write(key, wanted[VALUE], wanted[CONTENT_TYPE], 0, current)

    def check_quotas(self) -> None:
        """What makes a namespace smaller always passes."""
        self._draft.check_room()
        if self.keys > 0 and self._draft.keys + self.keys > self._limits.namespace_keys:
            raise QuotaExceeded("keys", self._limits.namespace_keys)
        if self.size_bytes > 0 and self._draft.size_bytes + self.size_bytes > self._limits.namespace_bytes:
            raise QuotaExceeded("bytes", self._limits.namespace_bytes)

    def _run(self, operation: Operation) -> Result:
        if isinstance(operation, Put):  # what most are
            return self._put(operation)
        match operation:
            case Get(key):
                return GetResult(self._answer(self.live(key)))
            case Increment(key, delta):
                return self._increment(key, delta)
            case Delete(key, return_previous):
                entry = self.live(key)
                if entry is None:
                    return DeleteResult(0)
                self._change(tombstone(key, self._revision, self._draft.time), entry)
                return self._deleted([entry], return_previous)
        raise AssertionError(f"{type(operation).__name__} searches")

    def live(self, key: str) -> Record | None:
        """The entry of a key as the transaction has made it."""
        event = self.events.get(key) if self.events else None
        head = event.entry if event else self._draft.head(key)
        return head if head and head[VERSION] else None

    async def _search(self, prefix: str, most: int, pace: Pace) -> Sequence[Record]:
        """The first entries under a prefix as the transaction has made them, in the order of their keys."""
        draft = self._draft
        draft.begin_search()
        draft.steps += len(self.events)
        own = SortedList(key for key in self.events if key.startswith(prefix))
        found: list[Record] = []
        last = None
        more = True
        while more:
            more = False
            after = last or ""
            keys = merge(
                draft.base.versions.candidates(prefix, after),
                draft.changed_keys(prefix, after),
                under(own, prefix, after),
            )
            for key in islice(keys, _CHUNK):
                more = True
                if key == last:
                    continue
                last = key
                draft.steps += 1 + draft.base.depth  # a fork looks through what it was forked from
                live = self.live(key)
                if live:
                    found.append(live)
                    if len(found) == most:
                        return found
            await pace.step(_CHUNK * (1 + draft.base.depth))
        return found

    def _answer(self, record: Record | None) -> Record | None:
        """Count what the transaction answers with. Raises ResultTooLarge."""
        if record is not None:
            self._answer_bytes += shown_size(record)
            if self._answer_bytes > self._limits.result_bytes:
                raise ResultTooLarge(self._limits.result_bytes)
        return record

    def _list(self, found: Sequence[Record], limit: int, keys_only: bool) -> ListResult:
        entries = [without_value(entry) if keys_only else entry for entry in found[:limit]]
        for shown in entries:
            self._answer(shown)
        return ListResult(entries, more=len(found) > limit)

    def _put(self, put: Put) -> PutResult:
        key, value, content_type, lease_id, return_previous, ttl = put
        previous = self.live(key)
        if lease_id:
            self._check_lease(lease_id, previous)
        elif ttl:
            lease_id = self._own_lease(ttl)
        version = self._write(key, value, content_type, lease_id, previous)
        return PutResult(version, self._answer(previous) if return_previous else None, lease_id)

    def _increment(self, key: str, delta: int) -> IncrementResult:
        previous = self.live(key)
        value = _number(previous) + delta
        if abs(value) > LARGEST_INTEGER:
            raise NotANumber(f"the sum at {key} would be outside of ±(2^53-1)", key=key)
        lease = previous[LEASE_ID] if previous else 0
        if lease and self._draft.leases.find(lease) is None:  # of what this was forked from
            lease = 0
        return IncrementResult(value, self._write(key, b"%d" % value, JSON, lease, previous))

    def _check_lease(self, lease_id: int, previous: Record | None) -> None:
        """A key is going to live by a lease. Raises LeaseNotFound, PermissionDenied if it is another's, or
        QuotaExceeded if no more keys may."""
        leases, limit = self._draft.leases, self._limits.lease_keys
        lease = leases.find(lease_id)
        if lease is None:
            raise LeaseNotFound(lease_id, self._draft.base.name)
        if previous is not None and previous[LEASE_ID] == lease_id:
            return
        owner = self._lease_owner
        if owner is not None and not owns(owner, lease.author):
            raise PermissionDenied(owner, "WRITE", self._draft.base.name, lease_id=str(lease_id))
        self.leased[lease_id] = more = self.leased.get(lease_id, 0) + 1
        if leases.count_keys(lease_id) + more > limit:
            raise QuotaExceeded("keys of a lease", limit)

    def _own_lease(self, ttl: int) -> int:
        """The lease that is made for keys of this transaction."""
        if self.ttl and self.ttl != ttl:
            raise InvalidRequest(Violation("transaction", "puts with different ttls, and its keys share one lease"))
        if not self.ttl and len(self._draft.leases) >= self._limits.leases:
            raise QuotaExceeded("leases", self._limits.leases)
        self.ttl = ttl
        return self._draft.time

    def _write(self, key: str, value: bytes, content_type: str, lease_id: int, previous: Record | None) -> int:
        revision = self._revision
        version, created = (previous[VERSION] + 1, previous[CREATE_REVISION]) if previous else (1, revision)
        self._change((key, value, content_type, version, created, revision, lease_id, self._draft.time), previous)
        return version

    def _deleted(self, entries: Sequence[Record], return_previous: bool) -> DeleteResult:
        if not return_previous:
            return DeleteResult(len(entries))
        shown = _up_to(entries, self._limits.previous_bytes)
        for entry in shown:
            self._answer(entry)
        return DeleteResult(len(entries), shown, truncated=len(shown) < len(entries))

    def _change(self, record: Record, previous: Record | None, cause: Cause = Cause.CLIENT) -> None:
        key = record[KEY]
        if key in self.events:  # a commit says of each key once what became of it
            raise InvalidRequest(Violation("transaction", f"writes the key {key} more than once"))
        self.events[key] = Event(record, previous, cause)
        if record[VERSION]:
            self.keys += previous is None
            self.size_bytes += size(record)
        else:
            self.keys -= 1
        if previous is not None:
            self.size_bytes -= size(previous)


def _number(entry: Record | None) -> int:
    if entry is None:
        return 0
    if not _whole_number(entry[VALUE]) or abs(number := int(entry[VALUE])) > LARGEST_INTEGER:
        raise NotANumber(f"the value at {entry[KEY]} is not a whole number within ±(2^53-1)", key=entry[KEY])
    return number


def _up_to(entries: Sequence[Record], max_bytes: int) -> Sequence[Record]:
    """As many of the first entries as fit, but at least one."""
    total = 0
    for count, entry in enumerate(entries):
        total += shown_size(entry)
        if total > max_bytes and count:
            return entries[:count]
    return entries
