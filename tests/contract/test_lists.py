"""Which keys are under a prefix, in which order, and that the pages of a listing show one revision."""

import pytest

from comity_server.limits import Limits
from comity_server.model import Delete, Put, Transaction
from comity_server.record import KEY, size, without_value
from tests.contract.conftest import OpenSpace
from tests.contract.space import LIMITS, Space, plain

# In the order of their UTF-8 bytes. UTF-16 would have the last but two before "\uffff", a collation most elsewhere.
KEYS = [
    "\x01", "\t", " ", "!", "A", "B", "a", "a\x01", "a ", "a-b", "a/", "a/\x7f", "a/\x7f\x01", "a/a", "a/é", "a/\uffff",
    "a/\U0001f600", "a/\U0010ffff", "a/\U0010ffff\U0010ffff", "a0", "aa", "b", "é", "é/", "z", "\x7f", "\x7f\x7f",
    "\x80", "ß", "é", "é/1", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff",
    "\U0010ffff/", "\U0010ffff\U0010ffff",
]  # fmt: skip
ORDERED = sorted(set(KEYS), key=str.encode)
PREFIXES = sorted(
    {key[:length] for key in KEYS for length in range(len(key) + 1)} | {"zz", "a/\U0010fffe", "\ud7ff\x01"}
)


@pytest.fixture
async def alphabet(space: Space) -> Space:
    await space.group(*(Transaction(then=[Put(key, key.encode())]) for key in reversed(ORDERED)))
    return space


async def test_list_is_in_the_order_of_utf8_bytes(alphabet: Space) -> None:
    assert await alphabet.keys() == ORDERED


@pytest.mark.parametrize("past", [False, True])
async def test_list_has_what_begins_with_the_prefix_and_nothing_else(alphabet: Space, past: bool) -> None:
    revision = 0
    if past:
        revision = await alphabet.revision()
        await alphabet.delete_prefix("")
        await alphabet.put("a/new")
    for prefix in PREFIXES:
        expected = [key for key in ORDERED if key.startswith(prefix)]
        assert await alphabet.keys(prefix, revision) == expected, prefix


@pytest.mark.parametrize("past", [False, True])
async def test_list_goes_on_after_any_key_there_or_not(alphabet: Space, past: bool) -> None:
    revision = 0
    if past:
        revision = await alphabet.revision()
        await alphabet.delete_prefix("")
    for prefix in ("", "a", "a/", "é", "\U0010ffff", "zz"):
        for after in [*PREFIXES[1:], "a/b", "\U0010ffff" * 3]:
            page = await alphabet.store.list(
                alphabet.name, prefix, after=after, limit=100, max_bytes=LIMITS.page_bytes, revision=revision
            )
            expected = [key for key in ORDERED if key.startswith(prefix) and key.encode() > after.encode()]
            assert [entry[KEY] for entry in page.entries] == expected, (prefix, after)
            assert page.next_after is None


@pytest.mark.parametrize("limit", [1, 2, 7, 40, 41, 1000])
async def test_pages_hold_at_most_the_limit_and_leave_out_nothing(alphabet: Space, limit: int) -> None:
    pages = await alphabet.pages("a", limit=limit)
    assert [entry[KEY] for page in pages for entry in page.entries] == [k for k in ORDERED if k.startswith("a")]


async def test_pages_hold_at_most_so_many_bytes_but_at_least_one_entry(space: Space) -> None:
    for number in range(20):
        await space.put(f"k{number:02}", bytes(100 * (number % 5)))
    everything = await space.entries()
    for max_bytes in (1, 50, 150, 450, 1000, 1_000_000):
        pages = await space.pages(max_bytes=max_bytes)
        assert plain([entry for page in pages for entry in page.entries]) == plain(everything)
        assert len(pages) >= sum(map(size, everything)) / max(max_bytes, 500)


async def test_keys_only_leaves_the_values_out_and_nothing_else(space: Space) -> None:
    await space.put("a", b"1", "text/plain")
    await space.put("b", bytes(1000))
    await space.put("a", b"2", "text/html")
    revision = await space.put("a", b"3", "text/css")
    await space.delete_prefix("")
    for past in range(2, revision + 1):
        full, bare = await space.entries(revision=past), await space.entries(keys_only=True, revision=past)
        assert bare == [without_value(entry) for entry in full]
        assert len(bare) == 2


async def test_all_pages_show_the_revision_of_the_first(space: Space) -> None:
    for number in range(30):
        await space.put(f"k{number:02}", b"old")
    expected = await space.entries()
    page = await space.store.list(space.name, "k", limit=4, max_bytes=LIMITS.page_bytes)
    revision, seen = page.revision, list(page.entries)
    assert revision == 30
    turn = 0
    while page.next_after is not None:
        # Writes behind and before the page: overwrites, deletes, new keys, one created again.
        await space.group(
            Transaction(
                then=[Put(f"k{turn:02}", b"new"), Put(f"k{turn + 15:02}", b"new"), Put(f"k{turn:02}+", b"new")]
            ),
            Transaction(then=[Delete(f"k{turn + 16:02}"), Delete(f"k{turn + 1:02}")]),
            Transaction(then=[Put(f"k{turn + 16:02}", b"again")]),
        )
        turn += 1
        page = await space.store.list(
            space.name, "k", after=page.next_after, limit=4, max_bytes=LIMITS.page_bytes, revision=revision
        )
        assert page.revision == revision
        seen += page.entries
    assert turn >= 7
    assert plain(seen) == plain(expected)


async def test_large_listing_is_whole_now_and_at_an_old_revision(open_space: OpenSpace) -> None:
    """More keys than a store would look at in one go, most of them deleted since."""
    space = await open_space(Limits(transaction_operations=10_000))
    names = [f"{number:05}" for number in range(12_000)]
    for start in range(0, len(names), 1000):
        await space.apply(*(Put(name, b"") for name in names[start : start + 1000]))
    revision = await space.revision()
    await space.delete_prefix("0")
    await space.put("10000")
    assert await space.keys() == names[10_000:]
    assert await space.keys(revision=revision) == names
    assert await space.keys("0", revision) == names[:10_000]
    assert await space.keys("0") == []
    pages = await space.pages(limit=10)
    assert [entry[KEY] for page in pages for entry in page.entries] == names[10_000:]
