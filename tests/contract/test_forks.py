"""Branching a namespace: it starts as another one was, and from there on the two know nothing of each other."""

import asyncio

import pytest

from comity_server.errors import (
    CheckpointNotFound,
    Compacted,
    Conflict,
    ForkTooDeep,
    NamespaceExists,
    NamespaceNotFound,
    QuotaExceeded,
    RequestIdReused,
    RevisionInFuture,
)
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    Fork,
    Get,
    GetResult,
    Increment,
    IncrementResult,
    List,
    ListResult,
    Merge,
    Outcome,
    Put,
    Ref,
    RequestId,
    RestoreResult,
    Test,
    Transaction,
)
from comity_server.record import KEY, size
from tests.contract.conftest import OpenSpace
from tests.contract.space import HOUR, Space, plain
from tests.contract.test_following import Heard
from tests.waiting import until


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1 puts a, b/1 and b/2; 2 a again; 3 deletes b/1; 4 puts c and n; 5 a."""
    await space.apply(Put("a", b"1", "text/plain", ttl=HOUR), Put("b/1", b"1"), Put("b/2", b"1"))
    await space.put("a", b"2", "text/plain")
    await space.delete("b/1")
    await space.apply(Put("c", b"4"), Put("n", b"4"))
    await space.put("a", b"5")
    return space


async def test_fork_shows_the_entries_of_the_parent_as_they_were(lived: Space) -> None:
    await lived.checkpoint("three", 3)
    refs: list[tuple[Ref, int]] = [(None, 5), (5, 5), (1, 1), (2, 2), ("three", 3)]
    for ref, revision in refs:
        fork = await lived.fork(f"of-{ref}", ref)
        expected = await lived.entries(revision=revision)
        assert plain(await fork.entries()) == plain(expected)
        for entry in expected:
            assert await fork.get(entry[KEY]) == entry
        assert await fork.get("x") is None
        assert plain(await fork.entries("b/", keys_only=True)) == plain(
            await lived.entries("b/", keys_only=True, revision=revision)
        )


async def test_fork_of_revision_0_is_empty(lived: Space) -> None:
    fork = await lived.fork("empty", 0)
    assert await fork.entries() == []
    assert (await fork.info())[1:6] == (1, 0, 0, 0, 1)
    assert await fork.put("a") == 2


async def test_first_commit_of_a_fork_has_no_events_and_says_who_forked_and_why(lived: Space) -> None:
    before = (await lived.log())[-1].time
    fork = lived.sibling("said")
    action = Fork(parent=lived.name, ref=2, author="ann", message="to try", trace_parent="00-1-2-01")
    outcome = await fork.commit(action)
    assert plain(outcome) == plain(Outcome(True, 3, [await fork.info()]))
    (commit,) = await fork.log()
    assert commit[2:] == ("ann", "to try", "00-1-2-01", ())
    assert commit.revision == 3
    assert commit.time >= before
    assert len(await lived.log()) == 5, "the parent's log says nothing of it"


async def test_fork_without_a_message_says_what_was_forked(lived: Space) -> None:
    await lived.checkpoint("three", 3)
    for ref, message in ((None, f"fork {lived.name} (revision 5)"), ("three", f"fork {lived.name}@three (revision 3)")):
        fork = await lived.fork(f"of-{ref}", ref)
        (commit,) = await fork.log()
        assert (commit.message, commit.author) == (message, "")


async def test_revisions_of_a_fork_go_on_from_those_of_the_parent(lived: Space) -> None:
    fork = await lived.fork("fork", 2)
    assert (await fork.position())[:2] == (3, 2)
    assert (await fork.position()).epoch == (await lived.position()).epoch
    assert await fork.put("a") == 4
    assert (await fork.entry("a"))[3:6] == (3, 1, 4), "the key goes on as well"
    assert await fork.put("new") == 5
    assert (await fork.entry("new"))[3:6] == (1, 5, 5)
    assert plain(await fork.entries(revision=2)) == plain(await lived.entries(revision=2))
    assert plain(await fork.entries(revision=3)) == plain(await lived.entries(revision=2))
    with pytest.raises(Compacted):
        await fork.entries(revision=1)
    with pytest.raises(Compacted):
        await fork.store.commits(fork.name, first=2, last=9, limit=9)
    assert [commit.revision for commit in await fork.log()] == [3, 4, 5]
    assert await lived.put("a") == 6


async def test_fork_is_described(lived: Space) -> None:
    fork = await lived.fork("fork", 4)
    entries = await lived.entries(revision=4)
    info = await fork.info()
    assert info[:6] == (fork.name, 5, 4, 4, sum(map(size, entries)), 1)
    assert (info.parent, info.fork_revision) == (lived.name, 4)
    (commit,) = await fork.log()
    assert info.create_time == info.update_time == commit.time
    assert (await lived.info())[10:12] == ("", 0)
    listed = {found.name: found for found in await fork.store.namespaces(lived.name, limit=10)}
    assert listed[fork.name] == info
    await fork.apply(Put("a", b"12345"), Delete("b/2"), Put("new", b""))
    assert (await fork.info())[3:5] == (4, sum(map(size, await fork.entries())))
    await fork.delete_prefix("")
    assert (await fork.info())[3:5] == (0, 0)
    assert (await lived.info())[3:5] == (4, sum(map(size, await lived.entries())))


async def test_writes_on_either_side_are_not_seen_by_the_other(lived: Space) -> None:
    fork = await lived.fork("fork")
    beginning = await lived.entries()
    await fork.apply(Put("a", b"fork"), Delete("c"), Put("f", b""))
    assert plain(await lived.entries()) == plain(beginning)
    forked = await fork.entries()
    await lived.apply(Put("a", b"parent"), Put("b/1", b"parent"), Delete("b/2"), Put("p", b""))
    assert plain(await fork.entries()) == plain(forked)
    assert await fork.keys() == ["a", "b/2", "f", "n"]
    assert await lived.keys() == ["a", "b/1", "c", "n", "p"]
    await lived.delete_prefix("")
    await lived.compact()
    assert plain(await fork.entries()) == plain(forked)
    await fork.put("c", b"again")
    assert (await fork.entry("c"))[3:6] == (1, 8, 8)
    assert await lived.keys() == []


async def test_operations_in_a_fork_see_what_it_began_with(lived: Space) -> None:
    fork = await lived.fork("fork")
    outcome = await fork.apply(
        Increment("n", 3),
        Get("b/2"),
        DeletePrefix("b/", return_previous=True),
        Delete("a", return_previous=True),
        Put("b3", b""),
        List("", 10, keys_only=True),
    )
    incremented, got, prefix, deleted, _, listed = outcome.results
    assert incremented == IncrementResult(7, 2)
    assert got == GetResult(await lived.entry("b/2"))
    assert isinstance(prefix, DeleteResult)
    assert isinstance(deleted, DeleteResult)
    assert list(prefix.previous) == await lived.entries("b/")
    assert list(deleted.previous) == [await lived.entry("a")]
    assert isinstance(listed, ListResult)
    assert [entry[KEY] for entry in listed.entries] == ["b3", "c", "n"]
    events = (await fork.log())[-1].events
    assert [(event.entry[KEY], event.is_delete) for event in events] == [
        ("n", False),
        ("b/2", True),
        ("a", True),
        ("b3", False),
    ]
    previous = {event.entry[KEY]: event.previous for event in events}
    assert previous == {key: await lived.get(key) for key in ("n", "b/2", "a", "b3")}
    assert await fork.keys() == ["b3", "c", "n"]
    assert await fork.delete_prefix("b/") == 7, "what is deleted already is not deleted again"


async def test_conditions_in_a_fork_see_what_it_began_with(lived: Space) -> None:
    fork = await lived.fork("fork", 4)
    met = [
        Condition("a", Test.EXISTS, 1),
        Condition("a", Test.VERSION, 2),
        Condition("a", Test.MOD_REVISION, 2),
        Condition("a", Test.CREATE_REVISION, 1),
        Condition("a", Test.VALUE, b"2"),
        Condition("b/1", Test.EXISTS, 0),
        Condition("a", Test.UNCHANGED_SINCE, 4),
        Condition("b/", Test.UNCHANGED_SINCE, 4, is_prefix=True),
        Condition("", Test.UNCHANGED_SINCE, 4, is_prefix=True),
    ]
    assert (await fork.apply(Get("a"), conditions=met)).committed
    await fork.put("b/2")
    unmet = await fork.apply(conditions=[met[6], *met[7:]])
    assert [(failed.position, failed.changed_revision) for failed in unmet.failed] == [(1, 6), (2, 6)]
    with pytest.raises(Compacted):
        await fork.apply(conditions=[Condition("a", Test.UNCHANGED_SINCE, 3)])


async def test_lists_in_a_fork_come_in_pages_that_mix_both_layers(space: Space) -> None:
    await space.apply(*(Put(f"k{number:02}", b"p") for number in range(0, 40, 2)))
    fork = await space.fork("fork")
    deleted = ["k04", "k08", "k14", "k38"]
    await fork.apply(*(Put(f"k{number:02}", b"f") for number in range(0, 40, 3)), *map(Delete, deleted))
    expected = {f"k{number:02}": b"p" for number in range(0, 40, 2)}
    expected |= {f"k{number:02}": b"f" for number in range(0, 40, 3)}
    for key in deleted:
        del expected[key]
    assert await fork.contents() == expected
    for limit in (1, 3, 7):
        pages = await fork.pages(limit=limit)
        assert [entry[KEY] for page in pages for entry in page.entries] == sorted(expected)
    assert await fork.keys("k1") == sorted(key for key in expected if key.startswith("k1"))
    assert await fork.keys(revision=1) == await space.keys()


async def test_restore_and_diff_in_a_fork(lived: Space) -> None:
    fork = await lived.fork("fork", 4)
    beginning = await fork.entries()
    await fork.apply(Put("a", b"fork"), Delete("b/2"), Put("f", b""), Put("c", b"4"))
    assert [difference.key for difference in await fork.differences(4)] == ["a", "b/2", "f"]
    assert plain(await fork.differences(4)) == plain(await fork.differences(5))
    (changed, gone, new) = await fork.differences(5)
    assert changed[1:] == (await lived.entry("a", 4), await fork.entry("a"))
    assert gone[1:] == (await lived.entry("b/2"), None)
    assert new[1:] == (None, await fork.entry("f"))
    assert await fork.restore(4) == (7, RestoreResult(2, 1))
    assert [entry[:3] for entry in await fork.entries()] == [entry[:3] for entry in beginning]
    assert (await fork.entry("a"))[3:6] == (4, 1, 7)
    assert (await fork.entry("b/2"))[3:6] == (1, 7, 7)
    await fork.restore(6)
    assert await fork.keys() == ["a", "c", "f", "n"]
    with pytest.raises(Compacted):
        await fork.restore(3)
    assert len(await lived.log()) == 5


async def test_checkpoints_and_compaction_in_a_fork(lived: Space) -> None:
    await lived.checkpoint("parents", 3)
    fork = await lived.fork("fork")
    with pytest.raises(CheckpointNotFound):
        await fork.store.checkpoint(fork.name, "parents")
    beginning = await fork.entries()
    made = await fork.checkpoint("parents")
    assert (made.revision, made.key_count, made.size_bytes) == (6, 4, sum(map(size, beginning)))
    await fork.apply(Delete("a"), Put("b/2", bytes(1000)), Put("f", b""))
    await fork.put("b/2", b"")
    await fork.delete_prefix("")
    assert await fork.compact() == 9
    assert plain(await fork.entries(revision=6)) == plain(beginning)
    with pytest.raises(Compacted):
        await fork.entries(revision=7)
    assert await fork.keys() == []
    assert await fork.history_bytes() < 1000
    await fork.drop("parents")
    await fork.compact()
    with pytest.raises(Compacted):
        await fork.entries(revision=6)
    assert await fork.keys() == []
    assert await fork.put("a") == 10
    assert (await fork.entry("a"))[3:6] == (1, 10, 10)
    assert plain(await lived.entries()) == plain(beginning)


async def test_fork_of_a_fork_shows_what_all_three_layers_hold(lived: Space) -> None:
    one = await lived.fork("one")
    await one.apply(Put("a", b"one"), Delete("c"), Put("one", b"1"))
    two = await one.fork("two")
    await two.apply(Put("c", b"two"), Delete("one"), Put("b/2", b"two"))
    three = await two.fork("three", 8)  # its own first commit
    await lived.delete_prefix("")
    await one.delete_prefix("")
    for of in (lived, one):
        await of.compact()
    assert await two.contents() == {"a": b"one", "b/2": b"two", "c": b"two", "n": b"4"}
    assert await three.contents() == {"a": b"one", "b/2": b"1", "n": b"4", "one": b"1"}
    assert [(await of.info())[10:12] for of in (one, two, three)] == [(lived.name, 5), (one.name, 7), (two.name, 8)]
    assert (await two.entry("a"))[3:6] == (4, 1, 7)
    assert (await two.info()).key_count == 4


async def test_forks_of_forks_may_be_so_deep_and_no_deeper(open_space: OpenSpace) -> None:
    space = await open_space(Limits(fork_depth=2))
    await space.put("a")
    one = await space.fork("1")
    two = await one.fork("2")
    with pytest.raises(ForkTooDeep) as refused:
        await two.fork("3")
    assert refused.value.metadata == {"limit": "2"}
    with pytest.raises(NamespaceNotFound):
        await space.sibling("3").info()
    await one.fork("other")
    await space.fork("wide")
    await space.store.delete_namespace(space.name)
    await one.store.delete_namespace(one.name)
    with pytest.raises(ForkTooDeep):  # what was deleted is still read through
        await two.fork("3")


async def test_compaction_of_the_parent_keeps_what_the_fork_shows(lived: Space) -> None:
    at_one, now = await lived.entries(revision=1), await lived.entries()
    early, late = await lived.fork("early", 1), await lived.fork("late")
    for key in ("a", "b/1", "b/2", "c", "n"):
        await lived.put(key, b"parent")
    await lived.delete_prefix("b/")
    await lived.compact()
    assert plain(await early.entries()) == plain(at_one)
    assert plain(await late.entries()) == plain(now)
    assert plain(await early.entries(revision=1)) == plain(at_one)
    assert plain(await lived.entries(revision=1)) == plain(at_one), "it is readable in the parent as well"
    with pytest.raises(Compacted):
        await lived.entries(revision=2)


async def test_deleted_fork_lets_the_parent_forget(space: Space) -> None:
    await space.put("a", bytes(1000))
    await space.put("b", bytes(1000))
    one, two = await space.fork("one", 1), await space.fork("two", 1)
    inner = await one.fork("inner")
    await inner.put("b", b"inner")
    await space.apply(Put("a", b""), Put("b", b""))
    assert 1000 < await space.settled() < 2000
    held = await space.settled()
    for gone in (two, one):
        await gone.store.delete_namespace(gone.name)
        assert await space.settled() == held
        assert len(await inner.entry("a")) == 8
    await inner.store.delete_namespace(inner.name)
    assert await space.settled() == 0
    with pytest.raises(Compacted):
        await space.entries(revision=1)
    assert await space.contents() == {"a": b"", "b": b""}


async def test_deletion_of_the_parent_leaves_the_fork_whole(lived: Space) -> None:
    fork = await lived.fork("fork")
    inner = await fork.fork("inner")
    entries = await lived.entries()
    await lived.store.delete_namespace(lived.name)
    assert plain(await fork.entries()) == plain(entries)
    assert (await fork.info())[10:12] == (lived.name, 5)
    await fork.store.delete_namespace(fork.name)
    assert plain(await inner.entries()) == plain(entries)
    assert await inner.put("a", b"inner") == 8
    assert (await inner.entry("a"))[3:6] == (4, 1, 8)
    assert await inner.delete_prefix("b") == 9
    await inner.compact()
    assert await inner.contents() == {"a": b"inner", "c": b"4", "n": b"4"}
    # The names begin anew, and the forks do not see what they hold.
    await lived.put("a", b"new")
    await fork.put("a", b"new")
    assert (await inner.entry("a"))[1] == b"inner"
    assert await lived.keys() == ["a"]


async def test_fork_onto_a_name_that_is_taken_is_refused(lived: Space) -> None:
    other = lived.sibling("other")
    await other.put("own")
    for taken, parent in ((other, lived), (lived, lived), (lived, other)):
        with pytest.raises(NamespaceExists) as refused:
            await taken.commit(Fork(parent=parent.name))
        assert refused.value.metadata == {"namespace": taken.name}
    assert await other.keys() == ["own"]
    assert (await lived.info()).parent == ""
    await lived.compact()
    with pytest.raises(Compacted):  # what was refused keeps nothing
        await lived.entries(revision=4)


async def test_fork_of_what_is_not_there_is_refused(lived: Space) -> None:
    fork = lived.sibling("fork")
    await lived.compact(3)
    refusals: list[tuple[str, Ref, type[Exception]]] = [
        (f"{lived.name}.absent", None, NamespaceNotFound),
        (fork.name, None, NamespaceNotFound),
        (lived.name, "none", CheckpointNotFound),
        (lived.name, 2, Compacted),
        (lived.name, 0, Compacted),
        (lived.name, 6, RevisionInFuture),
    ]
    for parent, ref, error in refusals:
        with pytest.raises(error):
            await fork.commit(Fork(parent=parent, ref=ref))
    with pytest.raises(NamespaceNotFound):
        await fork.info()
    assert await fork.revision() == 0


async def test_fork_counts_as_a_namespace(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespaces=2))
    await space.put("a")
    await space.fork("one")
    with pytest.raises(QuotaExceeded) as refused:
        await space.fork("two")
    assert refused.value.metadata == {"quota": "namespaces", "limit": "2"}
    await space.put("a")
    assert await space.settled() == 2, "what was refused keeps nothing; the first fork one entry"


async def test_quotas_of_a_fork_count_what_it_began_with(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_keys=2))
    await space.apply(Put("a", b""), Put("b", b""))
    fork = await space.fork("fork")
    with pytest.raises(QuotaExceeded):
        await fork.put("c")
    await fork.delete("a")
    await fork.put("c")
    assert await fork.keys() == ["b", "c"]


async def test_fork_onto_a_deleted_name_gives_no_revision_out_twice(lived: Space) -> None:
    fork = lived.sibling("fork")
    for _ in range(8):
        await fork.put("old")
    await fork.store.delete_namespace(fork.name)
    assert await fork.revision() == 9
    await fork.commit(Fork(parent=lived.name, ref=2))
    assert (await fork.position())[:2] == (10, 9)
    assert plain(await fork.entries()) == plain(await lived.entries(revision=2))
    assert plain(await fork.entries(revision=9)) == plain(await lived.entries(revision=2))
    assert (await fork.info()).fork_revision == 2
    assert await fork.put("a") == 11
    assert (await fork.entry("a"))[3:6] == (3, 1, 11)
    assert await fork.restore(9) == (12, RestoreResult(1, 0))
    with pytest.raises(Compacted):
        await fork.entries(revision=2)
    await fork.store.delete_namespace(fork.name)
    await fork.commit(Fork(parent=lived.name))
    assert (await fork.position())[:2] == (14, 13)
    # And the other way: where the parent is ahead, its revisions count.
    ahead = lived.sibling("ahead")
    await ahead.put("a")
    await ahead.store.delete_namespace(ahead.name)
    await ahead.commit(Fork(parent=lived.name))
    assert (await ahead.position())[:2] == (6, 5)


async def test_times_do_not_go_back_in_a_fork(lived: Space) -> None:
    fork = await lived.fork("fork")
    await fork.put("a")
    times = [commit.time for commit in [*await lived.log(), *await fork.log()]]
    assert times == sorted(times)


async def test_repeat_answers_the_first_outcome_and_forks_nothing(lived: Space) -> None:
    fork, action = lived.sibling("fork"), Fork(parent=lived.name, ref=2, request_id=RequestId("c", 1))
    first = await fork.commit(action)
    await fork.put("a", b"fork")
    await lived.compact()
    assert plain(await fork.commit(action)) == plain(first)
    assert await fork.revision() == 4
    assert (await fork.entry("a"))[1] == b"fork"
    with pytest.raises(RequestIdReused):
        await fork.commit(Fork(parent=lived.name, request_id=RequestId("c", 1)))
    with pytest.raises(NamespaceExists):
        await fork.commit(Fork(parent=lived.name, ref=2, request_id=RequestId("c", 2)))
    await fork.store.delete_namespace(fork.name)
    assert plain(await fork.commit(action)) == plain(first), "whoever deleted it meanwhile"
    with pytest.raises(NamespaceNotFound):
        await fork.info()
    await lived.put("x")
    await lived.settled()
    with pytest.raises(Compacted):  # a repeat keeps nothing
        await lived.entries(revision=2)


async def test_repeat_answers_the_first_outcome_although_the_parent_is_gone(lived: Space) -> None:
    fork, action = lived.sibling("fork"), Fork(parent=lived.name, request_id=RequestId("c", 1))
    first = await fork.commit(action)
    await lived.store.delete_namespace(lived.name)
    assert plain(await fork.commit(action)) == plain(first)


async def test_fork_and_writes_to_it_may_be_one_group(lived: Space) -> None:
    fork = lived.sibling("fork")
    outcomes = await fork.group(
        Fork(parent=lived.name),
        Transaction(then=[Put("a", b"fork")]),
        Fork(parent=lived.name),
        Transaction(then=[Get("a")]),
        Merge(fork=lived.name),
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Outcome",
        "Outcome",
        "NamespaceExists",
        "Outcome",
        "NotAFork",
    ]
    assert (await fork.entry("a"))[1:4] == (b"fork", "", 4)


async def test_who_followed_the_name_before_hears_that_its_history_begins_anew(lived: Space) -> None:
    """The fork holds keys of which no commit told."""
    fork, heard = lived.sibling("fork"), Heard()
    await fork.store.follow(fork.name, heard)
    await fork.commit(Fork(parent=lived.name))
    await until(lambda: heard.resets > 0)
    await fork.put("a")
    await fork.put("b")
    await until(lambda: bool(heard.commits) and heard.commits[-1].revision == 8)
    log = list(await fork.log())
    # Whether the first commit, which changes nothing, is heard of is the store's affair.
    assert plain(heard.commits) in (plain(log), plain(log[1:]))
    assert heard.resets == 1
    await fork.store.unfollow(fork.name)


async def test_fork_is_deleted_only_at_the_revision_that_is_named(lived: Space) -> None:
    fork = await lived.fork("fork")
    with pytest.raises(Conflict):
        await fork.store.delete_namespace(fork.name, 5)
    await fork.store.delete_namespace(fork.name, 6)
    assert await fork.keys() == []
    assert await fork.revision() == 7


async def test_fork_that_is_made_while_the_parent_is_written_is_what_it_was_at_its_revision(space: Space) -> None:
    """Also in its figures, which go on from there."""
    for start in range(0, 9_000, 1000):
        await space.apply(*(Put(f"k{number:05}", b"v") for number in range(start, start + 1000)))
    deleting = asyncio.create_task(space.delete_prefix("k"))
    forks = 0
    while not deleting.done():
        fork = await space.fork(f"{forks}")
        info = await fork.info()
        assert (info.fork_revision, info.key_count, info.size_bytes) in {(9, 9_000, 63_000), (10, 0, 0)}
        assert len(await fork.keys("k0000")) == (10 if info.fork_revision == 9 else 0)
        forks += 1
        await asyncio.sleep(0)
    await deleting
    assert forks


async def test_restore_in_a_fork_misses_nothing_while_the_parent_is_written(space: Space) -> None:
    """What a fork shares stays as it was, also while it is looked through."""
    for start in range(0, 4_000, 1000):
        await space.apply(*(Put(f"a/{number:05}", b"v") for number in range(start, start + 1000)))
    fork = await space.fork("fork")
    beginning = await fork.contents()
    for start in range(0, 8_000, 1000):
        await fork.apply(*(Put(f"b/{number:05}", b"v") for number in range(start, start + 1000)))
    await fork.delete_prefix("a/")
    restoring = asyncio.create_task(fork.restore(4, "a/"))
    turn = 0
    while not restoring.done():
        await asyncio.sleep(0)
        await space.apply(Put(f"a/{turn:05}.new", b""), Delete(f"a/{turn:05}"))
        turn += 1
    await restoring
    assert {key: value for key, value in (await fork.contents()).items() if key.startswith("a/")} == beginning


async def test_many_forks_of_one_parent_are_each_as_they_began(space: Space) -> None:
    forks = []
    for turn in range(30):
        await space.apply(Put(f"k{turn % 4}", b"%d" % turn), Delete(f"k{(turn + 2) % 4}"))
        forks.append((await space.fork(f"{turn}"), await space.entries()))
        if turn % 7 == 0:
            await space.compact()
    for number, (fork, _) in enumerate(forks):
        if number % 3 == 0:
            await fork.store.delete_namespace(fork.name)
    await space.delete_prefix("")
    await space.compact()
    for number, (fork, entries) in enumerate(forks):
        if number % 3:
            assert plain(await fork.entries()) == plain(entries)
            info = await fork.info()
            assert (info.key_count, info.size_bytes) == (len(entries), sum(map(size, entries)))
            await fork.put("k0", b"fork")
            assert (await fork.info()).key_count == len({entry[KEY] for entry in entries} | {"k0"})
            await fork.store.delete_namespace(fork.name)
    assert await space.settled() == 0
