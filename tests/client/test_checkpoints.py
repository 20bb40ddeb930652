"""Names for revisions, and what the client does with them: restore, diff. Against a real server."""

import datetime
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, RequestId
from comity.convert import EPOCH
from comity.requests import Ref
from tests.client.states import fill, value, values


async def test_a_checkpoint_names_the_newest_revision(state: Client) -> None:
    revision = await fill(state, a=1, b="two")
    mark = await state.checkpoint("before", labels={"kind": "manual", "empty": ""}, message="just in case")
    assert (mark.name, mark.revision, mark.author, mark.message) == ("before", revision, "ann", "just in case")
    assert mark.labels == {"kind": "manual", "empty": ""}
    assert mark.key_count == 2
    assert mark.size_bytes == len("a1" + 'b"two"') + 2 * len("application/json")
    assert abs(mark.create_time - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)
    assert await state.get_checkpoint("before") == mark
    assert (await state.namespace_info()).revision == revision  # naming is no commit


async def test_a_checkpoint_of_an_earlier_revision(state: Client) -> None:
    first = await fill(state, a=1)
    await fill(state, a=2, b=2)
    mark = await state.checkpoint("first", revision=first)
    assert (mark.revision, mark.key_count) == (first, 1)


async def test_a_name_is_taken_once(state: Client) -> None:
    await fill(state, a=1)
    mark = await state.checkpoint("mark")
    with pytest.raises(comity.AlreadyExists):
        await state.checkpoint("mark")
    await state.delete_checkpoint("mark")
    with pytest.raises(comity.NotFound):
        await state.get_checkpoint("mark")
    with pytest.raises(comity.NotFound):
        await state.delete_checkpoint("mark")
    assert (await state.checkpoint("mark")).revision == mark.revision


async def test_a_repeat_answers_as_the_first_did(state: Client) -> None:
    first = await fill(state, a=1)
    made = await state.checkpoint("mark", request_id=RequestId("job", 1))
    await fill(state, a=2)
    assert await state.checkpoint("mark", request_id=RequestId("job", 1)) == made
    done = await state.restore(made, request_id=RequestId("job", 2))
    assert done.put == 1
    await fill(state, a=3)
    assert (await state.restore(made, request_id=RequestId("job", 2))).revision == done.revision
    assert await values(state) == {"a": 3}
    assert made.revision == first


async def test_the_checkpoints_by_name_and_label(state: Client) -> None:
    await fill(state, a=1)
    made = {}
    for number in range(5):
        labels = {"kind": "odd" if number % 2 else "even", "number": str(number)}
        made[number] = await state.checkpoint(f"mark-{number}", labels=labels)
    names = [f"mark-{number}" for number in range(5)]
    for page_size in (0, 1, 2, 5):
        found = [mark async for mark in state.checkpoints(page_size=page_size)]
        assert found == list(made.values()), page_size
    assert [mark.name async for mark in state.checkpoints({"kind": "odd"}, page_size=1)] == names[1::2]
    assert [mark.name async for mark in state.checkpoints({"kind": "odd", "number": "3"})] == ["mark-3"]
    assert [mark.name async for mark in state.checkpoints({"kind": "odd", "number": "2"})] == []


async def test_a_checkpoint_keeps_its_revision_readable(state: Client) -> None:
    kept = await fill(state, a=1, gone=1)
    mark = await state.checkpoint("kept")
    lost = await fill(state, a=2)
    await state.delete("gone")
    newest = await fill(state, a=3)
    await state.compact()
    with pytest.raises(comity.Compacted):
        await state.get("a", revision=lost)
    assert await values(state, revision=kept) == {"a": 1, "gone": 1}
    assert [found.key async for found in state.diff(mark)] == ["a", "gone"]
    with pytest.raises(comity.Compacted):
        await state.diff(lost).all()
    with pytest.raises(comity.Compacted):
        await state.restore(lost)
    with pytest.raises(comity.Compacted):
        await state.checkpoint("lost", revision=lost)
    assert (await state.restore(mark)).revision == newest + 1
    assert await values(state) == {"a": 1, "gone": 1}


async def test_restore_is_one_commit_that_can_be_undone(state: Client) -> None:
    await fill(state, a=1, b=1, c=1)
    mark = await state.checkpoint("mark")
    await fill(state, a=2, new=2)
    await state.delete("b")
    before = (await state.namespace_info()).revision
    changed = await values(state)
    done = await state.restore(mark, message="it did not work out")
    assert (done.revision, done.put, done.deleted, done.differences) == (before + 1, 2, 1, ())
    assert await values(state) == {"a": 1, "b": 1, "c": 1}
    (commit,) = await state.history(from_revision=done.revision).all()
    assert (commit.author, commit.message) == ("ann", "it did not work out")
    assert {event.key: event.is_put for event in commit.events} == {"a": True, "b": True, "new": False}
    undone = await state.restore(before)
    assert (undone.put, undone.deleted) == (2, 1)
    assert await values(state) == changed


@pytest.mark.parametrize("how", ["checkpoint", "name", "revision"])
async def test_a_revision_is_named_in_three_ways(state: Client, how: str) -> None:
    await fill(state, a=1)
    mark = await state.checkpoint("mark")
    await fill(state, a=2)
    refs: dict[str, Ref] = {"checkpoint": mark, "name": mark.name, "revision": mark.revision}
    ref = refs[how]
    (difference,) = await state.diff(ref).all()
    assert (value(difference.before), value(difference.after)) == (1, 2)
    assert (await state.restore(ref)).put == 1
    assert await values(state) == {"a": 1}


async def test_restore_of_a_prefix(state: Client) -> None:
    await fill(state, **{"draft/a": 1, "final": 1})
    mark = await state.checkpoint("mark")
    await fill(state, **{"draft/a": 2, "draft/b": 2, "final": 2})
    done = await state.restore(mark, "draft/")
    assert (done.put, done.deleted) == (1, 1)
    assert await values(state) == {"draft/a": 1, "final": 2}


async def test_a_dry_run_changes_nothing(state: Client) -> None:
    await fill(state, changed=1, deleted=1, same=1)
    mark = await state.checkpoint("mark")
    await fill(state, changed=2, created=2)
    await state.delete("deleted")
    newest = (await state.namespace_info()).revision
    done = await state.restore(mark, dry_run=True)
    assert (done.revision, done.put, done.deleted) == (newest, 2, 1)
    assert [(found.key, found.before is None, found.after is None) for found in done.differences] == [
        ("changed", False, False),
        ("created", False, True),  # it is there now, and would not be
        ("deleted", True, False),
    ]
    assert all(entry.data == b"" for found in done.differences for entry in (found.before, found.after) if entry)
    assert (await state.namespace_info()).revision == newest


async def test_a_restore_to_what_is_makes_no_revision(state: Client) -> None:
    revision = await fill(state, a=1)
    mark = await state.checkpoint("mark")
    done = await state.restore(mark)
    assert (done.revision, done.put, done.deleted) == (revision, 0, 0)


async def test_restore_on_condition(state: Client) -> None:
    first = await fill(state, a=1)
    newest = await fill(state, a=2)
    with pytest.raises(comity.Conflict) as refused:
        await state.restore(first, if_revision=first)
    assert refused.value.revision == newest
    assert await values(state) == {"a": 2}
    assert (await state.restore(first, if_revision=newest)).put == 1


async def test_the_empty_state_is_a_revision_too(state: Client) -> None:
    await fill(state, a=1)
    (difference,) = await state.diff(0).all()
    assert difference.before is None
    assert (await state.restore(0)).deleted == 1
    assert await values(state) == {}


async def test_a_diff_says_what_was_and_what_is(state: Client) -> None:
    base = await fill(state, changed=1, deleted="old", same=1, **{"p/x": 1})
    await state.delete("deleted")
    target = await fill(state, changed=[2], created=b"\x00", same=1)  # `same` is written anew
    await fill(state, later=1)
    listing = state.diff(base, target)
    with pytest.raises(RuntimeError):
        assert listing.base_revision
    found = {difference.key: difference for difference in await listing.all()}
    assert (listing.base_revision, listing.target_revision) == (base, target)
    assert {key: (value(each.before), value(each.after)) for key, each in found.items()} == {
        "changed": (1, [2]),
        "created": (None, b"\x00"),
        "deleted": ("old", None),
    }
    before, after = found["changed"].before, found["changed"].after
    assert before is not None
    assert after is not None
    assert (before.version, after.version, before.mod_revision, after.mod_revision) == (1, 2, base, target)


async def test_a_diff_with_now_and_backwards(state: Client) -> None:
    base = await fill(state, a=1)
    newest = await fill(state, a=2, b=2)
    listing = state.diff(base)
    assert [(each.key, value(each.before), value(each.after)) for each in await listing.all()] == [
        ("a", 1, 2),
        ("b", None, 2),
    ]
    assert listing.target_revision == newest
    assert [(each.key, value(each.before), value(each.after)) async for each in state.diff(newest, base)] == [
        ("a", 2, 1),
        ("b", 2, None),
    ]
    assert await state.diff(newest).all() == []


async def test_the_pages_of_a_diff_stay_at_their_revisions(state: Client) -> None:
    base = await fill(state, **{f"p/{number}": 1 for number in range(7)}, q=1)
    target = await fill(state, **{f"p/{number}": 2 for number in range(7)}, q=2)
    listing = state.diff(base, prefix="p/", page_size=3)
    keys = []
    async for page in listing.pages():
        keys.append([difference.key for difference in page])
        await fill(state, **{"p/6": len(keys), "p/later": 1})
    assert keys == [["p/0", "p/1", "p/2"], ["p/3", "p/4", "p/5"], ["p/6"]]
    assert (listing.base_revision, listing.target_revision) == (base, target)


async def test_a_diff_without_values(state: Client) -> None:
    base = await fill(state, a="long")
    await fill(state, a="longer")
    (difference,) = await state.diff(base, keys_only=True).all()
    assert difference.before is not None
    assert difference.after is not None
    assert (difference.before.data, difference.after.data) == (b"", b"")
    assert (difference.before.version, difference.after.version) == (1, 2)


Act = Callable[[Client], Awaitable[Any]]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda state: state.checkpoint(""), comity.InvalidArgument),
        (lambda state: state.checkpoint("12"), comity.InvalidArgument),
        (lambda state: state.checkpoint("two words"), comity.InvalidArgument),
        (lambda state: state.checkpoint("-first"), comity.InvalidArgument),
        (lambda state: state.checkpoint("a" * 129), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", revision=-1), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", revision=99), comity.OutOfRange),
        (lambda state: state.checkpoint("mark", labels={"": "x"}), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", labels={"k" * 64: "x"}), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", labels={"k": "x" * 256}), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", labels={f"k{n}": "" for n in range(65)}), comity.InvalidArgument),
        (lambda state: state.checkpoint("mark", message="x" * 4097), comity.InvalidArgument),
        (lambda state: state.with_options(namespace="none-such").checkpoint("mark"), comity.NotFound),
        (lambda state: state.get_checkpoint("none"), comity.NotFound),
        (lambda state: state.restore("none"), comity.NotFound),
        (lambda state: state.restore(99), comity.OutOfRange),
        (lambda state: state.restore(-1), comity.InvalidArgument),
        (lambda state: state.restore(True), TypeError),
        (lambda state: state.restore(1.5), TypeError),
        (lambda state: state.diff("none").all(), comity.NotFound),
        (lambda state: state.diff(1, "none").all(), comity.NotFound),
        (lambda state: state.diff(1, 99).all(), comity.OutOfRange),
        (lambda state: state.diff(1, page_size=-1).all(), comity.InvalidArgument),
    ],
)
async def test_what_is_refused(state: Client, act: Act, error: type[Exception]) -> None:
    revision = await fill(state, a=1)
    with pytest.raises(error):
        await act(state)
    assert (await state.namespace_info()).revision == revision
    assert [mark.name async for mark in state.checkpoints()] == []


def test_a_checkpoint_stands_for_its_name() -> None:
    """So that it means nothing in another namespace, where its revision would be another state."""
    mark = comity.Checkpoint("mark", 7, EPOCH, "", "", {}, 0, 0)
    named = comity.requests.ref(mark)
    assert (named.WhichOneof("ref"), named.checkpoint) == ("checkpoint", "mark")
