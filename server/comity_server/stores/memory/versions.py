"""The versions of every key: what a namespace holds now, and what it held at each revision that can still be read.

A key's newest version sits alone in a dict until a second one exists, which is what most keys never get. Deleted keys
keep a tombstone for as long as a readable revision shows them.
"""

from bisect import bisect_right
from collections.abc import Iterator
from heapq import merge
from operator import itemgetter

from sortedcontainers import SortedList

from comity_server.model import Event
from comity_server.record import KEY, MOD_REVISION, VERSION, Record, size

_mod_revision = itemgetter(MOD_REVISION)
_LAST_CHARACTER = "\U0010ffff"


class Versions:
    """Reads at any revision from the floor on; the caller sees to it that none below is asked for."""

    def __init__(self) -> None:
        self._heads: dict[str, Record] = {}
        self._older: dict[str, list[Record]] = {}  # in the order of their revisions, without the head
        self._live: SortedList[str] = SortedList()
        self._dead: SortedList[str] = SortedList()
        self.live_bytes = 0
        self.older_bytes = 0  # of what only earlier revisions show, and of tombstones

    def __len__(self) -> int:
        return len(self._live)

    def head(self, key: str) -> Record | None:
        """The newest version, which may be a tombstone."""
        return self._heads.get(key)

    def at(self, key: str, revision: int) -> Record | None:
        """The version that a revision shows, which may be a tombstone."""
        head = self._heads.get(key)
        if head is None or head[MOD_REVISION] <= revision:
            return head
        older = self._older.get(key)
        if older is None:
            return None
        place = bisect_right(older, revision, key=_mod_revision)
        return older[place - 1] if place else None

    def live_keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys under a prefix that exist now and are greater than `after`, in order."""
        return under(self._live, prefix, after)

    def known_keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Likewise, with the deleted ones."""
        return merge(under(self._live, prefix, after), under(self._dead, prefix, after))

    def count_known(self, prefix: str) -> int:
        return _count(self._live, prefix) + _count(self._dead, prefix)

    def apply(self, event: Event) -> None:
        """Make the entry of an event the newest version of its key."""
        record, previous = event.entry, event.previous
        key = record[KEY]
        old = self._heads.get(key)
        self._heads[key] = record
        if old is not None:
            self._older.setdefault(key, []).append(old)
            if old[VERSION]:  # a tombstone was counted when it came
                self.older_bytes += size(old)
        if record[VERSION]:
            self.live_bytes += size(record)
            if previous is None:
                self._live.add(key)
                if old is not None:
                    self._dead.remove(key)
        elif previous is not None:
            self.older_bytes += size(record)
            self._live.remove(key)
            self._dead.add(key)
        if previous is not None:
            self.live_bytes -= size(previous)

    def forget(self, key: str, floor: int) -> None:
        """Drop the versions of a key that no revision from the floor on shows."""
        head = self._heads.get(key)
        if head is None:
            return
        older = self._older.get(key, [])
        if head[MOD_REVISION] <= floor:
            kept = len(older)
        else:
            kept = max(0, bisect_right(older, floor, key=_mod_revision) - 1)
            if kept < len(older) and older[kept][MOD_REVISION] <= floor and not older[kept][VERSION]:
                kept += 1  # a tombstone that nothing lies under says no more than nothing does
        if kept:
            self.older_bytes -= sum(map(size, older[:kept]))
            if kept == len(older):
                del self._older[key]
            else:
                del older[:kept]
        if not head[VERSION] and head[MOD_REVISION] <= floor:
            self.older_bytes -= size(head)
            del self._heads[key]
            self._dead.remove(key)


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
