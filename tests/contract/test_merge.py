"""Bringing a fork back: three ways, against the state at the fork, as one commit or as a list of what is in dispute."""

from typing import NamedTuple

import pytest

from comity_server.errors import (
    CommitTooLarge,
    NamespaceNotFound,
    NotAFork,
    QuotaExceeded,
    RequestIdReused,
)
from comity_server.limits import Limits
from comity_server.model import (
    Commit,
    Delete,
    Merge,
    MergeConflict,
    MergeResult,
    Operation,
    Outcome,
    Put,
    RequestId,
    Strategy,
    Transaction,
)
from comity_server.record import KEY, Record
from tests.contract.conftest import OpenSpace
from tests.contract.space import HOUR, Space, plain
from tests.contract.test_following import Heard


class Sides(NamedTuple):
    parent: Space
    fork: Space


ENDS: dict[str, tuple[bytes | None, bytes | None, bytes | None]] = {
    # what a key holds at the fork, in the parent, in the fork
    "absent then ours": (None, b"o", None),
    "absent then same": (None, b"s", b"s"),
    "absent then theirs": (None, None, b"t"),
    "absent then two": (None, b"o", b"t"),
    "kept": (b"b", b"b", b"b"),
    "ours changed": (b"b", b"o", b"b"),
    "theirs changed": (b"b", b"b", b"t"),
    "both changed": (b"b", b"o", b"t"),
    "both changed alike": (b"b", b"s", b"s"),
    "ours deleted": (b"b", None, b"b"),
    "theirs deleted": (b"b", b"b", None),
    "both deleted": (b"b", None, None),
    "ours deleted theirs changed": (b"b", None, b"t"),
    "ours changed theirs deleted": (b"b", b"o", None),
}
IN_DISPUTE = ["absent then two", "both changed", "ours changed theirs deleted", "ours deleted theirs changed"]
UNDISPUTED = {"absent then theirs": b"t", "theirs changed": b"t", "theirs deleted": None}


def operations(column: int) -> list[Operation]:
    """What brings a side from the state at the fork to its end."""
    changes: list[Operation] = []
    for key, ends in ENDS.items():
        wanted = ends[column]
        if wanted != ends[0]:
            changes.append(Delete(key) if wanted is None else Put(key, wanted))
    return changes


@pytest.fixture
async def sides(space: Space) -> Sides:
    """Revisions of the parent: 1 begins, 2 changes; of the fork: 2 begins, 3 changes."""
    await space.apply(*(Put(key, base) for key, (base, _, _) in ENDS.items() if base is not None))
    fork = await space.fork("fork")
    await space.apply(*operations(1))
    await fork.apply(*operations(2))
    return Sides(space, fork)


async def small(space: Space) -> Sides:
    """Of two keys, a and b; the fork changed b, deleted a, and put c."""
    await space.apply(Put("a", b"1"), Put("b", b"1", "text/plain"))
    fork = await space.fork("fork")
    await fork.apply(Put("b", b"2", "text/html"), Delete("a"), Put("c", b"2", ttl=HOUR))
    return Sides(space, fork)


async def newest(space: Space) -> Commit:
    return (await space.log())[-1]


def ours() -> dict[str, bytes]:
    return {key: end for key, (_, end, _) in ENDS.items() if end is not None}


async def conflicts_of(sides: Sides) -> list[MergeConflict]:
    return [
        MergeConflict(key, await sides.parent.get(key, 1), await sides.parent.get(key), await sides.fork.get(key))
        for key in IN_DISPUTE
    ]


async def test_merge_that_may_not_choose_changes_nothing_and_lists_the_conflicts(sides: Sides) -> None:
    before = await sides.parent.entries()
    for dry_run in (True, False):
        outcome, result = await sides.parent.merge(sides.fork, dry_run=dry_run)
        assert (outcome.committed, outcome.revision) == (False, 2)
        assert plain(result) == plain(MergeResult(2, 1, await conflicts_of(sides), 4))
        assert plain(await sides.parent.entries()) == plain(before)
    assert len(await sides.parent.log()) == 2


@pytest.mark.parametrize("strategy", [Strategy.OURS, Strategy.THEIRS])
async def test_merge_takes_what_one_side_changed_and_of_conflicts_the_side_that_was_chosen(
    sides: Sides, strategy: Strategy
) -> None:
    expected = ours() | {key: end for key, end in UNDISPUTED.items() if end is not None}
    del expected["theirs deleted"]
    changes = (2, 1)
    conflicts = await conflicts_of(sides)
    if strategy is Strategy.THEIRS:
        for key in IN_DISPUTE:
            end = ENDS[key][2]
            expected.pop(key, None)
            if end is not None:
                expected[key] = end
        changes = (5, 2)
    theirs = await sides.fork.entries()
    for dry_run in (True, False):
        outcome, result = await sides.parent.merge(sides.fork, strategy, dry_run=dry_run)
        assert plain(result) == plain(MergeResult(*changes, conflicts, 4))
        assert (outcome.committed, outcome.revision) == ((False, 2) if dry_run else (True, 3))
        assert await sides.parent.contents() == (ours() if dry_run else expected)
    assert plain(await sides.fork.entries()) == plain(theirs), "the fork stays as it is"
    assert await sides.fork.revision() == 3


async def test_merge_without_conflicts_is_the_same_by_every_strategy(space: Space) -> None:
    for strategy in Strategy:
        parent, fork = await small(space.sibling(strategy.name.lower()))
        outcome, result = await parent.merge(fork, strategy)
        assert (outcome.committed, outcome.revision) == (True, 2)
        assert plain(result) == plain(MergeResult(2, 1, [], 0))
        assert await parent.contents() == {"b": b"2", "c": b"2"}


async def test_merge_is_one_commit_of_ordinary_events_in_the_order_of_keys(space: Space) -> None:
    parent, fork = await small(space)
    before = {entry[KEY]: entry for entry in await parent.entries()}
    await parent.commit(Merge(fork=fork.name, author="ann", message="the best idea", trace_parent="00-1-2-01"))
    commit = await newest(parent)
    assert (commit.revision, commit.author, commit.message, commit.trace_parent) == (
        2,
        "ann",
        "the best idea",
        "00-1-2-01",
    )
    entries: list[Record] = [
        ("a", b"", "", 0, 0, 2, 0, commit.time),
        ("b", b"2", "text/html", 2, 1, 2, 0, commit.time),
        ("c", b"2", "", 1, 2, 2, 0, commit.time),  # of the parent's own counting, and by no lease
    ]
    assert [event.entry for event in commit.events] == entries
    assert [event.previous for event in commit.events] == [before["a"], before["b"], None]


async def test_merge_without_a_message_says_what_was_merged(space: Space) -> None:
    parent, fork = await small(space)
    await parent.merge(fork)
    assert (await newest(parent)).message == f"merge {fork.name} (revision 3)"


async def test_merge_of_nothing_makes_no_revision(space: Space) -> None:
    await space.put("a")
    fork = await space.fork("fork")
    outcome, result = await space.merge(fork)
    assert (outcome.committed, outcome.revision, plain(result)) == (True, 1, plain(MergeResult(0, 0, [], 0)))
    await fork.put("a", b"other")
    await fork.put("a", b"v")
    await fork.put("b")
    await fork.delete("b")
    await space.put("c")
    outcome, result = await space.merge(fork)
    assert (outcome.committed, outcome.revision, plain(result)) == (True, 2, plain(MergeResult(0, 0, [], 0)))


async def test_content_type_alone_is_a_change(space: Space) -> None:
    await space.put("a", b"1", "text/plain")
    fork = await space.fork("fork")
    await fork.put("a", b"1", "text/html")
    await space.put("a", b"1", "")
    _, result = await space.merge(fork)
    assert [conflict.key for conflict in result.conflicts] == ["a"]
    await space.put("a", b"1", "text/plain")
    _, result = await space.merge(fork)
    assert (result.put, (await space.entry("a"))[:4]) == (1, ("a", b"1", "text/html", 4))


async def test_fork_is_merged_again_with_what_came_since(space: Space) -> None:
    parent, fork = await small(space)
    await parent.merge(fork)
    assert (await parent.merge(fork))[1] == MergeResult(0, 0, [], 0), "what was merged before is no change"
    await fork.apply(Put("d", b"3"), Delete("c"))
    outcome, result = await parent.merge(fork)
    # c was not there at the fork, so that the fork has no change of it any more.
    assert (outcome.committed, result.put, result.deleted) == (True, 1, 0)
    assert await parent.contents() == {"b": b"2", "c": b"2", "d": b"3"}
    await fork.put("b", b"4")
    outcome, result = await parent.merge(fork)
    # Always against the state at the fork: by now both sides have changed b.
    assert (outcome.committed, [conflict.key for conflict in result.conflicts]) == (False, ["b"])
    outcome, result = await parent.merge(fork, Strategy.THEIRS)
    assert (outcome.committed, result.put) == (True, 1)
    assert (await parent.entry("b"))[:4] == ("b", b"4", "", 3)


async def test_merge_is_undone_by_a_restore(sides: Sides) -> None:
    before = await sides.parent.contents()
    outcome, _ = await sides.parent.merge(sides.fork, Strategy.THEIRS)
    await sides.parent.restore(outcome.revision - 1)
    assert await sides.parent.contents() == before


async def test_merge_against_a_fork_point_that_was_compacted(sides: Sides) -> None:
    conflicts = await conflicts_of(sides)
    for _ in range(3):
        await sides.parent.put("later")
        await sides.fork.put("later", b"fork")
        await sides.fork.delete("later")
    for side in sides:
        await side.compact()
    _, result = await sides.parent.merge(sides.fork)
    assert plain(result) == plain(MergeResult(2, 1, conflicts, 4))


async def test_many_conflicts_are_counted_and_the_first_thousand_shown(space: Space) -> None:
    keys = [f"k{number:04}" for number in range(1500)]
    for part in (keys[:1000], keys[1000:]):
        await space.apply(*(Put(key, b"base") for key in part))
    fork = await space.fork("fork")
    for side, value in ((space, b"ours"), (fork, b"theirs")):
        for part in (keys[:1000], keys[1000:]):
            await side.apply(*(Put(key, value) for key in part))
    outcome, result = await space.merge(fork)
    assert (outcome.committed, result.put, result.conflict_count) == (False, 0, 1500)
    assert [conflict.key for conflict in result.conflicts] == keys[:1000]
    outcome, result = await space.merge(fork, Strategy.THEIRS)
    assert (result.put, result.conflict_count) == (1500, 1500)
    assert set((await space.contents()).values()) == {b"theirs"}


async def test_merge_of_what_is_no_fork_of_the_namespace_is_refused(space: Space) -> None:
    parent, fork = await small(space)
    other, inner = parent.sibling("other"), await fork.fork("inner")
    await other.put("a")
    sibling = await parent.fork("sibling")
    for into, of in (
        (parent, other),
        (parent, inner),
        (fork, parent),
        (fork, sibling),
        (parent, parent),
        (other, fork),
    ):
        with pytest.raises(NotAFork) as refused:
            await into.merge(of)
        assert refused.value.metadata == {"namespace": of.name, "parent": into.name}
    assert (await fork.merge(inner))[0].committed


async def test_fork_of_a_namespace_that_was_deleted_is_no_fork_of_what_has_its_name_now(space: Space) -> None:
    parent, fork = await small(space)
    await parent.store.delete_namespace(parent.name)
    with pytest.raises((NamespaceNotFound, NotAFork)):
        await parent.merge(fork)
    await parent.put("a", b"new")
    with pytest.raises(NotAFork):
        await parent.merge(fork)
    assert await parent.contents() == {"a": b"new"}
    assert (await fork.info()).parent == parent.name


async def test_merge_of_a_fork_that_does_not_exist_is_refused(space: Space) -> None:
    parent, fork = await small(space)
    await fork.store.delete_namespace(fork.name)
    with pytest.raises(NamespaceNotFound) as refused:
        await parent.merge(fork)
    assert refused.value.metadata == {"namespace": fork.name}
    await fork.put("a")  # one of its name is another
    with pytest.raises(NotAFork):
        await parent.merge(fork)
    with pytest.raises(NamespaceNotFound):
        await parent.merge(parent.sibling("never"))


async def test_repeat_answers_the_first_outcome_and_merges_nothing(sides: Sides) -> None:
    parent, fork = sides
    merge = Merge(fork=fork.name, strategy=Strategy.THEIRS, request_id=RequestId("c", 1))
    first = await parent.commit(merge)
    assert first.revision == 3
    await parent.put("theirs changed", b"later")
    entries = await parent.entries()
    assert plain(await parent.commit(merge)) == plain(first)
    await fork.store.delete_namespace(fork.name)
    assert plain(await parent.commit(merge)) == plain(first), "whatever became of the fork"
    assert plain(await parent.entries()) == plain(entries)
    for other in (
        Merge(fork=fork.name, strategy=Strategy.OURS, request_id=RequestId("c", 1)),
        Merge(fork=f"{fork.name}s", strategy=Strategy.THEIRS, request_id=RequestId("c", 1)),
        Merge(fork=fork.name, strategy=Strategy.THEIRS, dry_run=True, request_id=RequestId("c", 1)),
    ):
        with pytest.raises(RequestIdReused):
            await parent.commit(other)


async def test_merge_that_met_conflicts_is_judged_again(sides: Sides) -> None:
    parent, fork = sides
    merge = Merge(fork=fork.name, request_id=RequestId("c", 1))
    assert not (await parent.commit(merge)).committed
    for key in IN_DISPUTE:
        base = ENDS[key][0]
        await parent.apply(Delete(key) if base is None else Put(key, base))
    outcome = await parent.commit(merge)
    assert outcome.committed
    expected = {key: theirs if theirs != base else ours for key, (base, ours, theirs) in ENDS.items()}
    assert await parent.contents() == {key: end for key, end in expected.items() if end is not None}


async def test_merge_past_a_quota_is_refused_whole(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_keys=3))
    await space.put("a")
    fork = await space.fork("fork")
    await fork.apply(Put("b", b""), Put("c", b""))
    await space.put("d")
    with pytest.raises(QuotaExceeded) as refused:
        await space.merge(fork)
    assert refused.value.metadata == {"quota": "keys", "limit": "3"}
    assert await space.keys() == ["a", "d"]
    await fork.delete("a")
    assert (await space.merge(fork))[0].revision == 3
    assert await space.keys() == ["b", "c", "d"]


async def test_merge_of_more_than_a_commit_may_change_is_refused_whole(open_space: OpenSpace) -> None:
    space = await open_space(Limits(restore_events=3))
    await space.put("a")
    fork = await space.fork("fork")
    await fork.apply(*(Put(key, b"") for key in "abcd"))
    for dry_run in (False, True):
        with pytest.raises(CommitTooLarge):
            await space.merge(fork, dry_run=dry_run)
    assert await space.keys() == ["a"]
    await fork.delete("d")
    assert (await space.merge(fork))[0].revision == 2


async def test_merge_in_a_group_sees_what_was_written_before_it(space: Space) -> None:
    parent, fork = await small(space)
    first, disputed, second, merged, repeat = await parent.outcomes(
        Transaction(then=[Put("b", b"ours")]),
        Merge(fork=fork.name),
        Transaction(then=[Put("b", b"1", "text/plain")]),
        Merge(fork=fork.name),
        Merge(fork=fork.name),
    )
    assert [outcome.revision for outcome in (first, disputed, second, merged, repeat)] == [2, 2, 3, 4, 4]
    assert [disputed.committed, merged.committed, repeat.committed] == [False, True, True]
    assert isinstance(merged, Outcome)
    assert (await parent.entry("b"))[:4] == ("b", b"2", "text/html", 4)


async def test_listener_hears_of_a_merge_once(space: Space) -> None:
    parent, fork = await small(space)
    heard = Heard()
    await parent.store.follow(parent.name, heard)
    await parent.merge(fork, dry_run=True)
    await parent.merge(fork)
    await parent.merge(fork)
    await parent.put("last")
    assert plain(await heard.hears(2)) == plain((await parent.log())[1:])
    await parent.store.unfollow(parent.name)


async def test_merges_of_several_forks_and_of_forks_of_forks(space: Space) -> None:
    await space.apply(*(Put(key, b"base") for key in "abc"))
    one, two = await space.fork("one"), await space.fork("two")
    inner = await one.fork("inner")
    await inner.apply(Put("a", b"inner"), Delete("b"))
    await two.put("c", b"two")
    for into, of in ((one, inner), (space, one), (space, two)):
        outcome, result = await into.merge(of)
        assert outcome.committed
        assert result.conflict_count == 0
    assert await space.contents() == {"a": b"inner", "c": b"two"}
    for _ in range(2):
        assert (await space.merge(one))[1].put == 0


async def test_merge_of_few_changes_among_many_keys_writes_only_these(space: Space) -> None:
    for start in range(0, 10_000, 1000):
        await space.apply(*(Put(f"k{number:05}", b"v") for number in range(start, start + 1000)))
    fork = await space.fork("fork")
    await fork.apply(Put("k00500", b"fork"), Delete("k09999"), Put("x", b""))
    outcome, result = await space.merge(fork)
    assert (outcome.revision, result.put, result.deleted) == (11, 2, 1)
    assert len((await newest(space)).events) == 3
