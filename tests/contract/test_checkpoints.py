"""Names for revisions: what they say, what they keep readable, and what they let go of when they are gone."""

import asyncio
import itertools

import pytest

from comity_server.errors import (
    CheckpointExists,
    CheckpointNotFound,
    Compacted,
    NamespaceNotFound,
    QuotaExceeded,
    RequestIdForgotten,
    RequestIdReused,
    RevisionInFuture,
    StateError,
)
from comity_server.limits import Limits, Retention
from comity_server.model import (
    Checkpoint,
    Delete,
    DropCheckpoint,
    MakeCheckpoint,
    Outcome,
    Put,
    RequestId,
    Transaction,
)
from comity_server.record import size
from tests.contract.conftest import OpenSpace
from tests.contract.space import Space, plain


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1 puts a, 2 b and c, 3 a again, 4 deletes b, 5 puts a and d, 6 deletes a, 7 puts b."""
    await space.put("a", b"a1", "text/plain")
    await space.apply(Put("b", b"b2"), Put("c", b"c2"))
    await space.put("a", b"a3333")
    await space.delete("b")
    await space.apply(Put("a", b"a5"), Put("d", b"\xff" * 10))
    await space.delete("a")
    await space.put("b", b"b7")
    return space


async def listed(space: Space, after: str = "", limit: int = 100, **labels: str) -> list[str]:
    """The names of the checkpoints that have all these labels."""
    return [found.name for found in await space.store.checkpoints(space.name, labels, after=after, limit=limit)]


async def test_checkpoint_names_the_newest_revision_and_says_all_that_it_was_given(lived: Space) -> None:
    action = MakeCheckpoint(
        name="one", labels=(("env", "prod"), ("é", "ü")), author="ann", message="before the refactoring"
    )
    before = (await lived.log())[-1].time
    outcome = await lived.commit(action)
    (made,) = outcome.results
    assert isinstance(made, Checkpoint)
    assert (outcome.committed, outcome.revision) == (True, 7)
    assert before <= made.create_time
    assert made == Checkpoint(
        name="one",
        revision=7,
        create_time=made.create_time,
        author="ann",
        message="before the refactoring",
        labels=(("env", "prod"), ("é", "ü")),
        key_count=3,
        size_bytes=3 + 3 + 11,
    )
    assert await lived.store.checkpoint(lived.name, "one") == made
    assert list(await lived.store.checkpoints(lived.name, {}, limit=10)) == [made]


async def test_making_and_dropping_checkpoints_makes_no_revision(lived: Space) -> None:
    log = await lived.log()
    await lived.checkpoint("one")
    await lived.drop("one")
    assert await lived.revision() == 7
    assert plain(await lived.log()) == plain(log)


@pytest.mark.parametrize("revision", range(1, 8))
async def test_checkpoint_of_an_earlier_revision_counts_what_there_was(lived: Space, revision: int) -> None:
    entries = await lived.entries(revision=revision)
    made = await lived.checkpoint("then", revision)
    assert (made.revision, made.key_count, made.size_bytes) == (revision, len(entries), sum(map(size, entries)))
    assert await lived.store.checkpoint(lived.name, "then") == made


async def test_checkpoint_counts_what_there_was_where_the_floor_is_its_revision(lived: Space) -> None:
    entries = await lived.entries(revision=4)
    await lived.compact(4)
    made = await lived.checkpoint("floor", 4)
    assert (made.key_count, made.size_bytes) == (len(entries), sum(map(size, entries)))


async def test_checkpoint_of_a_revision_that_another_one_keeps_counts_the_same(lived: Space) -> None:
    first = await lived.checkpoint("first", 3)
    await lived.compact()
    second = await lived.checkpoint("second", 3)
    assert second[6:] == first[6:] == (3, 1 + 5 + 3 + 3)
    await lived.drop("first")
    assert len(await lived.entries(revision=3)) == 3


async def test_checkpoint_of_nothing_is_one(space: Space) -> None:
    await space.put("a")
    await space.delete("a")
    assert (await space.checkpoint("empty"))[6:] == (0, 0)
    await space.put("b")
    await space.compact()
    assert await space.entries(revision=2) == []
    assert await space.get("b", 2) is None


async def test_checkpoint_of_what_cannot_be_read_is_refused(lived: Space) -> None:
    await lived.compact(4)
    with pytest.raises(Compacted) as refused:
        await lived.checkpoint("past", 3)
    assert refused.value.metadata == {"floor": "4", "revision": "7"}
    with pytest.raises(RevisionInFuture):
        await lived.checkpoint("future", 8)
    assert await listed(lived) == []


async def test_name_that_is_taken_is_refused(lived: Space) -> None:
    made = await lived.checkpoint("one", 2)
    for revision in (0, 2, 5):
        with pytest.raises(CheckpointExists) as refused:
            await lived.checkpoint("one", revision)
        assert refused.value.metadata == {"checkpoint": "one", "revision": "2"}
    assert await lived.store.checkpoint(lived.name, "one") == made


async def test_checkpoint_that_does_not_exist_is_not_found(lived: Space) -> None:
    await lived.checkpoint("one")
    for name in ("two", "ONE", "on", ""):
        with pytest.raises(CheckpointNotFound) as refused:
            await lived.store.checkpoint(lived.name, name)
        assert refused.value.metadata == {"checkpoint": name, "namespace": lived.name}
        with pytest.raises(CheckpointNotFound):
            await lived.drop(name)
    assert await listed(lived) == ["one"]


async def test_namespace_that_does_not_exist_has_no_checkpoints(space: Space) -> None:
    with pytest.raises(NamespaceNotFound):
        await space.checkpoint("one")
    with pytest.raises(NamespaceNotFound):
        await space.store.checkpoints(space.name, {}, limit=10)
    with pytest.raises(CheckpointNotFound):
        await space.store.checkpoint(space.name, "one")
    with pytest.raises(NamespaceNotFound):  # nor does it come into being
        await space.info()
    outcomes = await space.group(MakeCheckpoint(name="early"), Transaction(then=[Put("a", b"")]))
    assert [type(outcome) for outcome in outcomes] == [NamespaceNotFound, Outcome]


async def test_checkpoints_go_with_their_namespace(lived: Space) -> None:
    await lived.checkpoint("one")
    await lived.store.delete_namespace(lived.name)
    with pytest.raises(NamespaceNotFound):
        await lived.checkpoint("two")
    revision = await lived.put("a")
    assert await listed(lived) == []
    with pytest.raises(CheckpointNotFound):
        await lived.store.checkpoint(lived.name, "one")
    with pytest.raises(Compacted):
        await lived.entries(revision=7)
    assert (await lived.checkpoint("one")).revision == revision


async def test_too_many_checkpoints_are_refused(open_space: OpenSpace) -> None:
    space = await open_space(Limits(checkpoints=2))
    await space.put("a")
    await space.checkpoint("one")
    outcomes = await space.group(
        MakeCheckpoint(name="two"),
        MakeCheckpoint(name="three"),
        DropCheckpoint(name="one"),
        MakeCheckpoint(name="four"),
        MakeCheckpoint(name="five"),
    )
    assert [type(outcome) for outcome in outcomes] == [Outcome, QuotaExceeded, Outcome, Outcome, QuotaExceeded]
    with pytest.raises(QuotaExceeded) as refused:
        await space.checkpoint("six")
    assert refused.value.metadata == {"quota": "checkpoints", "limit": "2"}
    assert await listed(space) == ["four", "two"]
    other = space.sibling("other")  # each namespace has its own
    await other.put("a")
    await other.checkpoint("one")


@pytest.mark.parametrize("revision", range(1, 7))
async def test_checkpoint_keeps_its_revision_readable_and_only_that_one(lived: Space, revision: int) -> None:
    entries = await lived.entries(revision=revision)
    changed = await lived.differences(revision)
    await lived.checkpoint("kept", revision)
    await lived.put("a", b"later")
    await lived.delete("a")
    assert await lived.compact() == 9
    assert plain(await lived.entries(revision=revision)) == plain(entries)
    held = {entry[0]: entry for entry in entries}
    for key in "abcde":
        assert await lived.get(key, revision) == held.get(key)
    assert plain(await lived.differences("kept")) == plain(changed)
    assert plain(await lived.differences(revision)) == plain(changed)
    for other in set(range(1, 9)) - {revision}:
        with pytest.raises(Compacted):
            await lived.get("c", other)
        with pytest.raises(Compacted):
            await lived.entries(revision=other)
        with pytest.raises(Compacted):
            await lived.differences(other)
    with pytest.raises(Compacted):  # the commits are gone
        await lived.store.commits(lived.name, first=revision, last=9, limit=10)


async def test_revisions_stay_readable_while_the_floor_passes_them_in_steps(lived: Space) -> None:
    states = {revision: await lived.entries(revision=revision) for revision in range(1, 8)}
    for revision in (2, 3, 5):
        await lived.checkpoint(f"at{revision}", revision)
    for floor in range(1, 8):
        await lived.compact(floor)
        for revision in (2, 3, 5, *range(floor, 8)):
            assert plain(await lived.entries(revision=revision)) == plain(states[revision]), (floor, revision)


async def test_checkpoint_changes_nothing_about_what_comes_after(lived: Space) -> None:
    await lived.checkpoint("one", 3)
    await lived.compact()
    assert await lived.put("b") == 8
    assert (await lived.entry("b"))[3:6] == (2, 7, 8)
    assert await lived.put("a") == 9
    assert (await lived.entry("a"))[3:6] == (1, 9, 9)
    assert (await lived.entry("a", 3))[3:6] == (2, 1, 3)
    assert await lived.keys() == ["a", "b", "c", "d"]


async def test_dropped_checkpoint_lets_go_of_its_revision(lived: Space) -> None:
    await lived.checkpoint("one", 3)
    await lived.checkpoint("two", 3)
    await lived.compact()
    await lived.drop("one")
    assert len(await lived.entries(revision=3)) == 3
    await lived.drop("two")
    with pytest.raises(Compacted):
        await lived.entries(revision=3)
    with pytest.raises(Compacted):
        await lived.checkpoint("three", 3)


async def test_revision_above_the_floor_is_readable_after_its_checkpoint_is_dropped(lived: Space) -> None:
    await lived.checkpoint("one", 5)
    await lived.drop("one")
    assert len(await lived.entries(revision=5)) == 3


async def test_checkpoint_holds_back_only_the_versions_visible_at_it(space: Space) -> None:
    kilobyte = bytes(1000)
    for turn in range(10):
        await space.apply(Put("a", kilobyte), Put(f"gone/{turn}", kilobyte))
    await space.checkpoint("middle", 5)
    for _ in range(10):
        await space.put("a", kilobyte)
    await space.delete_prefix("gone/")
    held = await space.settled()
    # Visible at revision 5 are a and five of gone/; all else is either in the newest state or in no readable one.
    assert 6 * 1000 < held < 7 * 1000
    assert len(await space.entries(revision=5)) == 6
    for _ in range(10):
        await space.put("a", kilobyte)
    assert await space.settled() == held, "what comes later is none of its business"
    await space.drop("middle")
    assert await space.settled() == 0
    info = await space.info()
    assert (info.key_count, info.size_bytes) == (1, 1001)


async def test_what_several_checkpoints_see_is_kept_once_and_for_as_long_as_one_of_them_sees_it(space: Space) -> None:
    for turn in range(4):
        await space.apply(Put("a", bytes(1000)), Put("b" if turn else "c", bytes(100)))
        await space.checkpoint(f"at{turn}")
        await space.checkpoint(f"again{turn}")
    await space.put("other")
    await space.checkpoint("late")
    await space.delete_prefix("")
    sizes = [await space.settled()]
    for turn in (1, 0, 2, 3):
        await space.drop(f"at{turn}")
        assert await space.settled() == sizes[-1]
        await space.drop(f"again{turn}")
        sizes.append(await space.settled())
    assert [before - after for before, after in itertools.pairwise(sizes)] == [1102, 1001, 1102, 0]
    # The last one saw the same a, b and c as the one before it; c as all did.
    assert sizes[-1] == 1001 + 101 + 101 + 6 + tombstones("a", "b", "c", "other")
    await space.drop("late")
    assert await space.settled() == 0


def tombstones(*keys: str) -> int:
    """What the deletes of keys that are kept for pins count for."""
    return sum(map(len, keys))


async def test_retention_does_not_pay_for_what_checkpoints_hold_with_the_history(space: Space) -> None:
    await space.put("a", bytes(50_000))
    await space.checkpoint("one")
    await space.put("a", b"")
    await space.compact()
    for _ in range(10):
        await space.put("b", bytes(100))
    keep = Retention(commits=10**9, age=1e9, history_bytes=20_000)
    assert await space.store.retain(space.name, keep) == 2
    assert len(await space.log()) == 10


async def test_checkpoints_are_listed_in_order_in_pages(lived: Space) -> None:
    every = ["A", "Z", "a", "a-", "a.b", "a0", "ab", "b", "z_"]
    for name in reversed(every):
        await lived.checkpoint(name)
    assert await listed(lived) == every
    assert await listed(lived, limit=3) == every[:3]
    assert await listed(lived, after="a") == every[3:]
    assert await listed(lived, after="aa") == every[6:]
    assert await listed(lived, after="z_") == []
    paged, after = [], ""
    while page := await listed(lived, after=after, limit=2):
        paged += page
        after = page[-1]
    assert paged == every
    await lived.drop("a")
    assert await listed(lived, after="a", limit=1) == ["a-"]
    await lived.sibling("other").put("a")
    assert await listed(lived.sibling("other")) == []


async def test_checkpoints_are_listed_by_labels(lived: Space) -> None:
    await lived.checkpoint("1", env="prod", by="ann")
    await lived.checkpoint("2", env="prod")
    await lived.checkpoint("3", env="test", by="ann")
    await lived.checkpoint("4")
    await lived.checkpoint("5", env="prod", by="ann", more="")
    assert await listed(lived, env="prod") == ["1", "2", "5"]
    assert await listed(lived, env="prod", by="ann") == ["1", "5"]
    assert await listed(lived, env="prod", by="ann", limit=1) == ["1"]
    assert await listed(lived, env="prod", by="ann", after="1") == ["5"]
    assert await listed(lived, more="") == ["5"]
    assert await listed(lived, env="") == []
    assert await listed(lived, none="") == []


async def test_repeated_make_answers_the_first_outcome(lived: Space) -> None:
    make = MakeCheckpoint(name="one", labels=(("a", "b"),), request_id=RequestId("c", 1))
    first = await lived.commit(make)
    assert plain(await lived.commit(make)) == plain(first)
    await lived.put("a", b"later")
    await lived.commit(DropCheckpoint(name="one", request_id=RequestId("c", 2)))
    await lived.checkpoint("other")
    assert plain(await lived.commit(make)) == plain(first)
    assert await listed(lived) == ["other"], "a repeat makes nothing"


async def test_repeated_drop_answers_the_first_outcome(lived: Space) -> None:
    await lived.checkpoint("one")
    drop = DropCheckpoint(name="one", request_id=RequestId("c", 1))
    first = await lived.commit(drop)
    assert plain(await lived.commit(drop)) == plain(first)
    await lived.checkpoint("one")
    await lived.put("a", b"later")
    assert plain(await lived.commit(drop)) == plain(first)
    assert await listed(lived) == ["one"], "a repeat drops nothing"
    first, _second, repeat = await lived.outcomes(
        MakeCheckpoint(name="two", request_id=RequestId("c", 2)),
        DropCheckpoint(name="two", request_id=RequestId("c", 3)),
        MakeCheckpoint(name="two", request_id=RequestId("c", 2)),
    )
    assert plain(repeat) == plain(first)
    assert await listed(lived) == ["one"]


async def test_request_id_of_another_checkpoint_is_refused(lived: Space) -> None:
    request = RequestId("c", 1)
    first = await lived.commit(MakeCheckpoint(name="one", revision=3, labels=(("a", "b"),), request_id=request))
    for other in (
        MakeCheckpoint(name="two", revision=3, labels=(("a", "b"),), request_id=request),
        MakeCheckpoint(name="one", revision=4, labels=(("a", "b"),), request_id=request),
        MakeCheckpoint(name="one", revision=3, labels=(("a", "c"),), request_id=request),
        MakeCheckpoint(name="one", revision=3, request_id=request),
        DropCheckpoint(name="one", request_id=request),
        Transaction(then=[Put("a", b"")], request_id=request),
    ):
        with pytest.raises(RequestIdReused):
            await lived.commit(other)
    assert await lived.revision() == 7
    assert await listed(lived) == ["one"]
    said = MakeCheckpoint(name="one", revision=3, labels=(("a", "b"),), request_id=request, author="b", message="m")
    assert plain(await lived.commit(said)) == plain(first), "who says it and why does not make it another"
    with pytest.raises(RequestIdForgotten):
        await lived.commit(MakeCheckpoint(name="three", request_id=RequestId("c", 1, awaited=2)))


async def test_refused_checkpoint_is_not_remembered(lived: Space) -> None:
    make = MakeCheckpoint(name="one", request_id=RequestId("c", 1))
    await lived.checkpoint("one", 3)
    with pytest.raises(CheckpointExists):
        await lived.commit(make)
    await lived.drop("one")
    (made,) = (await lived.commit(make)).results
    assert isinstance(made, Checkpoint)
    assert made.revision == 7


async def test_checkpoint_in_a_group_names_the_revision_in_between(lived: Space) -> None:
    first, made, second, early, other = await lived.outcomes(
        Transaction(then=[Put("b", b"in between"), Put("e", b"")]),
        MakeCheckpoint(name="between"),
        Transaction(then=[Delete("b"), Put("f", b"")]),
        MakeCheckpoint(name="early", revision=8),
        MakeCheckpoint(name="before", revision=5),
    )
    assert (first.revision, made.revision, second.revision, early.revision) == (8, 8, 9, 9)
    between, same = [await lived.store.checkpoint(lived.name, name) for name in ("between", "early")]
    assert [plain(outcome.results) for outcome in (made, early)] == [plain([between]), plain([same])]
    entries = await lived.entries(revision=8)
    assert between[1] == same[1] == 8
    assert between[6:] == same[6:] == (len(entries), sum(map(size, entries)))
    (before,) = other.results
    assert isinstance(before, Checkpoint)
    assert before[6:] == (3, 3 + 3 + 11)
    await lived.put("b", b"later")
    await lived.compact()
    assert plain(await lived.entries(revision=8)) == plain(entries)
    assert (await lived.entry("b", 8))[1] == b"in between"


async def test_first_commit_of_a_namespace_and_its_checkpoint_may_be_one_group(space: Space) -> None:
    _, made = await space.outcomes(Transaction(then=[Put("a", b"1")]), MakeCheckpoint(name="one"))
    assert plain(made.results) == plain([await space.store.checkpoint(space.name, "one")])
    assert made.revision == 1


async def test_checkpoint_is_made_dropped_and_made_again_in_one_group(lived: Space) -> None:
    outcomes = await lived.group(
        MakeCheckpoint(name="one", revision=2),
        MakeCheckpoint(name="one"),
        DropCheckpoint(name="one"),
        DropCheckpoint(name="one"),
        Transaction(then=[Put("x", b"")]),
        MakeCheckpoint(name="one", message="again"),
    )
    expected = [Outcome, CheckpointExists, Outcome, CheckpointNotFound, Outcome, Outcome]
    assert [type(outcome) for outcome in outcomes] == expected
    found = await lived.store.checkpoint(lived.name, "one")
    assert (found.revision, found.message) == (8, "again")
    await lived.put("x", b"later")
    await lived.compact()
    assert (await lived.entry("x", 8))[1] == b""
    with pytest.raises(Compacted):
        await lived.entries(revision=2)


async def test_checkpoint_moves_to_another_revision_in_one_group(lived: Space) -> None:
    """Dropped and made again, it keeps what it names last, and nothing of what it named before."""
    await lived.checkpoint("one", 2)
    await lived.compact()
    await lived.outcomes(DropCheckpoint(name="one"), MakeCheckpoint(name="one"))
    assert (await lived.store.checkpoint(lived.name, "one")).revision == 7
    with pytest.raises(Compacted):
        await lived.entries(revision=2)
    assert await lived.settled() == 0
    await lived.put("b", b"later")
    assert await lived.settled() == 3
    await lived.drop("one")
    assert await lived.settled() == 0


async def test_checkpoint_in_a_group_cannot_take_up_what_the_group_let_go_of(lived: Space) -> None:
    """Each write of a group is judged as if those before it had been alone."""
    await lived.checkpoint("one", 2)
    await lived.checkpoint("other", 3)
    await lived.compact()
    outcomes = await lived.group(
        MakeCheckpoint(name="kept", revision=3),
        DropCheckpoint(name="one"),
        DropCheckpoint(name="other"),
        MakeCheckpoint(name="again", revision=3),
        MakeCheckpoint(name="late", revision=2),
    )
    assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome, Outcome, Outcome, Compacted]
    assert await listed(lived) == ["again", "kept"]


async def test_many_checkpoints_of_many_revisions_are_each_as_they_were(space: Space) -> None:
    expected = {}
    for turn in range(60):
        await space.apply(Put(f"k{turn % 7}", b"%d" % turn), Delete(f"k{turn * 3 % 7 + 10}"), Put(f"t{turn}", b""))
        if turn % 3 == 0:
            await space.delete_prefix("t")
        if turn % 2:
            revision = await space.revision()
            await space.checkpoint(f"c{turn:02}")
            expected[f"c{turn:02}"] = revision, await space.entries()
        if turn % 10 == 0:
            await space.compact()
    await space.compact()
    for turn in range(1, 60, 4):
        await space.drop(f"c{turn:02}")
        del expected[f"c{turn:02}"]
    await space.compact()
    for name, (revision, entries) in expected.items():
        found = await space.store.checkpoint(space.name, name)
        assert found[1] == revision
        assert found[6:] == (len(entries), sum(map(size, entries)))
        assert plain(await space.entries(revision=revision)) == plain(entries)

    async def unreadable(revision: int) -> bool:
        try:
            await space.entries(revision=revision)
        except StateError:
            return True
        return False

    kept = {revision for revision, _ in expected.values()} | {await space.revision()}
    for revision in range(1, await space.revision() + 1):
        assert await unreadable(revision) is (revision not in kept)


async def test_checkpoints_that_come_and_go_during_a_compaction_are_kept_and_let_go_of(space: Space) -> None:
    for _ in range(3):
        await space.apply(*(Put(f"k{number:04}", b"v" * 10) for number in range(1000)))
    await space.checkpoint("first", 1)
    await space.delete_prefix("")
    compacting = asyncio.create_task(space.compact())
    await asyncio.sleep(0)
    await space.drop("first")
    await space.put("last")
    await space.checkpoint("last")
    await compacting
    await space.delete("last")
    assert await space.keys(revision=5) == ["last"]
    assert await space.settled() == len("last") + len(b"v") + tombstones("last")
