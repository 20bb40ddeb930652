"""What differs between two states of a namespace: found from what changed, not from what there is."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from comity_server.model import Difference, DiffPage
from comity_server.record import KEY, Record, same_content, shown_size, without_value
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.judge import STEPS
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.versions import Versions
from comity_server.turns import Pace

_STEP: Final = 1_000  # keys that are looked at in one go
_CHANGED_MOST: Final = 10_000  # changed keys that a page picks its own from; where there are more it walks the index


async def changed_keys(draft: Draft, since: int, prefix: str, pace: Pace) -> Sequence[str]:
    """The keys under a prefix that changed after a revision, and maybe others, in order. Nothing may be applied or
    dropped meanwhile."""
    versions = draft.base.versions
    known = versions.count_own(prefix)
    heads = versions.changed_since(since)
    chunks: list[list[str]] = []
    looked_at = 0
    keys: Iterator[str] | None = None
    while chunk := list(islice(heads, _STEP)):
        looked_at += len(chunk)
        if looked_at > known + _STEP:  # the index has less to look through
            keys = versions.own_under(prefix)
            break
        chunks.append(sorted(head[KEY] for head in chunk if head[KEY].startswith(prefix)))
        draft.steps += len(chunk)
        await pace.step(len(chunk))
    found: list[str] = []
    for key in keys or merge(*chunks):
        found.append(key)
        await pace.step()
    return found


def diff(
    state: Namespace, base: int, target: int, prefix: str, *, after: str, limit: int, max_bytes: int, keys_only: bool
) -> DiffPage:
    """One page of what differs between two readable revisions."""
    changed = list(islice(state.versions.changed_since(min(base, target)), _CHANGED_MOST + 1))
    differences: list[Difference] = []
    last, next_after = after, None
    room = max_bytes
    looked_at = 0
    for key in _candidates(state, changed, prefix, after):
        if len(differences) >= limit or looked_at >= state.looked_at:
            next_after = last
            break
        looked_at += 1
        difference = between(state.versions, key, base, target)
        if difference is not None:
            if keys_only:
                difference = without_values(difference)
            room -= sum(shown_size(entry) for entry in difference[1:] if entry is not None)
            if room < 0 and differences:
                next_after = last
                break
            differences.append(difference)
        last = key
    steps = len(changed) + looked_at * (1 + state.depth)
    return DiffPage(differences, base, target, next_after, steps // STEPS)


def between(versions: Versions, key: str, base: int, target: int) -> Difference | None:
    """How a key differs between two revisions, if it does."""
    before, after = versions.live_at(key, base), versions.live_at(key, target)
    return None if same_content(before, after) else Difference(key, before, after)


def without_values(difference: Difference) -> Difference:
    before, after = difference.before, difference.after
    return Difference(
        difference.key,
        None if before is None else without_value(before),
        None if after is None else without_value(after),
    )


def _candidates(state: Namespace, changed: Sequence[Record], prefix: str, after: str) -> Iterator[str]:
    """In order, the keys after one that may differ: from the changes if they are few, else from the index."""
    if len(changed) > _CHANGED_MOST or len(changed) > state.versions.count_own(prefix):
        return state.versions.own_under(prefix, after)
    return iter(sorted(head[KEY] for head in changed if head[KEY] > after and head[KEY].startswith(prefix)))
