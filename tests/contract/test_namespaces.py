"""Namespaces: apart from each other, described, listed, deleted, and never giving out a revision twice."""

import asyncio
import time

import pytest

from comity_server import turns
from comity_server.errors import Compacted, Conflict, NamespaceNotFound
from comity_server.limits import Limits, Retention
from comity_server.model import Condition, Delete, Get, Increment, NamespaceInfo, Put, Test
from tests.contract.conftest import OpenSpace
from tests.contract.space import Space, plain
from tests.waiting import until


async def names(space: Space, prefix: str, after: str = "", limit: int = 100) -> list[str]:
    """Of the namespaces under this space's name, without that name."""
    found = await space.store.namespaces(space.name + prefix, after=after and space.name + after, limit=limit)
    return [info.name.removeprefix(space.name) for info in found]


async def test_namespaces_are_apart(space: Space) -> None:
    one, two = space.sibling("one"), space.sibling("one.two")
    await one.put("a", b"1")
    await one.put("a", b"2")
    await two.put("a", b"3")
    assert [await s.revision() for s in (one, two, space)] == [2, 1, 0]
    assert [(await s.entry("a"))[1:4] for s in (one, two)] == [(b"2", "", 2), (b"3", "", 1)]
    await one.delete_prefix("")
    assert await two.keys() == ["a"]
    await one.store.compact(one.name)
    assert (await two.position()).floor == 0
    await one.store.delete_namespace(one.name)
    assert await two.keys() == ["a"]
    assert len(await two.log()) == 1


async def test_namespace_comes_into_being_with_its_first_write(space: Space) -> None:
    await space.apply(Delete("a"), Get("b"))
    with pytest.raises(NamespaceNotFound) as refused:
        await space.store.namespace(space.name)
    assert refused.value.metadata == {"namespace": space.name}
    assert await names(space, "") == []
    await space.apply(Increment("a", 1))
    assert (await space.store.namespace(space.name)).revision == 1


async def test_description_counts_what_there_is(space: Space) -> None:
    await space.put("é", b"12345", "text/plain")
    created = await space.store.namespace(space.name)
    (commit,) = await space.log()
    position = await space.position()
    assert created == NamespaceInfo(
        name=space.name,
        revision=1,
        floor=0,
        key_count=1,
        size_bytes=2 + 5 + 10,
        commit_count=1,
        history_size_bytes=created.history_size_bytes,
        create_time=commit.time,
        update_time=commit.time,
        epoch=position.epoch,
    )
    assert position.epoch
    await space.apply(Put("é", b"1"), Put("b", b""), Increment("n", 10))
    await space.delete("b")
    info = await space.store.namespace(space.name)
    assert info[:6] == (space.name, 3, 0, 2, 2 + 1 + (1 + 2 + len("application/json")), 3)
    assert info.history_size_bytes > created.history_size_bytes
    log = await space.log()
    assert (info.create_time, info.update_time, info.epoch) == (log[0].time, log[-1].time, position.epoch)
    await space.delete_prefix("")
    empty = await space.store.namespace(space.name)  # it is there, with nothing in it
    assert empty[:6] == (space.name, 4, 0, 0, 0, 4)


async def test_namespaces_are_listed_in_the_order_of_their_names(space: Space) -> None:
    every = [".-", "._", ".0", ".a", ".a.", ".a.b", ".a0", ".b", "0", "z"]
    for name in reversed(every):
        await Space(space.store, space.name + name).put("k")
    order = sorted(every)
    assert await names(space, "") == order
    assert await names(space, ".a") == [".a", ".a.", ".a.b", ".a0"]
    assert await names(space, ".a.b") == [".a.b"]
    assert await names(space, ".c") == []
    assert await names(space, ".a", after=".a") == [".a.", ".a.b", ".a0"]
    assert await names(space, ".a", after=".a.aa") == [".a.b", ".a0"]
    assert await names(space, ".a", after=".0") == [".a", ".a.", ".a.b", ".a0"]
    assert await names(space, ".a", after=".b") == []
    assert await names(space, "", limit=3) == order[:3]
    paged, after = [], ""
    while page := await names(space, "", after=after, limit=3):
        paged += page
        after = page[-1]
    assert paged == order
    found = await space.store.namespaces(space.name, limit=100)
    assert list(found) == [await space.store.namespace(info.name) for info in found]


async def test_namespaces_that_are_not_to_be_shown_are_passed_over(space: Space) -> None:
    for number in range(250):
        await space.sibling(f"{number:03}").put("a", b"1")
    asked: list[str] = []

    def shown(name: str) -> bool:
        asked.append(name.removeprefix(space.name + "."))
        return name.endswith("9")

    async def listed(limit: int, after: str = "") -> list[str]:
        asked.clear()
        below = space.name + "."
        found = await space.store.namespaces(below, after=after and below + after, limit=limit, shown=shown)
        return [info.name.removeprefix(below) for info in found]

    nines = [f"{number:03}" for number in range(9, 250, 10)]
    assert await listed(1000) == nines
    assert asked == [f"{number:03}" for number in range(250)]  # each is asked once
    assert await listed(2) == nines[:2]
    assert await listed(2, nines[1]) == nines[2:4]
    assert await listed(2, "110") == ["119", "129"]
    assert await listed(2, nines[-1]) == []


async def test_others_have_turns_while_namespaces_are_passed_over(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SECONDS", 0)  # a turn is over after its steps, however fast they were
    for number in range(450):
        await space.sibling(f"{number:03}").put("a", b"1")
    rounds = 0
    seen: set[int] = set()

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    def shown(name: str) -> bool:
        seen.add(rounds)
        return False

    going = asyncio.create_task(others())
    assert await space.store.namespaces(space.name, limit=10, shown=shown) == []
    going.cancel()
    assert len(seen) > 1


async def test_deleted_namespace_is_gone_with_its_history(space: Space) -> None:
    for key in "abc":
        await space.put(key, b"old")
    await space.store.delete_namespace(space.name)
    assert await names(space, "") == []
    with pytest.raises(NamespaceNotFound):
        await space.store.namespace(space.name)
    with pytest.raises(NamespaceNotFound):
        await space.store.compact(space.name)
    with pytest.raises(NamespaceNotFound):
        await space.store.delete_namespace(space.name)
    assert await space.keys() == []
    assert await space.get("a") is None
    assert await space.log() == []
    for revision in (1, 3):
        with pytest.raises(Compacted):
            await space.get("a", revision)
        with pytest.raises(Compacted):
            await space.store.commits(space.name, first=revision, last=9, limit=9)
    assert await space.apply(Delete("a")) is not None
    with pytest.raises(NamespaceNotFound):
        await space.store.namespace(space.name)


async def test_no_revision_is_given_out_twice_after_a_delete(space: Space) -> None:
    seen: set[int] = set()
    for turn in range(3):
        for _ in range(3):
            revision = await space.put("a")
            assert revision not in seen
            assert revision > max(seen, default=0)
            seen.add(revision)
        assert (await space.entry("a"))[3] == 3, "a new namespace begins with new keys"
        before = await space.position()
        info = await space.store.namespace(space.name)
        assert (info.key_count, info.commit_count) == (1, 3)
        await space.store.delete_namespace(space.name)
        # The delete is a step of the clock, so that who has seen all that was before also sees that it is gone.
        after = await space.position()
        assert after.revision == after.floor == before.revision + 1, turn
        seen.add(after.revision)
    assert await space.put("a") == await space.revision() == max(seen) + 1


async def test_times_do_not_go_back_where_a_namespace_is_made_again(space: Space) -> None:
    await space.put("a")
    old = await space.store.namespace(space.name)
    await space.store.delete_namespace(space.name)
    await space.put("a")
    new = await space.store.namespace(space.name)
    assert old.update_time <= new.create_time == new.update_time == (await space.log())[0].time


async def test_namespace_is_deleted_only_at_the_revision_that_is_named(space: Space) -> None:
    await space.put("a")
    await space.put("a")
    for wrong in (0, 1, 3):
        with pytest.raises(Conflict) as refused:
            await space.store.delete_namespace(space.name, wrong)
        assert refused.value.metadata == {"namespace": space.name, "revision": "2"}
    assert await space.keys() == ["a"]
    await space.store.delete_namespace(space.name, 2)
    assert await space.keys() == []
    with pytest.raises(NamespaceNotFound):
        await space.store.delete_namespace(space.name, 3)


async def test_unchanged_since_before_the_delete_of_a_namespace_is_an_error(space: Space) -> None:
    """What was listed before is gone, so a write that relies on it must not pass."""
    seen = await space.put("a/1")
    await space.store.delete_namespace(space.name)
    with pytest.raises(Compacted):
        await space.apply(Put("a/2", b""), conditions=[Condition("a/", Test.UNCHANGED_SINCE, seen, is_prefix=True)])
    assert plain(await space.entries()) == []


async def test_counter_of_a_deleted_namespace_outlives_the_window_of_its_request_ids(open_space: OpenSpace) -> None:
    space = await open_space(Limits(request_window=0.05))
    for _ in range(3):
        await space.put("k")
    await space.store.delete_namespace(space.name)
    other = space.sibling("other")
    began = time.monotonic()

    async def the_window_has_passed() -> bool:
        await other.put("k")
        await other.store.retain(other.name, Retention())
        return time.monotonic() - began > 0.2

    await until(the_window_has_passed)
    assert await space.revision() == 4
    assert await space.put("k") == 5
