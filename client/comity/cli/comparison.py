"""How an entry differs between two revisions, as lines in the manner of `git diff`. No I/O."""

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .render import Field, escape
from .values import lines

if TYPE_CHECKING:
    from comity.model import Difference, Entry

__all__ = ["KIND_STYLES", "compare", "kind"]

CONTEXT = 3  # lines that did not change, around those that did
MOST = 5_000  # lines that are compared: what takes a moment with so many takes minutes with ten times as many
ABSENT = "/dev/null"
KIND_STYLES = {"created": "green", "changed": "yellow", "deleted": "red"}


def kind(of: "Difference") -> str:
    """What became of the key: created, changed or deleted."""
    if of.before is None:
        return "created"
    return "deleted" if of.after is None else "changed"


def compare(of: "Difference") -> Iterator[Field]:
    """The lines to show, each with its style. In those of values, only line breaks are gone."""
    key = escape(of.key)
    yield f"diff {key}", "bold"
    yield f"{kind(of)}: {_versions(of.before, of.after)}", ""
    before, after = of.before, of.after
    if before is not None and after is not None and before.content_type != after.content_type:
        yield f"content type: {escape(before.content_type)} -> {escape(after.content_type)}", ""
    old, new = lines(before), lines(after)
    if old is None or new is None:
        yield f"binary values differ ({_size(before)} -> {_size(after)})", ""
    elif old != new:
        yield f"--- {_side(key, before)}", "bold"
        yield f"+++ {_side(key, after)}", "bold"
        yield from _hunks(old, new)
    elif before is not None and after is not None and before.data != after.data:
        yield f"the same, written in another way ({_size(before)} -> {_size(after)})", ""


def _versions(before: "Entry | None", after: "Entry | None") -> str:
    if before is not None and after is not None:
        return f"version {before.version} -> {after.version}, revision {before.mod_revision} -> {after.mod_revision}"
    there = after or before
    assert there is not None
    return f"version {there.version}, revision {there.mod_revision}"


def _side(key: str, entry: "Entry | None") -> str:
    return ABSENT if entry is None else f"{key}\trevision {entry.mod_revision}"


def _size(entry: "Entry | None") -> str:
    return "absent" if entry is None else f"{len(entry.data)} bytes"


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[Field]:
    """What changed, with a few lines around it. What both have at their ends is not compared."""
    shorter = min(len(old), len(new))
    head = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    tail = next((place for place in range(shorter - head) if old[-1 - place] != new[-1 - place]), shorter - head)
    start, left = max(0, head - CONTEXT), max(0, tail - CONTEXT)
    old, new = old[start : len(old) - left], new[start : len(new) - left]
    if max(len(old), len(new)) > MOST:
        same, old_end, new_end = head - start, len(old) - (tail - left), len(new) - (tail - left)
        groups = [
            [
                ("equal", 0, same, 0, same),
                ("replace", same, old_end, same, new_end),
                ("equal", old_end, len(old), new_end, len(new)),
            ]
        ]
    else:
        groups = list(difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT))
    for group in groups:
        (_, old_first, _, new_first, _), (_, _, old_last, _, new_last) = group[0], group[-1]
        yield f"@@ -{_range(start, old_first, old_last)} +{_range(start, new_first, new_last)} @@", "cyan"
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from ((f" {line}", "") for line in old[old_from:old_to])
            else:
                yield from ((f"-{line}", "red") for line in old[old_from:old_to])
                yield from ((f"+{line}", "green") for line in new[new_from:new_to])


def _range(start: int, first: int, last: int) -> str:
    """Lines as a hunk's head names them: the first, from 1, and how many; of none, the one before."""
    count = last - first
    if count == 1:
        return str(start + first + 1)
    return f"{start + first + (1 if count else 0)},{count}"
