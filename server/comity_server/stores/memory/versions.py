"""The versions of every key: what a namespace holds now, and what it held at each revision that can still be read.

A key's newest version sits alone in a dict until a second one exists, which is what most keys never get. Deleted keys
keep a tombstone for as long as a readable revision shows them. The dict is in the order of the last change of its keys,
so that what changed since a revision is found from its end, at a cost of just that.

A fork shares what it was forked from: the versions of a fork are its own, over those of its base at one revision.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter

from sortedcontainers import SortedList

from comity_server.model import Event
from comity_server.record import KEY, MOD_REVISION, VERSION, Record, size
from comity_server.stores.memory.pins import NOTHING, Pins, Totals
from comity_server.turns import Pace

_mod_revision = itemgetter(MOD_REVISION)
_LAST_CHARACTER = "\U0010ffff"


class Versions:
    """Reads at any revision from the floor on, and at pinned ones; the caller sees to it that no other is asked for.

    Args:
        base: what this is a fork of.
        base_revision: the revision of the base that it began at, which stays pinned there.
        totals: how much there was.
    """

    def __init__(self, base: "Versions | None" = None, base_revision: int = 0, totals: Totals = NOTHING) -> None:
        self.base = base
        self.base_revision = base_revision
        self.pins = Pins()
        self.stale: set[str] = set()  # keys with versions that may have been kept for a pin that is gone
        self.key_count, self.live_bytes = totals
        self.older_bytes = 0  # of what only earlier revisions show, and of tombstones
        self.held_bytes = 0  # the part of them that is kept for pins
        self._heads: dict[str, Record] = {}
        self._older: dict[str, list[Record]] = {}  # in the order of their revisions, without the head
        self._live: SortedList[str] = SortedList()
        self._dead: SortedList[str] = SortedList()
        self._held: dict[str, int] = {}  # bytes, by key

    def head(self, key: str) -> Record | None:
        """The newest version, which may be a tombstone."""
        head = self._heads.get(key)
        if head is None and self.base is not None:
            return self.base.at(key, self.base_revision)
        return head

    def at(self, key: str, revision: int) -> Record | None:
        """The version that a revision shows, which may be a tombstone."""
        head = self._heads.get(key)
        if head is not None:
            if head[MOD_REVISION] <= revision:
                return head
            older = self._older.get(key)
            place = bisect_right(older, revision, key=_mod_revision) if older else 0
            if older and place:
                return older[place - 1]
        return self.base.at(key, self.base_revision) if self.base is not None else None

    def live_at(self, key: str, revision: int) -> Record | None:
        """The entry that a revision shows."""
        version = self.at(key, revision)
        return version if version is not None and version[VERSION] else None

    def candidates(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys under a prefix that are greater than `after`, in order: all that exist now, and in a fork some more."""
        return under(self._live, prefix, after) if self.base is None else self.known_keys(prefix, after)

    def known_keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Likewise, all that any readable revision shows, and some more."""
        if self.base is None:
            return self.own_under(prefix, after)
        layers: list[Iterator[str]] = []
        of: Versions | None = self
        while of is not None:
            layers += under(of._live, prefix, after), under(of._dead, prefix, after)
            of = of.base
        return map(itemgetter(0), groupby(merge(*layers)))  # each once: none may look through more than it is asked for

    def own_under(self, prefix: str, after: str = "") -> Iterator[str]:
        """Those under a prefix that are greater than `after`. Keys that only the base has never change."""
        return merge(under(self._live, prefix, after), under(self._dead, prefix, after))

    def count_own(self, prefix: str) -> int:
        return _count(self._live, prefix) + _count(self._dead, prefix)

    def own_keys(self) -> Sequence[str]:
        """The keys that were written here, and not in what this is a fork of, in order."""
        return sorted([*self._live, *self._dead])

    def chain(self, key: str) -> list[Record]:
        """The versions of one of these that are kept, the oldest first."""
        return [*self._older.get(key, ()), self._heads[key]]

    def changed_since(self, revision: int) -> Iterator[Record]:
        """The newest version of each key that changed after a revision, the newest first. Not below the floor, except
        at pinned revisions: of a key that exists at neither end there may be nothing."""
        for head in reversed(self._heads.values()):
            if head[MOD_REVISION] <= revision:
                return
            yield head

    def changed_since_by(self, count: int, revision: int) -> Iterator[Sequence[Record]]:
        """Likewise, so many at a time, between which compaction may drop what is older, as long as the floor does not
        pass the revision."""
        seen = 0
        heads = reversed(self._heads.values())
        while True:
            try:
                some = list(islice(heads, count))
            except RuntimeError:  # something was dropped, which was older
                heads = reversed(self._heads.values())
                next(islice(heads, seen, seen), None)
                continue
            seen += len(some)
            if not some or some[-1][MOD_REVISION] <= revision:
                if some := [head for head in some if head[MOD_REVISION] > revision]:
                    yield some
                return
            yield some

    def load(self, record: Record) -> Record | None:
        """Take in the next version of a key, as it was stored. Returns the one before. `load_end` comes after all."""
        key = record[KEY]
        old = self._heads.pop(key, None)
        self._heads[key] = record
        if old is not None:
            self._older.setdefault(key, []).append(old)
        elif self.base is not None:
            return self.base.at(key, self.base_revision)
        return old

    def load_end(self) -> None:
        """Index what was loaded, and count it."""
        self._live = SortedList(key for key, head in self._heads.items() if head[VERSION])
        self._dead = SortedList(key for key, head in self._heads.items() if not head[VERSION])
        for _ in self._count_loaded():
            pass

    async def load_end_paced(self, pace: Pace) -> None:
        """The same, a little at a time, which takes longer."""
        for key, head in self._heads.items():
            (self._live if head[VERSION] else self._dead).add(key)
            await pace.step()
        for _ in self._count_loaded():
            await pace.step()

    def _count_loaded(self) -> Iterator[None]:
        for key, head in self._heads.items():
            if self.base is not None and (shared := self.base.live_at(key, self.base_revision)) is not None:
                self.key_count -= 1
                self.live_bytes -= size(shared)
            if head[VERSION]:
                self.key_count += 1
                self.live_bytes += size(head)
            else:
                self.older_bytes += size(head)
                self.stale.add(key)
            yield
        for key, older in self._older.items():
            self.older_bytes += sum(map(size, older))
            self.stale.add(key)
            yield

    def apply(self, event: Event) -> None:
        """Make the entry of an event the newest version of its key."""
        record, previous = event.entry, event.previous
        key = record[KEY]
        old = self._heads.pop(key, None)  # so that it moves to the end
        self._heads[key] = record
        alive = record[VERSION] > 0
        if old is None:
            (self._live if alive else self._dead).add(key)
        else:
            older = self._older.get(key)
            if older is None:
                self._older[key] = [old]
            else:
                older.append(old)
            if old[VERSION]:  # a tombstone was counted when it came
                self.older_bytes += size(old)
                if not alive:
                    self._live.remove(key)
                    self._dead.add(key)
            elif alive:
                self._dead.remove(key)
                self._live.add(key)
        if alive:
            self.live_bytes += size(record)
            self.key_count += previous is None
        else:
            self.older_bytes += size(record)
            self.key_count -= previous is not None
        if previous is not None:
            self.live_bytes -= size(previous)

    def forget(self, key: str, floor: int) -> Sequence[Record]:
        """Drop the versions of a key that neither a revision from the floor on nor a pinned one shows; return them."""
        head = self._heads.get(key)
        if head is None:
            return ()
        older = self._older.get(key, [])
        below = len(older) if head[MOD_REVISION] <= floor else bisect_right(older, floor, key=_mod_revision) - 1
        kept: list[Record] = []
        dropped: list[Record] = []
        for place in range(below):
            version = older[place]
            following = older[place + 1] if place + 1 < len(older) else head
            held = self.pins and self.pins.hold(key, version[MOD_REVISION], following[MOD_REVISION] - 1)
            (kept if held else dropped).append(version)
        rest = older[max(0, below) :]
        uncovered = self.base is None or self.base.live_at(key, self.base_revision) is None
        # A tombstone that nothing lies under says no more than nothing does.
        if uncovered and kept and not kept[0][VERSION]:
            dropped.append(kept.pop(0))
        if uncovered and not kept and rest and not rest[0][VERSION] and rest[0][MOD_REVISION] <= floor:
            dropped.append(rest.pop(0))
        rest = kept + rest
        if dropped:
            if rest:
                self._older[key] = rest
            else:
                del self._older[key]
        if uncovered and not rest and not head[VERSION] and head[MOD_REVISION] <= floor:
            dropped.append(head)
            del self._heads[key]
            self._dead.remove(key)
        self._account(key, sum(map(size, kept)), sum(map(size, dropped)))
        return dropped

    def drop_some(self, keys: int) -> bool:
        """Free some keys, and say whether there were any. To be used by whoever lets go of all of them."""
        for kept in (self._heads, self._older):
            for _ in range(min(keys, len(kept))):
                kept.popitem()
                keys -= 1
        for index in (self._live, self._dead):
            for _ in range(min(keys, len(index))):
                index.pop()
                keys -= 1
        return bool(self._heads or self._older or self._live or self._dead)

    def _account(self, key: str, held: int, dropped: int) -> None:
        self.older_bytes -= dropped
        self.held_bytes += held - self._held.pop(key, 0)
        if held:
            self._held[key] = held


def under(keys: "SortedList[str]", prefix: str, after: str = "") -> Iterator[str]:
    """The strings that begin with a prefix and are greater than `after`."""
    end = _end_of(prefix)
    if end is not None and after >= end:
        return iter(())
    first, inclusive = (after, False) if after >= prefix and after else (prefix, True)
    return keys.irange(first, end, inclusive=(inclusive, False))


def _count(keys: "SortedList[str]", prefix: str) -> int:
    end = _end_of(prefix)
    return (len(keys) if end is None else keys.bisect_left(end)) - keys.bisect_left(prefix)


def _end_of(prefix: str) -> str | None:
    """The first string after all that begin with the prefix; None: there is no such string."""
    stem = prefix.rstrip(_LAST_CHARACTER)
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
