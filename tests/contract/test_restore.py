"""Going back: one commit of ordinary events, at the cost of what changed, that can itself be undone."""

import asyncio
from itertools import pairwise

import pytest

from comity_server.errors import (
    CheckpointNotFound,
    CommitTooLarge,
    Compacted,
    Conflict,
    NamespaceNotFound,
    QuotaExceeded,
    RequestIdReused,
    RevisionInFuture,
)
from comity_server.limits import Limits
from comity_server.model import (
    Commit,
    Delete,
    Difference,
    Outcome,
    Put,
    Ref,
    RequestId,
    Restore,
    RestoreResult,
    Transaction,
)
from comity_server.record import KEY, Record, without_value
from tests.contract.conftest import OpenSpace
from tests.contract.space import HOUR, Space, plain
from tests.contract.test_following import Heard


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1 puts a, b, d/1 and d/2; 2 a again; 3 deletes b and d/1; 4 puts c and d/3; 5 puts b and a again."""
    await space.apply(Put("a", b"1", "text/plain"), Put("b", b"1"), Put("d/1", b"1"), Put("d/2", b"1"))
    await space.put("a", b"2")
    await space.apply(Delete("b"), Delete("d/1"))
    await space.apply(Put("c", b"4"), Put("d/3", b"4"))
    await space.apply(Put("b", b"1"), Put("a", b"1", "text/plain"))
    return space


def contents(entries: list[Record]) -> list[tuple[str, bytes, str]]:
    return [entry[:3] for entry in entries]


async def newest(space: Space) -> Commit:
    return (await space.log())[-1]


@pytest.mark.parametrize("revision", range(6))
async def test_restore_makes_the_namespace_equal_to_what_it_was(lived: Space, revision: int) -> None:
    wanted = await lived.entries(revision=revision) if revision else []
    changed = await lived.differences(None, revision)
    made, result = await lived.restore(revision)
    assert contents(await lived.entries()) == contents(wanted)
    assert await lived.differences(revision) == []
    puts = [difference for difference in changed if difference.after is not None]
    assert result == RestoreResult(len(puts), len(changed) - len(puts))
    assert made == (6 if changed else 5)


@pytest.mark.parametrize("revision", range(6))
async def test_restore_of_a_prefix_touches_nothing_else(lived: Space, revision: int) -> None:
    wanted = await lived.entries("d/", revision=revision) if revision else []
    others = [entry for entry in await lived.entries() if not entry[KEY].startswith("d/")]
    await lived.restore(revision, "d/")
    assert contents(await lived.entries("d/")) == contents(wanted)
    assert [entry for entry in await lived.entries() if not entry[KEY].startswith("d/")] == others


async def test_restore_is_one_commit_of_ordinary_events_in_the_order_of_keys(lived: Space) -> None:
    before = {entry[KEY]: entry for entry in await lived.entries()}
    outcome = await lived.commit(Restore(ref=2, author="ann", message="back", trace_parent="00-1-2-01"))
    assert plain(outcome) == plain(Outcome(True, 6, (RestoreResult(2, 2),)))
    commit = await newest(lived)
    assert (commit.revision, commit.author, commit.message, commit.trace_parent) == (6, "ann", "back", "00-1-2-01")
    events = {event.entry[KEY]: event for event in commit.events}
    assert list(events) == ["a", "c", "d/1", "d/3"]
    time = commit.time
    # a goes on counting; d/1 was deleted, so it is created anew.
    assert events["a"].entry == ("a", b"2", "", 4, 1, 6, 0, time)
    assert events["a"].previous == before["a"]
    assert events["d/1"].entry == ("d/1", b"1", "", 1, 6, 6, 0, time)
    assert events["d/1"].previous is None
    for key in ("c", "d/3"):
        assert events[key].is_delete
        assert events[key].entry == (key, b"", "", 0, 0, 6, 0, time)
        assert events[key].previous == before[key]
    assert await lived.entry("d/1") == events["d/1"].entry


async def test_keys_that_did_not_change_are_not_written(lived: Space) -> None:
    """b was deleted and put again with what it had: it is as it was, and it stays as it is."""
    before = await lived.entry("b")
    assert before[4] == 5
    await lived.restore(1)
    assert [event.entry[KEY] for event in (await newest(lived)).events] == ["c", "d/1", "d/3"]
    assert await lived.entry("b") == before
    assert (await lived.entry("d/2"))[3:6] == (1, 1, 1)


async def test_restore_with_nothing_to_do_makes_no_revision(lived: Space) -> None:
    for ref, prefix in ((5, ""), (None, ""), (1, "b"), (1, "nothing/")):
        assert await lived.restore(ref, prefix) == (5, RestoreResult(0, 0))
    assert await lived.revision() == 5


async def test_restore_says_what_it_does_where_nobody_said_why(lived: Space) -> None:
    await lived.checkpoint("good", 1)
    await lived.restore(2)
    assert (await newest(lived)).message == "restore to revision 2"
    await lived.restore("good")
    assert (await newest(lived)).message == "restore to good (revision 1)"
    await lived.restore(5, "d/")
    assert (await newest(lived)).message == "restore 'd/' to revision 5"


async def test_restore_to_a_checkpoint_below_the_floor(lived: Space) -> None:
    wanted = await lived.entries(revision=2)
    await lived.checkpoint("good", 2)
    await lived.put("d/9")
    await lived.compact()
    for ref in ("good", 2):
        await lived.restore(ref)
        assert contents(await lived.entries()) == contents(wanted)
        await lived.delete_prefix("")
        await lived.compact()
    await lived.restore("good", "d/")
    assert await lived.keys() == ["d/1", "d/2"]


async def test_restore_to_revision_0_deletes_everything(lived: Space) -> None:
    assert await lived.restore(0, "d/") == (6, RestoreResult(0, 2))
    assert await lived.keys() == ["a", "b", "c"]
    assert await lived.restore(0) == (7, RestoreResult(0, 3))
    assert await lived.keys() == []
    await lived.restore(6)
    assert await lived.keys() == ["a", "b", "c"]
    await lived.compact()
    with pytest.raises(Compacted):
        await lived.restore(0)


async def test_restore_is_undone_by_a_restore_to_the_revision_before(lived: Space) -> None:
    for revision in range(5):
        before, at = await lived.entries(), await lived.revision()
        made, result = await lived.restore(revision)
        assert made == at + 1
        _, back = await lived.restore(made - 1)
        assert contents(await lived.entries()) == contents(before)
        assert result.put + result.deleted == back.put + back.deleted


async def test_restored_keys_live_by_no_lease(lived: Space) -> None:
    await lived.apply(Put("a", b"leased", ttl=HOUR), Put("e", b"leased", ttl=HOUR))
    await lived.apply(Put("a", b"1"), Delete("e"))
    await lived.restore(6)
    assert [(await lived.entry(key))[6] for key in ("a", "e")] == [0, 0]


async def test_dry_run_tells_what_would_change_and_changes_nothing(lived: Space) -> None:
    entries, log = await lived.entries(), await lived.log()
    expected = [
        Difference(key, before and without_value(before), after and without_value(after))
        for key, before, after in await lived.differences(None, 2)
    ]
    revision, result = await lived.restore(2, dry_run=True)
    assert (revision, result.put, result.deleted) == (5, 2, 2)
    assert plain(result.differences) == plain(expected)
    _, of_prefix = await lived.restore(2, "d/", dry_run=True)
    assert [difference.key for difference in of_prefix.differences] == ["d/1", "d/3"]
    assert (of_prefix.put, of_prefix.deleted) == (1, 1)
    assert await lived.restore(5, dry_run=True) == (5, RestoreResult(0, 0))
    assert plain(await lived.entries()) == plain(entries)
    assert plain(await lived.log()) == plain(log)


async def test_dry_run_of_much_shows_the_first_thousand_and_counts_all(space: Space) -> None:
    for start in (0, 1000):
        await space.apply(*(Put(f"k{number:04}", b"1") for number in range(start, start + 1000)))
    await space.delete_prefix("k1")
    await space.apply(*(Put(f"n{number:04}", b"1") for number in range(500)))
    _, result = await space.restore(2, dry_run=True)
    assert (result.put, result.deleted) == (1000, 500)
    assert [difference.key for difference in result.differences] == [f"k{number:04}" for number in range(1000, 2000)]
    assert await space.revision() == 4


async def test_restore_happens_only_at_the_revision_that_is_named(lived: Space) -> None:
    for wrong in (0, 4, 6):
        for dry_run in (False, True):
            with pytest.raises(Conflict) as refused:
                await lived.restore(1, if_revision=wrong, dry_run=dry_run)
            assert refused.value.metadata == {"namespace": lived.name, "revision": "5"}
    assert await lived.revision() == 5
    assert (await lived.restore(1, if_revision=5))[0] == 6


async def test_restore_in_a_group_sees_what_was_written_before_it(lived: Space) -> None:
    outcomes = await lived.group(
        Transaction(then=[Put("a", b"in the group"), Put("x", b"")]),
        Restore(ref=5, if_revision=5),
        Restore(ref=5, if_revision=6),
        Transaction(then=[Put("x", b"after")]),
        Restore(ref=6),
    )
    assert [type(outcome) for outcome in outcomes] == [Outcome, Conflict, Outcome, Outcome, Outcome]
    assert [outcome.revision for outcome in outcomes if isinstance(outcome, Outcome)] == [6, 7, 8, 9]
    assert (await lived.entry("a"))[1] == b"in the group"
    assert (await lived.entry("x", 8))[1] == b"after"
    assert (await lived.entry("x"))[1] == b""


async def test_restore_to_what_cannot_be_read_is_refused(lived: Space) -> None:
    await lived.compact(3)
    refusals: list[tuple[Ref, type[Exception]]] = [
        (2, Compacted),
        (0, Compacted),
        (6, RevisionInFuture),
        ("none", CheckpointNotFound),
    ]
    for ref, error in refusals:
        for dry_run in (False, True):
            with pytest.raises(error):
                await lived.restore(ref, dry_run=dry_run)
    with pytest.raises(NamespaceNotFound):
        await lived.sibling("absent").restore(0)
    assert await lived.revision() == 5


async def test_restore_of_more_than_a_commit_may_change_is_refused_whole(open_space: OpenSpace) -> None:
    space = await open_space(Limits(restore_events=5))
    await space.apply(*(Put(f"a{number}", b"1") for number in range(3)))
    await space.delete_prefix("")
    await space.apply(*(Put(f"b{number}", b"1") for number in range(3)))
    for dry_run in (False, True):
        with pytest.raises(CommitTooLarge) as refused:
            await space.restore(1, dry_run=dry_run)
        assert refused.value.metadata == {"limit": "5"}
    assert await space.keys() == ["b0", "b1", "b2"]
    assert await space.revision() == 3
    await space.delete("b0")
    assert await space.restore(1) == (5, RestoreResult(3, 2))


async def test_restore_past_a_quota_is_refused_whole(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_keys=3, namespace_bytes=100))
    await space.apply(Put("a", bytes(30)), Put("b", bytes(30)))
    await space.delete("b")
    await space.put("c", bytes(60))
    with pytest.raises(QuotaExceeded) as refused:
        await space.restore(1, "b")
    assert refused.value.metadata == {"quota": "bytes", "limit": "100"}
    await space.apply(Put("c", b""), Put("d", b""))
    with pytest.raises(QuotaExceeded) as refused:
        await space.restore(1, "b")
    assert refused.value.metadata == {"quota": "keys", "limit": "3"}
    assert await space.keys() == ["a", "c", "d"]
    await space.restore(1)  # it is held against what the whole comes to
    assert await space.keys() == ["a", "b"]


async def test_repeat_answers_the_first_outcome_and_restores_nothing(lived: Space) -> None:
    restore = Restore(ref=2, prefix="d/", request_id=RequestId("c", 1))
    first = await lived.commit(restore)
    assert (first.revision, len(first.results)) == (6, 1)
    await lived.put("d/3", b"later")
    entries = await lived.entries()
    assert plain(await lived.commit(restore)) == plain(first)
    assert plain(await lived.entries()) == plain(entries)
    put, repeat, other = await lived.outcomes(
        Transaction(then=[Put("a", b"")]), restore, Restore(ref=2, prefix="d/", request_id=RequestId("c", 2))
    )
    assert plain(repeat) == plain(first)
    assert (put.revision, other.revision) == (8, 9)
    for another in (
        Restore(ref=3, prefix="d/", request_id=RequestId("c", 1)),
        Restore(ref=2, prefix="d", request_id=RequestId("c", 1)),
        Restore(ref="2", prefix="d/", request_id=RequestId("c", 1)),
        Restore(ref=2, prefix="d/", if_revision=9, request_id=RequestId("c", 1)),
    ):
        with pytest.raises(RequestIdReused):
            await lived.commit(another)


async def test_restore_that_changed_nothing_is_not_remembered(lived: Space) -> None:
    nothing = Restore(ref=5, request_id=RequestId("c", 1))
    dry = Restore(ref=1, dry_run=True, request_id=RequestId("c", 2))
    assert [outcome.revision for outcome in await lived.outcomes(nothing, dry)] == [5, 5]
    await lived.put("x")
    assert [outcome.revision for outcome in await lived.outcomes(nothing, dry)] == [7, 7]
    assert (await lived.commit(Restore(ref=6, request_id=RequestId("c", 2)))).revision == 8


async def test_listener_hears_of_a_restore_once(lived: Space) -> None:
    heard = Heard()
    await lived.store.follow(lived.name, heard)
    await lived.restore(2, dry_run=True)
    await lived.restore(5)
    await lived.restore(2)
    await lived.put("last")
    commits = await heard.hears(2)
    assert plain(commits) == plain((await lived.log())[5:])
    assert [commit.revision for commit in commits] == [6, 7]
    assert heard.resets == 0
    await lived.store.unfollow(lived.name)


async def test_restore_after_a_delete_of_the_namespace_reaches_nothing_of_it(lived: Space) -> None:
    await lived.store.delete_namespace(lived.name)
    revision = await lived.put("new")
    for old in (0, 1, 5):
        with pytest.raises(Compacted):
            await lived.restore(old)
    assert await lived.restore(revision - 1) == (revision + 1, RestoreResult(0, 1))
    assert await lived.keys() == []


async def fill(space: Space, keys: int, value: bytes = b"1") -> int:
    """Put so many keys; the newest revision."""
    for start in range(0, keys, 1000):
        await space.apply(*(Put(f"k{number:05}", value) for number in range(start, min(keys, start + 1000))))
    return await space.revision()


async def test_large_restore_lets_others_in_and_is_seen_whole_or_not_at_all(space: Space) -> None:
    """30,000 changed keys: other namespaces are answered meanwhile, and no reader sees a part."""
    full = await fill(space, 30_000)
    for prefix in ("k0", "k1", "k2"):
        await space.delete_prefix(prefix)
    empty = await space.revision()
    other = space.sibling("other")
    heard = Heard()
    await space.store.follow(space.name, heard)
    writes = reads = 0

    async def write() -> None:
        nonlocal writes
        while not restoring.done():
            await other.put("k")
            writes += 1
            await asyncio.sleep(0)  # a store in memory may answer without a pause

    for ref, before, after in ((full, 0, 30_000), (empty, 30_000, 0)):
        at = await space.revision()
        restoring = asyncio.create_task(space.restore(ref))
        writing = asyncio.create_task(write())
        while not restoring.done():
            info = await space.info()
            assert (info.revision, info.key_count) in {(at, before), (at + 1, after)}
            page = await space.store.list(space.name, "k29", limit=1000, max_bytes=10**6, keys_only=True)
            assert (page.revision, len(page.entries)) in {(at, min(before, 1000)), (at + 1, min(after, 1000))}
            for key in ("k00000", "k15000", "k29999"):
                entry, revision, _ = await space.store.get(space.name, key)
                assert (revision, entry is not None) in {(at, before > 0), (at + 1, after > 0)}
            reads += 1
            await asyncio.sleep(0)
        assert await restoring == (at + 1, RestoreResult(after, before))
        await writing
        assert len(await space.keys()) == after
    assert reads > 2, "readers were in between"  # of each of the two
    assert writes > 2, "and so were those who write elsewhere"
    commits = await heard.hears(2)
    assert [len(commit.events) for commit in commits] == [30_000, 30_000]
    for commit in commits:
        assert all(one.entry[KEY] < two.entry[KEY] for one, two in pairwise(commit.events))
    await space.store.unfollow(space.name)


@pytest.mark.timeout(30)  # a cost that grew with the square of it would take minutes
async def test_large_commits_are_forgotten_at_a_cost_that_grows_with_their_size(space: Space) -> None:
    full = await fill(space, 30_000)
    for prefix in ("k0", "k1", "k2"):
        await space.delete_prefix(prefix)
    await space.restore(full)
    await space.restore(full + 3)
    assert await space.settled() == 0
    assert await space.keys() == []


async def test_writes_that_come_during_a_restore_have_their_turn_after_it(space: Space) -> None:
    full = await fill(space, 5_000)
    await space.delete_prefix("")
    restoring = asyncio.create_task(space.restore(full))
    await asyncio.sleep(0)
    writes = [asyncio.create_task(space.put("k00000", b"%d" % turn)) for turn in range(3)]
    compacting = asyncio.create_task(space.compact())
    revision, _ = await restoring
    assert [await write for write in writes] == [revision + 1, revision + 2, revision + 3]
    await compacting
    assert (await space.entry("k00000"))[:4] == ("k00000", b"2", "", 4)
    assert len(await space.keys()) == 5_000


async def test_restore_of_little_among_much_changes_little(space: Space) -> None:
    full = await fill(space, 10_000)
    await space.apply(Put("k00500", b"2"), Delete("k09999"), Put("x", b""))
    assert await space.restore(full) == (full + 2, RestoreResult(2, 1))
    assert len((await newest(space)).events) == 3
    assert len(await space.keys()) == 10_000
