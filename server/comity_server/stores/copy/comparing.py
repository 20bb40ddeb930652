"""Whether two stores have the same namespace: by what can be read of it, and by what is remembered.

Most is asked as any reader would. The states at checkpoints, and those that forks share, are compared by the versions
that they show, each once: there may be very many.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from itertools import zip_longest
from typing import Final, NamedTuple, TypeVar

from comity_server.limits import Limits
from comity_server.model import Checkpoint, NamespaceInfo, Provenance
from comity_server.record import KEY, MOD_REVISION, VERSION, Record
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.parts import same_outcome
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.store import MemoryStore

LIMITS: Final = Limits()
ENTRIES: Final = LIMITS.page_entries
BYTES: Final = LIMITS.page_bytes

T = TypeVar("T")


class Comparison(NamedTuple):
    """How a namespace of the target compares to that of the source."""

    other: str = ""  # why it is another one, or has another history; empty: it is the same
    behind: str = ""  # what it lacks of what happened at the source; empty: nothing

    @property
    def is_equal(self) -> bool:
        return not self.other and not self.behind


async def compare(source: MemoryStore, target: MemoryStore, name: str) -> Comparison:
    """Compare a namespace that both have."""
    one, other = await source.namespace(name), await target.namespace(name)
    said = _other_namespace(one, other)
    if not said:
        said = await _other_history(source, target, name, one.floor, other.revision)
    if not said:
        said = _other_pins(source.state(name), target.state(name))
    if not said:
        said = _other_ancestor(source.state(name), target.state(name), target)
    if said:
        return Comparison(said)
    return Comparison("", await _behind(source, target, name))


def shows_the_same(one: Namespace, other: Namespace, revision: int) -> bool:
    """Whether two namespaces are equal at a revision of both, in all that a fork shares."""
    if not one.can_read(revision) or not other.can_read(revision):
        return False
    if _first_difference(one, other, [revision]) is not None:
        return False
    if one.parent is None or other.parent is None:
        return one.parent is other.parent
    if one.parent.revision != other.parent.revision:
        return False
    return shows_the_same(one.parent.namespace, other.parent.namespace, one.parent.revision)


def ancestors(one: Namespace, other: Namespace) -> tuple[Namespace | None, Namespace | None]:
    """The nearest namespace that exists of those which a fork was forked from: it keeps what the deleted ones between
    share of it. And what is in its place for another fork."""
    of, its = one.parent, other.parent
    while of is not None and of.namespace.deleted:
        of, its = of.namespace.parent, its.namespace.parent if its is not None else None
    return of.namespace if of is not None else None, its.namespace if its is not None else None


def lacks_requests(source: Requests, target: Requests) -> bool:
    """Whether the target would apply a repeat that the source would not, or would answer it otherwise."""
    known = {name: (awaited, says, outcomes) for name, awaited, says, outcomes in target.all()}
    for name, awaited, says, outcomes in source.all():
        its_awaited, its_says, its_outcomes = known.get(name, (0, False, {}))
        if name not in known or its_awaited < awaited or (says and not its_says):
            return True
        for sequence, one in outcomes.items():
            there = its_outcomes.get(sequence)
            if sequence >= its_awaited and (
                there is None or there.fingerprint != one.fingerprint or not same_outcome(there.outcome, one.outcome)
            ):
                return True
    return False


def _other_namespace(one: NamespaceInfo, other: NamespaceInfo) -> str:
    if one.create_time != other.create_time:
        return "another namespace has this name"
    if (one.parent, one.fork_revision) != (other.parent, other.fork_revision):
        return "it is a fork of another one"
    if other.revision > one.revision:
        return f"it is at revision {other.revision}, and the source at {one.revision}"
    if other.floor > one.floor:
        return f"it was compacted up to revision {other.floor}, and at the source up to {one.floor}"
    if other.revision < one.floor:
        return f"it is at revision {other.revision}, and the source has compacted what came after that"
    return ""


async def _other_history(source: MemoryStore, target: MemoryStore, name: str, floor: int, newest: int) -> str:
    """What differs of the states and the commits from the source's floor to the target's newest revision."""
    for revision in sorted({floor, newest} - {0}):
        written: set[int] = set()
        pages = _pair(_entries(source, name, revision), _entries(target, name, revision))
        async for one, other in pages:
            if one != other:
                return f"{_key(one, other)!r} differs at revision {revision}"
            assert one is not None
            written.add(one[MOD_REVISION])
            if len(written) >= ENTRIES:
                if said := await _other_provenance(source, target, name, written):
                    return said
                written.clear()
        if said := await _other_provenance(source, target, name, written):
            return said
    for first in range(floor + 1, newest + 1, ENTRIES):
        last = min(newest, first + ENTRIES - 1)
        here = await source.commits(name, first=first, last=last, limit=ENTRIES)
        there = await target.commits(name, first=first, last=last, limit=ENTRIES)
        for commit, its in zip(here.commits, there.commits, strict=True):
            if commit[:-1] != its[:-1] or commit.events != its.events:
                return f"revision {commit.revision} differs"
    return ""


async def _other_provenance(source: MemoryStore, target: MemoryStore, name: str, written: Collection[int]) -> str:
    revisions = sorted(written)
    one, other = await source.provenance(name, revisions), await target.provenance(name, revisions)
    nothing = Provenance("", "", "")
    for revision in revisions:
        if one.get(revision, nothing) != other.get(revision, nothing):
            return f"what revision {revision} says of itself differs"
    return ""


def _other_pins(one: Namespace, other: Namespace) -> str:
    """What differs of the states at the source's checkpoints, as far as the target has come, and of what is shared."""
    for name in other.checkpoints:
        if name not in one.checkpoints:
            return f"it has the checkpoint {name}, and the source has none of that name"
    revisions = sorted({made.revision for made in one.checkpoints.values() if made.revision <= other.revision})
    for revision in revisions:
        if not other.can_read(revision):
            return f"it was compacted, and a checkpoint of the source is of revision {revision}"
    key = _first_difference(one, other, revisions)
    if key is not None:
        return f"{key!r} differs at a checkpoint"
    if one.parent is not None and other.parent is not None:
        above = one.parent.namespace, other.parent.namespace
        if not shows_the_same(*above, one.parent.revision):
            return f"what it shares with {above[0].name} differs"
    return ""


def _other_ancestor(one: Namespace, other: Namespace, target: MemoryStore) -> str:
    """Why the target's namespaces may not keep what the source's keep for it."""
    of, its = ancestors(one, other)
    if of is None:
        return ""
    there = target.namespaces_by_name.get(of.name)
    return "" if there is not None and its is not None and its.id == there.id else f"it is a fork of another {of.name}"


async def _behind(source: MemoryStore, target: MemoryStore, name: str) -> str:
    one, other = await source.namespace(name), await target.namespace(name)
    for what in ("revision", "floor", "key_count", "size_bytes", "commit_count", "update_time"):
        here, there = getattr(one, what), getattr(other, what)
        if here != there:
            return f"its {what} is {there}, and {here} at the source"
    marks = _pair(_checkpoints(source, name), _checkpoints(target, name))
    async for mark, its in marks:
        if mark != its:
            known = mark or its
            assert known is not None
            return f"checkpoint {known.name} differs"
    leases, others = source.state(name).leases, target.state(name).leases
    for held, its_held in zip_longest(leases, others):
        if held is None or its_held is None or (held.lease, held.keys) != (its_held.lease, its_held.keys):
            return f"lease {min(one.lease.id for one in (held, its_held) if one is not None)} differs"
    if lacks_requests(source.state(name).requests, target.state(name).requests):
        return "it lacks remembered outcomes"
    return ""


def _first_difference(one: Namespace, other: Namespace, revisions: Sequence[int]) -> str | None:
    """The first key of which the revisions, in order, do not show the same."""
    if not revisions:
        return None
    for record, its in zip_longest(_shown(one, revisions), _shown(other, revisions)):
        if record != its:
            return _key(record, its)
    return None


def _shown(namespace: Namespace, revisions: Sequence[int]) -> Iterator[Record]:
    """The versions written here that any of some revisions shows."""
    versions = namespace.versions
    for key in versions.own_keys():
        chain = versions.chain(key)
        covers = versions.base is not None and versions.base.live_at(key, versions.base_revision) is not None
        for place, record in enumerate(chain):
            at = bisect_left(revisions, record[MOD_REVISION])
            end = chain[place + 1][MOD_REVISION] if place + 1 < len(chain) else None
            if at == len(revisions) or (end is not None and revisions[at] >= end):
                continue
            if record[VERSION] or covers:  # what is deleted over nothing says no more than nothing
                yield record


async def _entries(store: MemoryStore, name: str, revision: int) -> AsyncIterator[Record]:
    after: str | None = ""
    while after is not None:
        page = await store.list(name, "", after=after, limit=ENTRIES, max_bytes=BYTES, revision=revision)
        for entry in page.entries:
            yield entry
        after = page.next_after


async def _checkpoints(store: MemoryStore, name: str) -> AsyncIterator[Checkpoint]:
    after = ""
    while page := await store.checkpoints(name, {}, after=after, limit=ENTRIES):
        for made in page:
            yield made
        after = page[-1].name


async def _pair(one: AsyncIterator[T], other: AsyncIterator[T]) -> AsyncIterator[tuple[T | None, T | None]]:
    """What both give, side by side; None: that one has ended."""
    while True:
        pair = await anext(one, None), await anext(other, None)
        if pair == (None, None):
            return
        yield pair


def _key(one: Record | None, other: Record | None) -> str:
    known = one or other
    assert known is not None
    return known[KEY]
