"""What a limit refuses it refuses whole, and what makes a namespace smaller always passes."""

import asyncio

import pytest

from comity_server.errors import (
    CommitTooLarge,
    NamespaceNotFound,
    NotANumber,
    QuotaExceeded,
    ResultTooLarge,
    StateError,
    TransactionTooCostly,
)
from comity_server.limits import Limits, Share
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    Fork,
    Get,
    Grant,
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
from tests.contract.space import HOUR, Space


async def refuses(space: Space, error: type[StateError], *operations: Operation) -> StateError:
    """That these operations are refused and leave nothing."""
    revision, keys = await space.revision(), await space.entries()
    with pytest.raises(error) as refused:
        await space.apply(*operations)
    assert await space.revision() == revision
    assert await space.entries() == keys
    return refused.value


@pytest.fixture
async def full(open_space: OpenSpace) -> Space:
    """Three keys of three."""
    space = await open_space(Limits(namespace_keys=3))
    await space.apply(Put("a", b"1"), Put("b", b"1"), Put("c", b"1"))
    return space


async def test_quota_of_keys_refuses_one_more(full: Space) -> None:
    error = await refuses(full, QuotaExceeded, Put("d", b""))
    assert error.metadata == {"quota": "keys", "limit": "3"}
    await refuses(full, QuotaExceeded, Put("a", b"2"), Increment("d", 1), Delete("x"))
    assert (await full.apply(Put("a", b"2"), Increment("b", 1))).revision == 2


async def test_quota_of_keys_is_held_against_what_a_transaction_comes_to(full: Space) -> None:
    assert (await full.apply(Delete("a"), Put("d", b""))).revision == 2
    assert (await full.apply(Put("e", b""), Delete("b"))).revision == 3
    await refuses(full, QuotaExceeded, Delete("c"), Put("f", b""), Put("g", b""))
    assert await full.keys() == ["c", "d", "e"]


async def test_deletes_pass_where_the_quota_is_reached(full: Space) -> None:
    assert (await full.apply(Delete("b"))).revision == 2
    assert await full.put("d") == 3
    assert (await full.apply(DeletePrefix(""))).revision == 4
    assert (await full.apply(Put("x", b""), Put("y", b""), Put("z", b""))).revision == 5


async def test_quota_counts_what_the_group_before_wrote(full: Space) -> None:
    outcomes = await full.group(
        Transaction(then=[Put("d", b"")]),
        Transaction(then=[Delete("a")]),
        Transaction(then=[Put("d", b"")]),
        Transaction(then=[Put("e", b"")]),
        Transaction(then=[Get("e")]),
    )
    assert [type(outcome) for outcome in outcomes] == [QuotaExceeded, Outcome, Outcome, QuotaExceeded, Outcome]
    assert await full.keys() == ["b", "c", "d"]


async def test_quota_of_bytes_counts_keys_values_and_content_types(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_bytes=100))
    await space.put("é", bytes(48), "text/plain")  # 2 + 48 + 10
    assert (await space.store.namespace(space.name)).size_bytes == 60
    error = await refuses(space, QuotaExceeded, Put("b", bytes(40)))
    assert error.metadata == {"quota": "bytes", "limit": "100"}
    await refuses(space, QuotaExceeded, Put("b", b"", "x" * 40))
    await refuses(space, QuotaExceeded, Put("é", bytes(99)))
    await space.put("b", bytes(39))
    assert (await space.store.namespace(space.name)).size_bytes == 100
    await refuses(space, QuotaExceeded, Put("c", b""))
    await space.put("b", bytes(38))
    await space.put("c", b"")
    await space.delete("é")
    assert (await space.store.namespace(space.name)).size_bytes == 40
    await space.put("é", bytes(58))


async def test_quota_is_of_each_namespace(full: Space) -> None:
    other = full.sibling("other")
    assert (await other.apply(Put("a", b"1"), Put("b", b"1"), Put("c", b"1"))).revision == 1
    await refuses(other, QuotaExceeded, Put("d", b""))


async def test_history_counts_for_no_quota(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespace_keys=1, namespace_bytes=100))
    for _ in range(5):
        await space.put("a", bytes(90))
        await space.delete("a")
        await space.put("b", bytes(90))
        await space.delete("b")
    assert await space.revision() == 20


async def test_delete_of_more_keys_than_a_commit_may_have_is_refused(open_space: OpenSpace) -> None:
    space = await open_space(Limits(commit_events=5))
    for number in range(6):
        await space.put(f"a/{number}")
    error = await refuses(space, CommitTooLarge, Put("b", b""), DeletePrefix("a/"))
    assert error.metadata == {"limit": "5"}
    await refuses(space, CommitTooLarge, Delete("a/1"), DeletePrefix(""))
    await space.delete("a/0")
    assert (await space.apply(DeletePrefix("a/"))).revision == 8
    assert await space.keys() == []


async def test_transaction_that_reads_too_much_is_refused_with_its_writes(open_space: OpenSpace) -> None:
    space = await open_space(Limits(result_bytes=10_000))
    await space.put("a", bytes(4000))
    await space.put("b", bytes(4000))
    await space.put("c", bytes(4000))
    error = await refuses(space, ResultTooLarge, Put("d", b""), List("", 10))
    assert error.metadata == {"limit": "10000"}
    await refuses(space, ResultTooLarge, Put("d", b""), Get("a"), Get("b"), Get("c"))
    await refuses(space, ResultTooLarge, Put("d", b""), List("", 2), Get("c"))
    outcome = await space.apply(Get("a"), Get("b"), Get("absent"), List("", 3, keys_only=True), Put("d", b""))
    assert outcome.revision == 4
    unmet = Condition("a", Test.EXISTS, 0)
    with pytest.raises(ResultTooLarge):
        await space.apply(conditions=[unmet], otherwise=[List("", 10), Put("e", b"")])
    assert await space.revision() == 4


async def test_transaction_that_looks_through_too_much_is_refused(open_space: OpenSpace) -> None:
    space = await open_space(Limits(transaction_steps=1000))
    await space.apply(*(Put(f"{number:03}", b"") for number in range(500)))
    lists = [List("", 500, keys_only=True)] * 50
    error = await refuses(space, TransactionTooCostly, Put("a", b""), *lists)
    assert error.metadata == {"limit": "1000"}
    assert (await space.apply(lists[0], Put("a", b""))).revision == 2


async def test_refusal_touches_no_other_transaction_of_the_group(open_space: OpenSpace) -> None:
    space = await open_space(Limits(commit_events=2, result_bytes=100, namespace_keys=4))
    await space.apply(Put("a", bytes(200)), Put("b", b""))
    outcomes = await space.group(
        Transaction(then=[Put("lost", b""), Get("a")]),
        Transaction(then=[Put("c", b"")]),
        Transaction(then=[DeletePrefix("")]),
        Transaction(then=[Put("d", b""), Put("lost", b"")]),
        Transaction(then=[Put("d", b"")]),
    )
    assert [type(outcome) for outcome in outcomes] == [ResultTooLarge, Outcome, CommitTooLarge, QuotaExceeded, Outcome]
    assert await space.keys() == ["a", "b", "c", "d"]
    assert await space.revision() == 3


async def test_too_many_namespaces_are_refused_and_those_there_are_served(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespaces=2))
    others = [space.sibling(name) for name in "abc"]
    await others[0].put("k")
    await others[1].put("k")
    with pytest.raises(QuotaExceeded):
        await others[2].put("k")
    assert await others[2].revision() == 0
    assert (await others[2].apply(Get("k"))).revision == 0  # what writes nothing brings none into being
    assert await others[0].put("k") == 2
    await others[1].store.delete_namespace(others[1].name)
    assert await others[2].put("k") == 1


@pytest.mark.parametrize("of", ["all", "alike"])
async def test_a_namespace_that_is_one_too_many_leaves_nothing_behind(open_space: OpenSpace, of: str) -> None:
    space = await open_space(Limits(namespaces=2) if of == "all" else Limits())
    told = {"quota": "namespaces", "limit": "2"}
    if of == "alike":
        share = Share(f"{space.name}.a", 2)
        told["prefix"] = share.prefix
        space.store.bound(lambda name: Limits(share=share if name.startswith(share.prefix) else None))
        await space.put("k")  # and others are not counted
    first, second, third = [space.sibling(name) for name in ("a", "ab", "az")]
    await first.put("k")
    await second.commit(Grant(ttl=HOUR))
    named = Transaction(then=[Put("k", b"")], request_id=RequestId("client", 1))
    for write in (named, Transaction(then=[Put("k", b"", ttl=HOUR)]), Grant(ttl=HOUR), Fork(parent=first.name)):
        with pytest.raises(QuotaExceeded) as refused:
            await third.commit(write)
        assert refused.value.metadata == told
    listed = await space.store.namespaces(f"{space.name}.", limit=10)
    assert [info.name for info in listed] == [first.name, second.name]
    assert await third.revision() == 0
    with pytest.raises(NamespaceNotFound):
        await space.store.leases(third.name, limit=10)
    assert await first.put("k") == 2
    assert await first.settled() == 0, "nothing is held for a fork"
    await space.store.delete_namespace(second.name)
    assert (await third.commit(named)).revision == 1, "no outcome was remembered"


async def test_of_namespaces_that_begin_together_no_more_do_than_may(open_space: OpenSpace) -> None:
    space = await open_space()
    share = Share(f"{space.name}.", 3)
    space.store.bound(lambda _: Limits(share=share))
    ends = await asyncio.gather(*(space.sibling(f"s{number}").put("k") for number in range(8)), return_exceptions=True)
    assert [end for end in ends if not isinstance(end, QuotaExceeded)] == [1] * 3
    assert len(await space.store.namespaces(share.prefix, limit=10)) == 3


async def test_in_one_namespace_too_many_each_transaction_of_a_group_is_judged_alone(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespaces=1))
    await space.put("k")
    outcomes = await space.sibling("other").group(
        Transaction(then=[Get("k")]), Transaction(then=[Put("k", b"")]), Transaction(then=[Increment("k", 2**53)])
    )
    assert isinstance(outcomes[0], Outcome)
    assert isinstance(outcomes[1], QuotaExceeded)
    assert isinstance(outcomes[2], NotANumber)


async def test_the_quotas_of_a_namespace_may_be_its_own(space: Space) -> None:
    small = space.sibling("small")
    quotas = {small.name: Limits(namespace_keys=2, namespace_bytes=200, leases=1, checkpoints=1)}
    space.store.bound(lambda namespace: quotas.get(namespace, Limits()))
    for each in (space, small):
        await each.apply(Put("a", b""), Put("b", b""))
        await each.checkpoint("one")
        await each.commit(Grant(ttl=HOUR))
    for refused, quota in (
        (small.apply(Put("c", b"")), "keys"),
        (small.apply(Put("a", bytes(200))), "bytes"),
        (small.commit(Grant(ttl=HOUR)), "leases"),
        (small.checkpoint("two"), "checkpoints"),
    ):
        with pytest.raises(QuotaExceeded) as error:
            await refused
        assert error.value.metadata["quota"] == quota
    await space.apply(Put("c", b""), Put("a", bytes(200)))
    await space.commit(Grant(ttl=HOUR))
    await space.checkpoint("two")

    quotas[small.name] = Limits(namespace_keys=3)
    await small.apply(Put("c", b""))
    quotas[small.name] = Limits(namespace_keys=1)
    await refuses(small, QuotaExceeded, Put("d", b""))
    assert await small.keys() == ["a", "b", "c"], "what there is stays"
    await small.apply(Delete("a"))
