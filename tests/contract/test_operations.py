"""What the operations of a transaction answer: in their order, each seeing what those before it wrote."""

import pytest

from comity_server.errors import NotANumber
from comity_server.limits import Limits
from comity_server.model import (
    Delete,
    DeletePrefix,
    DeleteResult,
    Get,
    GetResult,
    Increment,
    IncrementResult,
    List,
    ListResult,
    Put,
    PutResult,
    Transaction,
)
from comity_server.record import KEY, VALUE, without_value
from tests.contract.conftest import OpenSpace
from tests.contract.space import Space, plain

LARGEST = 2**53 - 1


async def test_read_sees_the_writes_before_it_and_none_after(space: Space) -> None:
    await space.put("a", b"old")
    await space.put("c", b"c")
    a, c = await space.entry("a"), await space.entry("c")
    outcome = await space.apply(
        Get("a"), List("", 10), Put("a", b"new"), Get("a"), Put("b", b"b"), List("", 10), Delete("c"), Get("c"),
        List("", 10), Increment("d", 3), Get("d"), List("c", 10), List("d", 10),
    )  # fmt: skip
    new_a, b, d = await space.entry("a"), await space.entry("b"), await space.entry("d")
    assert (new_a[1], d[1]) == (b"new", b"3")
    assert plain(outcome.results) == plain(
        [
            GetResult(a),
            ListResult([a, c], more=False),
            PutResult(2, None),
            GetResult(new_a),
            PutResult(1, None),
            ListResult([new_a, b, c], more=False),
            DeleteResult(1),
            GetResult(None),
            ListResult([new_a, b], more=False),
            IncrementResult(3, 1),
            GetResult(d),
            ListResult([], more=False),
            ListResult([d], more=False),
        ]
    )


async def test_prefix_delete_is_seen_and_sees_the_deletes_before_it(space: Space) -> None:
    for key in ("a", "a/1", "a/2", "a/3", "b"):
        await space.put(key)
    a, b = await space.entry("a"), await space.entry("b")
    outcome = await space.apply(
        Delete("a/2"), DeletePrefix("a/"), List("a", 10), Get("a/1"), DeletePrefix("a/"), Delete("a/3"),
        DeletePrefix("a"), List("", 10),
    )  # fmt: skip
    assert plain(outcome.results) == plain(
        [
            DeleteResult(1),
            DeleteResult(2),
            ListResult([a], more=False),
            GetResult(None),
            DeleteResult(0),
            DeleteResult(0),
            DeleteResult(1),
            ListResult([b], more=False),
        ]
    )
    commit = (await space.log())[-1]
    assert [event.entry[KEY] for event in commit.events] == ["a/2", "a/1", "a/3", "a"]


async def test_put_answers_its_version_and_on_request_what_it_overwrote(space: Space) -> None:
    first = await space.apply(Put("a", b"1", return_previous=True))
    was = await space.entry("a")
    second = await space.apply(Put("a", b"2", return_previous=True))
    third = await space.apply(Put("a", b"3"))
    assert plain([first.results, second.results, third.results]) == plain(
        [[PutResult(1, None)], [PutResult(2, was)], [PutResult(3, None)]]
    )
    await space.delete("a")
    again = await space.apply(Put("a", b"4", return_previous=True))
    assert plain(again.results) == plain([PutResult(1, None)])


async def test_delete_answers_how_many_and_on_request_which_in_the_order_of_keys(space: Space) -> None:
    for key in ("a/\U0001f600", "a/b", "a/é", "a/\uffff", "z"):
        await space.put(key)
    under_a, z = await space.entries("a/"), await space.entry("z")
    outcome = await space.apply(Delete("z", return_previous=True), DeletePrefix("a/", return_previous=True))
    assert [record[KEY] for record in under_a] == ["a/b", "a/é", "a/\uffff", "a/\U0001f600"]
    assert plain(outcome.results) == plain([DeleteResult(1, [z]), DeleteResult(4, under_a)])
    outcome = await space.apply(Delete("z", return_previous=True), DeletePrefix("a/", return_previous=True))
    assert plain(outcome.results) == plain([DeleteResult(0), DeleteResult(0)])


async def test_what_a_delete_answers_with_is_cut_where_it_grows_too_large(open_space: OpenSpace) -> None:
    space = await open_space(Limits(previous_bytes=100))
    for key in "abcdef":
        await space.put(key, bytes(39))
    entries = await space.entries()
    (result,) = (await space.apply(DeletePrefix("", return_previous=True))).results
    assert isinstance(result, DeleteResult)
    shown = len(result.previous)
    assert 1 <= shown <= 2
    assert plain(result) == plain(DeleteResult(6, entries[:shown], truncated=True))
    assert await space.keys() == []


async def test_list_in_a_transaction_has_a_limit_and_says_if_there_is_more(space: Space) -> None:
    for key in "abc":
        await space.put(key, b"value", "text/plain")
    outcome = await space.apply(List("", 2), List("", 3), List("b", 1), List("", 2, keys_only=True))
    entries = await space.entries()
    bare = [without_value(record) for record in entries]
    assert plain(outcome.results) == plain(
        [
            ListResult(entries[:2], more=True),
            ListResult(entries, more=False),
            ListResult(entries[1:2], more=False),
            ListResult(bare[:2], more=True),
        ]
    )


async def test_key_that_was_deleted_and_is_created_again_is_listed_once_in_its_place(space: Space) -> None:
    for key in "abc":
        await space.put(key)
    await space.delete("b")
    outcome = await space.apply(Put("b", b"again"), List("", 9))
    assert plain(outcome.results[1]) == plain(ListResult(await space.entries(), more=False))
    await space.apply(DeletePrefix("b"), Put("a", b"new"))
    first, second = await space.outcomes(
        Transaction(then=[Put("b", b"once more"), Delete("a")]), Transaction(then=[List("", 9), Put("a", b"")])
    )
    assert (first.revision, second.revision) == (7, 8)
    assert plain(second.results[0]) == plain(ListResult(await space.entries(revision=7), more=False))


async def test_limited_list_in_a_transaction_counts_its_own_writes(space: Space) -> None:
    for key in ("b", "d", "f"):
        await space.put(key)
    outcome = await space.apply(Put("a", b""), Put("c", b""), Delete("b"), List("", 3), List("", 4), DeletePrefix("d"),
                                List("", 3))  # fmt: skip
    lists = [result for result in outcome.results if isinstance(result, ListResult)]
    assert [([record[KEY] for record in result.entries], result.more) for result in lists] == [
        (["a", "c", "d"], True),
        (["a", "c", "d", "f"], False),
        (["a", "c", "f"], False),
    ]


async def test_increment_adds_to_decimal_text_and_an_absent_key_is_0(space: Space) -> None:
    results = [(await space.apply(Increment("n", delta))).results[0] for delta in (5, -7, 0, 2)]
    assert plain(results) == plain(
        [IncrementResult(5, 1), IncrementResult(-2, 2), IncrementResult(-2, 3), IncrementResult(0, 4)]
    )
    record = await space.entry("n")
    assert record[:7] == ("n", b"0", "application/json", 4, 1, 4, 0)
    await space.put("n", b"41", "text/plain")
    await space.apply(Increment("n", 1))
    assert (await space.entry("n"))[:4] == ("n", b"42", "application/json", 6)
    await space.delete("n")
    assert plain((await space.apply(Increment("n", 1))).results) == plain([IncrementResult(1, 1)])


@pytest.mark.parametrize(
    ("value", "delta", "total"),
    [
        (b"9007199254740990", 1, LARGEST),
        (b"-9007199254740990", -1, -LARGEST),
        (b"9007199254740991", -LARGEST, 0),
        (b"9007199254740991", 0, LARGEST),
        (b"-9007199254740991", LARGEST, 0),
        (b"0", LARGEST, LARGEST),
        (b"-1", 1, 0),
        (b"-0", 1, 1),
        (b"99999999999999", 1, 10**14),  # from here on some number formats lose digits
        (b"1000000000000000", 1, 10**15 + 1),
    ],
)
async def test_increment_is_exact_to_its_bounds(space: Space, value: bytes, delta: int, total: int) -> None:
    await space.put("n", value)
    (result,) = (await space.apply(Increment("n", delta))).results
    assert plain(result) == plain(IncrementResult(total, 2))
    assert (await space.entry("n"))[VALUE] == str(total).encode()


NO_NUMBERS = [
    *(
        b"",
        b"x",
        b"1.0",
        b"1.5",
        b"1e3",
        b"0x10",
        b"1_000",
        b"1 2",
        b"-",
        b"--1",
        b"null",
        b"true",
        b'"1"',
        b"nan",
        b"inf",
    ),
    *(b"007", b"+5", b" 5", b"5\n", b"1\0", b"\xff\xfe", "\u0663".encode(), "\uff11".encode()),  # digits, but no ASCII
    *(b"9007199254740992", b"-9007199254740992", b"18446744073709551617", b"9" * 5000),
]


@pytest.mark.parametrize("value", NO_NUMBERS)
async def test_increment_of_what_is_no_number_rolls_the_transaction_back(space: Space, value: bytes) -> None:
    await space.put("n", value)
    await space.put("other")
    with pytest.raises(NotANumber) as refused:
        await space.apply(Put("a", b""), DeletePrefix("other"), Increment("n", 1), Put("b", b""))
    assert refused.value.metadata["key"] == "n"
    assert await space.revision() == 2
    assert await space.keys() == ["n", "other"]
    assert (await space.entry("n"))[VALUE] == value


@pytest.mark.parametrize(("value", "delta"), [(b"9007199254740991", 1), (b"-9007199254740991", -1), (b"1", LARGEST)])
async def test_increment_past_its_bounds_rolls_the_transaction_back(space: Space, value: bytes, delta: int) -> None:
    await space.put("n", value)
    with pytest.raises(NotANumber):
        await space.apply(Put("a", b""), Increment("n", delta))
    assert await space.keys() == ["n"]
    assert (await space.entry("n"))[VALUE] == value
