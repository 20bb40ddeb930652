"""The clock of a namespace: which transactions make a revision, and what entries and commits say of it."""

import time

from comity_server.errors import NotANumber, StateError
from comity_server.model import (
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    Get,
    GetResult,
    Increment,
    List,
    Operation,
    Outcome,
    Position,
    Put,
    Read,
    RequestId,
    Test,
    Transaction,
)
from comity_server.record import CREATE_REVISION, MOD_REVISION, UPDATE_TIME, VERSION, Record
from tests.contract.space import Space, plain


def numbers(record: Record) -> tuple[int, int, int]:
    return record[VERSION], record[CREATE_REVISION], record[MOD_REVISION]


async def test_namespace_that_does_not_exist_reads_as_empty_at_revision_0(space: Space) -> None:
    position = await space.position()
    assert position == Position(0, 0, position.epoch)
    assert await space.store.get(space.name, "a") == Read(None, 0, position.epoch)
    page = await space.store.list(space.name, "", limit=10, max_bytes=1000)
    assert (list(page.entries), page.revision, page.next_after) == ([], 0, None)
    assert await space.log() == []


async def test_revision_grows_by_exactly_one_with_every_commit(space: Space) -> None:
    transactions: list[list[Operation]] = [
        [Put("a", b"1")],
        [Put("b", b"2"), Put("c", b"3"), Get("a")],
        [Put("a", b"1")],  # the same value again is a write
        [Delete("b"), Delete("not there")],
        [Increment("n", 0)],  # so is adding nothing
        [DeletePrefix("")],
        [Put("a", b"")],
    ]
    outcomes = [await space.apply(*operations) for operations in transactions]
    assert [outcome.revision for outcome in outcomes] == [1, 2, 3, 4, 5, 6, 7]
    assert all(outcome.committed for outcome in outcomes)
    assert [commit.revision for commit in await space.log()] == [1, 2, 3, 4, 5, 6, 7]
    assert await space.revision() == 7


async def test_what_names_a_revision_says_of_which_epoch_it_is(space: Space) -> None:
    epoch = (await space.position()).epoch
    assert epoch

    async def said() -> set[str]:
        page = await space.store.list(space.name, "", limit=1, max_bytes=1000)
        return {(await space.store.get(space.name, "a")).epoch, page.epoch, (await space.position()).epoch}

    assert await said() == {epoch}
    request = RequestId("client", 1)
    for outcome in (
        await space.apply(Put("a", b"1"), request_id=request),
        await space.apply(Put("a", b"1"), request_id=request),  # a repeat
        await space.apply(Get("a")),
        await space.apply(List("", 1)),
        await space.apply(conditions=[Condition("a", Test.EXISTS, 0)]),
        await space.apply(conditions=[Condition("", Test.UNCHANGED_SINCE, 0, is_prefix=True)]),
    ):
        assert (outcome.revision, outcome.epoch) == (1, epoch)
    await space.put("b")
    assert await said() == {epoch}


async def test_what_changes_nothing_makes_no_revision(space: Space) -> None:
    await space.put("a")
    absent = Condition("a", Test.EXISTS, 0)
    nothing = [
        Transaction(),
        Transaction(then=[Delete("b")]),
        Transaction(then=[DeletePrefix("b/")]),
        Transaction(then=[Get("a"), List("", 10)]),
        Transaction(then=[Get("a"), Delete("b"), DeletePrefix("b")]),
        Transaction([absent], [Put("a", b"2")]),
        Transaction([absent], [Put("a", b"2")], [Get("a"), Delete("b")]),
    ]
    for transaction in nothing:
        outcome = await space.commit(transaction)
        assert outcome.revision == 1, transaction  # the newest that it saw
        assert outcome.committed == (not transaction.conditions)
    assert await space.revision() == 1
    assert len(await space.log()) == 1


async def test_version_counts_overwrites_and_starts_again_after_a_delete(space: Space) -> None:
    seen = []
    for _ in range(3):
        await space.put("a")
        seen.append(numbers(await space.entry("a")))
    await space.delete("a")
    assert await space.get("a") is None
    await space.put("other")
    for _ in range(2):
        await space.put("a")
        seen.append(numbers(await space.entry("a")))
    await space.delete_prefix("a")
    await space.apply(Increment("a", 5))
    seen.append(numbers(await space.entry("a")))
    assert seen == [(1, 1, 1), (2, 1, 2), (3, 1, 3), (1, 6, 6), (2, 6, 7), (1, 9, 9)]


async def test_entry_holds_what_was_written(space: Space) -> None:
    value = bytes(range(256)) * 3
    await space.apply(Put("ключ/\U0001f600", value, "application/x; a=é"))
    record = await space.entry("ключ/\U0001f600")
    assert record == ("ключ/\U0001f600", value, "application/x; a=é", 1, 1, 1, 0, record[UPDATE_TIME])
    await space.apply(Put("ключ/\U0001f600", b""))  # nothing of the old entry stays
    record = await space.entry("ключ/\U0001f600")
    assert record == ("ключ/\U0001f600", b"", "", 2, 1, 2, 0, record[UPDATE_TIME])


async def test_largest_key_and_value_are_kept_whole(space: Space) -> None:
    key, value = "é" * 512, b"\0\xff" * (512 * 1024)
    await space.put(key, value)
    assert (await space.entry(key))[:2] == (key, value)
    (commit,) = await space.log()
    assert commit.events[0].entry[1] == value


async def test_commit_says_who_why_and_with_which_trace(space: Space) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await space.commit(Transaction(then=[Put("a", b"1")], author="Ω", message="why\nnot", trace_parent=trace))
    await space.put("a")
    said, unsaid = await space.log()
    assert said[2:5] == ("Ω", "why\nnot", trace)
    assert unsaid[2:5] == ("", "", "")


async def test_times_never_go_back_and_are_those_of_the_entries(space: Space) -> None:
    before = time.time_ns() // 1000
    for _ in range(20):
        await space.group(*(Transaction(then=[Put(key, b"")]) for key in "abc"))
    await space.delete("a")
    log = await space.log()
    times = [commit.time for commit in log]
    assert times == sorted(times)
    for commit in log:
        assert [event.entry[UPDATE_TIME] for event in commit.events] == [commit.time] * len(commit.events)
    # µs since 1970, and the store's clock is on this machine or near it.
    minute = 60_000_000
    assert before - minute < times[0] <= times[-1] < time.time_ns() // 1000 + minute


async def test_group_is_judged_in_turn_each_as_if_alone(space: Space) -> None:
    absent = Condition("a", Test.EXISTS, 0)
    first, second, third, fourth = await space.outcomes(
        Transaction([absent], [Put("a", b"first")]),
        Transaction([absent], [Put("a", b"second")]),  # sees the first
        Transaction(then=[Get("a")]),
        Transaction([Condition("a", Test.MOD_REVISION, 1)], [Put("a", b"fourth"), Get("a")]),
    )
    assert (first.committed, first.revision) == (True, 1)
    assert (second.committed, second.revision) == (False, 1)
    assert third.revision == 1
    assert plain(third.results) == plain([GetResult(await space.get("a", 1))])
    assert (fourth.committed, fourth.revision) == (True, 2)
    assert [commit.revision for commit in await space.log()] == [1, 2]


async def test_failure_in_a_group_leaves_nothing_and_touches_no_other(space: Space) -> None:
    outcomes = await space.group(
        Transaction(then=[Put("text", b"x")]),
        Transaction(then=[Put("lost", b"x"), DeletePrefix("number"), Increment("text", 1)]),
        Transaction(then=[Increment("number", 2)]),
        Transaction(then=[Put("lost too", b"x"), Increment("text", 1)]),
        Transaction(then=[Put("last", b"x")]),
    )
    assert [type(outcome) for outcome in outcomes] == [Outcome, NotANumber, Outcome, NotANumber, Outcome]
    assert [outcome.revision for outcome in outcomes if not isinstance(outcome, StateError)] == [1, 2, 3]
    assert await space.keys() == ["last", "number", "text"]
    assert (await space.entry("number"))[1:4] == (b"2", "application/json", 1)
    assert [[event.entry[0] for event in commit.events] for commit in await space.log()] == [
        ["text"],
        ["number"],
        ["last"],
    ]


async def test_empty_group_is_answered(space: Space) -> None:
    assert list(await space.group()) == []


async def test_events_come_in_the_order_of_operations_with_what_was_before(space: Space) -> None:
    for key in ("p/é", "p/b", "p/a", "z", "n"):
        await space.put(key, b"5")
    before = {record[0]: record for record in await space.entries()}
    await space.apply(Put("z", b"new"), DeletePrefix("p/"), Increment("n", 1), Put("a", b""), Get("a"), Delete("no"))
    commit: Commit = (await space.log())[-1]
    assert [(event.entry[0], event.is_delete) for event in commit.events] == [
        ("z", False),
        ("p/a", True),
        ("p/b", True),
        ("p/é", True),
        ("n", False),
        ("a", False),
    ]
    for event in commit.events:
        assert event.previous == before.get(event.entry[0])
        if event.is_delete:
            assert event.entry == (event.entry[0], b"", "", 0, 0, commit.revision, 0, commit.time)
        else:
            assert event.entry == await space.get(event.entry[0])
