"""A write with a name is applied once, however often it is sent; what is remembered, for how long, and what not."""

import asyncio

import pytest

from comity_server.errors import NotANumber, Overloaded, QuotaExceeded, RequestIdForgotten, RequestIdReused, StateError
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    Get,
    Increment,
    List,
    Operation,
    Outcome,
    Put,
    RequestId,
    Test,
    Transaction,
)
from tests.contract.conftest import OpenSpace
from tests.contract.space import Space, plain


def named(sequence: int, *then: Operation, awaited: int = 0, client: str = "c") -> Transaction:
    return Transaction(then=then, request_id=RequestId(client, sequence, awaited))


async def number(space: Space) -> int:
    record = await space.get("n")
    return int(record[1]) if record else 0


async def clock(space: Space) -> int:
    """The time by the store's clock, in µs: a write without a name makes it tell."""
    await space.put("clock")
    return (await space.store.namespace(space.name)).update_time


INCREMENT = Increment("n", 1)


async def test_repeat_answers_the_first_outcome_and_applies_nothing(space: Space) -> None:
    for key in ("a", "d/1", "d/2"):
        await space.put(key)
    put, delete = Put("a", b"2", return_previous=True), DeletePrefix("d/", return_previous=True)
    write = named(1, put, INCREMENT, Get("a"), List("", 9), delete)
    first = await space.commit(write)
    await space.put("a", b"3")
    await space.put("d/3")
    assert plain(await space.commit(write)) == plain(first)
    assert plain(await space.commit(write)) == plain(first)
    assert first.revision == 4
    assert await space.revision() == 6
    assert (await space.entry("a"))[1] == b"3"
    assert await space.keys("d/") == ["d/3"]


async def test_repeat_in_the_same_group_answers_the_first_outcome(space: Space) -> None:
    first, second, repeat = await space.outcomes(named(1, INCREMENT), named(2, INCREMENT), named(1, INCREMENT))
    assert plain(first) == plain(repeat)
    assert (first.revision, second.revision) == (1, 2)
    assert await number(space) == 2


async def test_repeat_answers_even_where_the_conditions_no_longer_hold(space: Space) -> None:
    create = Transaction([Condition("a", Test.EXISTS, 0)], [Put("a", b"")], request_id=RequestId("c", 1))
    first = await space.commit(create)
    assert first.committed
    assert plain(await space.commit(create)) == plain(first)
    assert (await space.group(create, create))[1] == first


async def test_request_id_of_another_request_is_refused(space: Space) -> None:
    await space.commit(named(1, Put("a", b"1")))
    others = [
        named(1, Put("a", b"2")),
        named(1, Put("b", b"1")),
        named(1, Put("a", b"1", "text/plain")),
        named(1, Put("a", b"1"), Get("a")),
        named(1, Delete("a")),
        named(1, Put("a", b"1"))._replace(conditions=[Condition("a", Test.EXISTS, 1)]),
        named(1, Put("a", b"1"))._replace(otherwise=[Put("b", b"1")]),
    ]
    for other in others:
        with pytest.raises(RequestIdReused):
            await space.commit(other)
    assert await space.revision() == 1
    first, reused = await space.group(named(2, INCREMENT), named(2, Increment("n", 2)))
    assert isinstance(first, Outcome)
    assert isinstance(reused, RequestIdReused)
    assert await number(space) == 1


async def test_what_is_said_about_a_write_does_not_make_it_another(space: Space) -> None:
    write = named(1, INCREMENT)
    first = await space.commit(write)
    for said in (write._replace(trace_parent="00-1-2-01"), named(1, INCREMENT, awaited=1)):
        assert plain(await space.commit(said)) == plain(first)


async def test_clients_and_namespaces_have_request_ids_of_their_own(space: Space) -> None:
    await space.commit(named(1, INCREMENT))
    await space.commit(named(1, INCREMENT, client="d"))
    await space.sibling("other").commit(named(1, Increment("n", 5)))
    assert await number(space) == 2
    assert await number(space.sibling("other")) == 5


async def test_client_may_bear_any_name(space: Space) -> None:
    clients = ["c", "C", "c:1", "c 1", "{c}", "é" * 64, "\U0010ffff", "1", "c\n"]
    for client in clients:
        assert (await space.commit(named(1, INCREMENT, client=client))).revision == clients.index(client) + 1
    for client in clients:
        assert (await space.commit(named(1, INCREMENT, client=client))).revision == clients.index(client) + 1


async def test_sequences_may_arrive_in_any_order_and_be_large(space: Space) -> None:
    revisions = {}
    for sequence in (7, 3, 2**53 - 1, 1, 2**62):
        revisions[sequence] = (await space.commit(named(sequence, INCREMENT))).revision
    for sequence, revision in revisions.items():
        assert (await space.commit(named(sequence, INCREMENT))).revision == revision
    assert await number(space) == len(revisions)


async def test_outcomes_below_the_lowest_awaited_are_forgotten_and_refused(space: Space) -> None:
    for sequence in (1, 2, 3):
        await space.commit(named(sequence, INCREMENT))
    await space.commit(named(4, INCREMENT, awaited=3))
    for sequence in (1, 2):
        with pytest.raises(RequestIdForgotten) as refused:
            await space.commit(named(sequence, INCREMENT))
        assert refused.value.metadata == {"sequence": str(sequence), "awaited": "3"}
    assert (await space.commit(named(3, INCREMENT))).revision == 3
    await space.commit(named(5, INCREMENT, awaited=2))  # a message that was overtaken takes nothing back
    with pytest.raises(RequestIdForgotten):
        await space.commit(named(2, INCREMENT))
    assert await number(space) == 5


async def test_write_below_what_its_client_awaits_is_refused_though_it_was_never_seen(space: Space) -> None:
    await space.commit(named(9, INCREMENT, awaited=8))
    with pytest.raises(RequestIdForgotten):
        await space.commit(named(5, INCREMENT))
    assert (await space.commit(named(8, INCREMENT))).revision == 2
    assert (await space.commit(named(5, INCREMENT, client="d"))).revision == 3
    with pytest.raises(RequestIdForgotten):  # of a client that is heard of for the first time, too
        await space.commit(named(3, INCREMENT, awaited=5, client="e"))


async def test_group_hears_what_its_client_awaits(space: Space) -> None:
    """Each transaction of a group is judged as if alone, also by what those before it said of their client."""
    first, second = await space.group(named(5, INCREMENT, awaited=5), named(4, INCREMENT))
    assert isinstance(first, Outcome)
    assert isinstance(second, RequestIdForgotten)
    assert await number(space) == 1


async def test_what_makes_no_revision_is_not_remembered(space: Space) -> None:
    unmet = Transaction([Condition("a", Test.EXISTS, 1)], [INCREMENT], request_id=RequestId("c", 1))
    assert not (await space.commit(unmet)).committed
    assert (await space.commit(named(2, Delete("a")))).revision == 0
    await space.put("text", b"x")
    with pytest.raises(NotANumber):
        await space.commit(named(3, Increment("text", 1)))

    await space.put("a")
    await space.put("text", b"1")
    judged_again = [await space.commit(unmet), await space.commit(named(2, Delete("a")))]
    assert [(outcome.committed, outcome.revision) for outcome in judged_again] == [(True, 4), (True, 5)]
    assert (await space.commit(named(3, Increment("text", 1)))).revision == 6
    assert plain(await space.commit(unmet)) == plain(judged_again[0])  # now it has made one


async def test_what_makes_no_revision_is_not_remembered_though_its_group_makes_some(space: Space) -> None:
    delete = named(1, Delete("a"))
    first, put, second, repeat = await space.outcomes(delete, named(2, Put("a", b"")), delete, delete)
    assert [first.revision, put.revision, second.revision, repeat.revision] == [0, 1, 2, 2]
    nothing, put = await space.outcomes(named(3, Delete("a")), named(4, Put("a", b"")))
    assert (nothing.revision, put.revision) == (2, 3)
    assert (await space.commit(named(3, Delete("a")))).revision == 4


async def test_otherwise_that_makes_a_revision_is_remembered(space: Space) -> None:
    write = Transaction([Condition("a", Test.EXISTS, 1)], [], [Put("a", b"")], RequestId("c", 1))
    first = await space.commit(write)
    assert (first.committed, first.revision, len(first.failed)) == (False, 1, 1)
    assert plain(await space.commit(write)) == plain(first)
    assert await space.revision() == 1


async def test_compaction_forgets_no_outcome(space: Space) -> None:
    first = await space.commit(named(1, INCREMENT))
    await space.commit(named(2, Delete("n")))
    await space.put("other")
    assert await space.store.compact(space.name) == 3
    assert plain(await space.commit(named(1, INCREMENT))) == plain(first)
    assert await space.revision() == 3


async def test_sequence_is_remembered_in_a_namespace_that_was_deleted(space: Space) -> None:
    """A repeat applies nothing, whoever deleted the namespace meanwhile."""
    await space.commit(named(1, INCREMENT))
    await space.store.delete_namespace(space.name)
    repeated = (await space.group(named(1, INCREMENT)))[0]
    assert isinstance(repeated, StateError) or repeated.revision == 1
    assert await space.keys() == []


async def test_silent_client_is_forgotten_after_the_window(open_space: OpenSpace) -> None:
    window = 0.05
    space = await open_space(Limits(request_window=window))
    await space.commit(named(1, INCREMENT))
    silence, applied_again = 2 * window, False
    async with asyncio.timeout(20):
        while not applied_again:
            start = end = await clock(space)
            while end - start < silence * 1e6:
                end = await clock(space)
            applied_again = (await space.commit(named(1, INCREMENT))).revision > 1
            silence *= 2
    assert await number(space) == 2


async def test_client_with_too_many_outcomes_is_served_and_its_oldest_forgotten(open_space: OpenSpace) -> None:
    space = await open_space(Limits(request_outcomes=3))
    for sequence in range(1, 6):
        await space.commit(named(sequence, INCREMENT))
    for sequence in (1, 2):
        with pytest.raises(RequestIdForgotten):
            await space.commit(named(sequence, INCREMENT))
    for sequence in (3, 4, 5):
        assert (await space.commit(named(sequence, INCREMENT))).revision == sequence
    assert await number(space) == 5


async def test_client_with_too_large_outcomes_is_served_and_its_oldest_forgotten(open_space: OpenSpace) -> None:
    space = await open_space(Limits(request_bytes=100_000))
    await space.put("a", bytes(40_000))
    for sequence in range(1, 6):
        await space.commit(named(sequence, Get("a"), INCREMENT))
    with pytest.raises(RequestIdForgotten):
        await space.commit(named(1, Get("a"), INCREMENT))
    assert (await space.commit(named(5, Get("a"), INCREMENT))).revision == 6
    assert await number(space) == 5


async def test_too_many_clients_are_refused_and_those_known_are_served(open_space: OpenSpace) -> None:
    space = await open_space(Limits(request_clients=2))
    for client in ("a", "b"):
        await space.commit(named(1, INCREMENT, client=client))
    with pytest.raises(QuotaExceeded):
        await space.commit(named(1, INCREMENT, client="c"))
    assert (await space.commit(named(1, INCREMENT, client="a"))).revision == 1
    assert (await space.commit(named(2, INCREMENT, client="b"))).revision == 3
    assert (await space.apply(INCREMENT)).revision == 4


async def test_client_with_too_many_outcomes_may_use_any_sequence_above_the_forgotten(open_space: OpenSpace) -> None:
    """What is forgotten are the lowest sequences, in whatever order they came."""
    space = await open_space(Limits(request_outcomes=3))
    for sequence in (10, 1, 2, 3, 4):
        await space.commit(named(sequence, INCREMENT))
    for sequence in (1, 2):
        with pytest.raises(RequestIdForgotten):
            await space.commit(named(sequence, INCREMENT))
    for sequence, revision in ((3, 4), (4, 5), (10, 1)):
        assert (await space.commit(named(sequence, INCREMENT))).revision == revision


async def test_what_a_client_awaits_is_never_forgotten_and_its_writes_wait_instead(open_space: OpenSpace) -> None:
    space = await open_space(Limits(request_outcomes=3))
    for sequence in (3, 4, 5):
        await space.commit(named(sequence, INCREMENT, awaited=2))
    with pytest.raises(Overloaded):
        await space.commit(named(6, INCREMENT, awaited=2))
    assert (await space.commit(named(3, INCREMENT, awaited=2))).revision == 1  # a repeat is answered
    assert (await space.commit(named(2, INCREMENT, awaited=2))).revision == 4  # the lowest goes through
    assert (await space.commit(named(6, INCREMENT, awaited=4))).revision == 5
    assert await number(space) == 5
