"""What differs between two states: whichever two, both ways, in pages, found from what changed."""

import pytest

from comity_server.errors import CheckpointNotFound, Compacted, NamespaceNotFound, RevisionInFuture
from comity_server.model import Delete, Difference, Put, Ref
from comity_server.record import KEY, VALUE, Record, same_content, shown_size, without_value
from tests.contract.space import LIMITS, Space, plain


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1 puts a, b/1 and b/2; 2 a again; 3 deletes b/1 and puts c; 4 puts a as it was at 1; 5 puts b/1, é and
    b/3; 6 gives b/2 another content type; 7 deletes a; 8 puts what b/1 and c have already."""
    await space.apply(Put("a", b"1"), Put("b/1", b"1"), Put("b/2", b"1", "text/plain"))
    await space.put("a", b"2")
    await space.apply(Delete("b/1"), Put("c", b"3"))
    await space.put("a", b"1")
    await space.apply(Put("b/1", b"5"), Put("é", b"5"), Put("b/3", b"5"))
    await space.put("b/2", b"1")
    await space.delete("a")
    await space.apply(Put("b/1", b"5"), Put("c", b"3"))
    return space


async def state(space: Space, revision: int) -> dict[str, Record]:
    if revision == 0:
        return {}
    return {entry[KEY]: entry for entry in await space.entries(revision=revision)}


def between(before: dict[str, Record], after: dict[str, Record]) -> list[Difference]:
    """What differs, worked out from two whole states."""
    pairs = ((key, before.get(key), after.get(key)) for key in sorted({**before, **after}))
    return [Difference(key, old, new) for key, old, new in pairs if not same_content(old, new)]


async def page_after(space: Space, after: str, limit: int = 100) -> list[str]:
    page = await space.store.diff(space.name, 1, after=after, limit=limit, max_bytes=LIMITS.page_bytes)
    return [difference.key for difference in page.differences]


@pytest.mark.parametrize("base", range(9))
async def test_diff_is_what_the_two_states_say(lived: Space, base: int) -> None:
    for target in range(9):
        expected = between(await state(lived, base), await state(lived, target))
        assert plain(await lived.differences(base, target)) == plain(expected), target
        if target == 8:
            assert plain(await lived.differences(base)) == plain(expected)
        for prefix in ("a", "b/", "b/1", "c", "é", "x"):
            under = [difference for difference in expected if difference.key.startswith(prefix)]
            assert plain(await lived.differences(base, target, prefix)) == plain(under)


async def test_diff_shows_entries_as_they_were_with_all_their_fields(lived: Space) -> None:
    (changed, gone, new) = await lived.differences(2, 3, "") + await lived.differences(1, 2)
    assert [difference.key for difference in (changed, gone, new)] == ["b/1", "c", "a"]
    assert changed == Difference("b/1", await lived.entry("b/1", 2), None)
    assert gone == Difference("c", None, await lived.entry("c", 3))
    assert new == Difference("a", await lived.entry("a", 1), await lived.entry("a", 2))
    assert [(entry[3], entry[4], entry[5]) for entry in new[1:] if entry] == [(1, 1, 1), (2, 1, 2)]


async def test_key_that_was_written_anew_with_the_same_does_not_differ(lived: Space) -> None:
    assert await lived.differences(7, 8) == []
    assert [difference.key for difference in await lived.differences(1, 4)] == ["b/1", "c"]
    await lived.delete("c")
    await lived.put("c", b"3")
    assert await lived.differences(8) == []
    await lived.put("c", b"3", "text/plain")
    assert [difference.key for difference in await lived.differences(8)] == ["c"]


async def test_diff_of_a_revision_with_itself_is_empty(lived: Space) -> None:
    for revision in range(9):
        assert await lived.differences(revision, revision) == []
    assert await lived.differences(None) == []
    assert await lived.differences(None, None) == []


async def test_diff_answers_the_revisions_that_were_compared(lived: Space) -> None:
    await lived.checkpoint("three", 3)
    questions: list[tuple[Ref, Ref, tuple[int, int]]] = [
        (3, 5, (3, 5)),
        (5, 3, (5, 3)),
        (0, None, (0, 8)),
        (None, 2, (8, 2)),
        ("three", None, (3, 8)),
        (4, "three", (4, 3)),
        ("three", "three", (3, 3)),
    ]
    for base, target, revisions in questions:
        (page,) = await lived.diff_pages(base, target)
        assert (page.base_revision, page.target_revision) == revisions
        assert plain(page.differences) == plain(await lived.differences(*revisions))


async def test_diff_with_checkpoints_goes_on_when_the_floor_has_passed_them(lived: Space) -> None:
    expected = {(base, target): await lived.differences(base, target) for base in (2, 5, 8) for target in (2, 5, 8)}
    await lived.checkpoint("two", 2)
    await lived.checkpoint("five", 5)
    await lived.compact()
    names: dict[int, Ref] = {2: "two", 5: "five", 8: None}
    for (base, target), differences in expected.items():
        assert plain(await lived.differences(names[base], names[target])) == plain(differences)
        assert plain(await lived.differences(base, target)) == plain(differences)
    await lived.put("new")
    await lived.delete("b/2")
    assert [d.key for d in await lived.differences("five")] == ["a", "b/2", "new"]


async def test_diff_of_what_cannot_be_read_is_refused(lived: Space) -> None:
    await lived.compact(4)
    refusals: dict[type[Exception], list[tuple[Ref, Ref]]] = {
        Compacted: [(3, None), (None, 3), (3, 3), (0, None), (None, 0), (1, 9)],
        RevisionInFuture: [(9, None), (None, 9)],
        CheckpointNotFound: [("none", None), (None, "none")],
    }
    for error, pairs in refusals.items():
        for base, target in pairs:
            with pytest.raises(error):
                await lived.differences(base, target)
    with pytest.raises(NamespaceNotFound):
        await lived.sibling("absent").differences(0)
    assert [d.key for d in await lived.differences(4)] == ["a", "b/1", "b/2", "b/3", "é"]


async def test_differences_come_in_pages_in_the_order_of_their_keys(lived: Space) -> None:
    whole = await lived.differences(1)
    keys = [difference.key for difference in whole]
    assert keys == ["a", "b/1", "b/2", "b/3", "c", "é"]
    for limit in (1, 2, 4, 5, 6, 7):
        pages = await lived.diff_pages(1, limit=limit)
        assert [d for page in pages for d in page.differences] == whole
        assert all(page.next_after is not None for page in pages[:-1])
    assert await page_after(lived, "b") == keys[1:]
    assert await page_after(lived, "b/2") == keys[3:]
    assert await page_after(lived, "b/2", limit=2) == keys[3:5]
    assert await page_after(lived, "é") == []
    pages = await lived.diff_pages(1, prefix="b/", limit=1)
    assert [d.key for page in pages for d in page.differences] == keys[1:4]


async def test_page_of_a_diff_ends_before_it_is_too_large(space: Space) -> None:
    await space.apply(*(Put(f"k{number}", bytes(100)) for number in range(10)))
    await space.apply(*(Put(f"k{number}", bytes(200)) for number in range(1, 10)), Delete("k0"), Put("z", bytes(5000)))
    await space.delete("z")
    one = sum([shown_size(await space.entry("k1", revision)) for revision in (1, 2)])
    pages = await space.diff_pages(1, 2, max_bytes=3 * one)
    # One side of the first is absent, and the last is too large for a page: it has one of its own.
    assert [len(page.differences) for page in pages] == [3, 3, 3, 1, 1]
    assert pages[-1].differences[0].key == "z"
    assert [len(page.differences) for page in await space.diff_pages(1, 2, max_bytes=1)] == [1] * 11
    pages = await space.diff_pages(1, 2, max_bytes=600, keys_only=True)
    assert sum(len(page.differences) for page in pages) == 11
    assert len(pages) < 4, "values that are left out do not count"


async def test_values_are_left_out_on_request(lived: Space) -> None:
    whole = await lived.differences(1)
    shown = await lived.differences(1, keys_only=True)
    assert shown == [
        Difference(key, before and without_value(before), after and without_value(after))
        for key, before, after in whole
    ]
    assert all(entry[VALUE] == b"" for difference in shown for entry in difference[1:] if entry)


async def test_few_changes_among_many_keys(space: Space) -> None:
    for hundred in range(0, 20_000, 1000):
        await space.apply(*(Put(f"k{number:05}", b"old") for number in range(hundred, hundred + 1000)))
    await space.checkpoint("before")
    revision = await space.apply(Put("k00007", b"new"), Delete("k19999"), Put("k10000", b"old"), Put("new", b"new"))
    assert revision.revision == 21
    for base, target in ((20, None), ("before", 21)):
        (page,) = await space.diff_pages(base, target)
        assert [difference.key for difference in page.differences] == ["k00007", "k19999", "new"]
    (page,) = await space.diff_pages(21, 20, "k1")
    assert page.differences == [Difference("k19999", None, await space.entry("k19999", 20))]
    assert (await space.diff_pages(20, None, "k00007"))[0].differences[0].key == "k00007"


async def test_many_changes_are_all_found_and_none_twice(space: Space) -> None:
    """More than a store would sort for one page; among them some that do not differ in the end."""
    for start in range(0, 15_000, 1000):
        await space.apply(*(Put(f"k{number:05}", b"1") for number in range(start, start + 1000)))
    before = await space.revision()
    for start in range(0, 15_000, 1000):
        await space.apply(
            *(Put(f"k{number:05}", b"1" if number % 3 == 0 else b"2") for number in range(start, start + 1000))
        )
    await space.delete_prefix("k149")
    expected = [f"k{number:05}" for number in range(15_000) if number % 3 or number >= 14_900]
    pages = await space.diff_pages(before)
    assert [difference.key for page in pages for difference in page.differences] == expected
    back = await space.differences(None, before, keys_only=True)
    assert [difference.key for difference in back] == expected
    assert [d.key for d in await space.differences(before, None, "k0002")] == [
        f"k{number:05}" for number in range(20, 30) if number % 3
    ]


async def test_diff_pages_show_the_revisions_of_the_first_whatever_is_written_meanwhile(lived: Space) -> None:
    whole = await lived.differences(1, 6)
    found: list[Difference] = []
    after = ""
    for turn in range(100):
        page = await lived.store.diff(lived.name, 1, 6, after=after, limit=1, max_bytes=LIMITS.page_bytes)
        found += page.differences
        if page.next_after is None:
            break
        after = page.next_after
        await lived.put(f"b/{turn}", b"meanwhile")
        await lived.delete("c")
    assert found == whole
