"""Who wrote what can be read, and why: known for as long as it can be read, however far the floor has risen."""

from collections.abc import Mapping

import pytest

from comity_server.model import (
    Delete,
    Fork,
    Increment,
    Merge,
    Operation,
    Provenance,
    Put,
    Restore,
    Transaction,
)
from comity_server.record import KEY, MOD_REVISION
from tests.contract.space import Space


async def said(space: Space, author: str, *then: Operation, message: str = "", trace: str = "") -> int:
    return (await space.commit(Transaction(then=then, author=author, message=message, trace_parent=trace))).revision


async def blame(space: Space, revision: int = 0) -> dict[str, str]:
    """Who wrote each key that there is at a revision."""
    entries = await space.entries(revision=revision)
    found = await space.store.provenance(space.name, sorted({entry[MOD_REVISION] for entry in entries}))
    authors = {number: who.author for number, who in found.items()}
    return {entry[KEY]: authors.get(entry[MOD_REVISION], "") for entry in entries}


async def origins(space: Space, *revisions: int) -> Mapping[int, Provenance]:
    return await space.store.provenance(space.name, revisions)


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1 ann puts a and b; 2 bob a; 3 cid c; 4 ann deletes c; 5 nobody puts d; 6 bob deletes b, puts e."""
    await said(space, "ann", Put("a", b"1"), Put("b", b"1"), message="begin", trace="00-1-2-01")
    await said(space, "bob", Put("a", b"2"))
    await said(space, "cid", Put("c", b"3"))
    await said(space, "ann", Delete("c"), message="no c")
    await space.put("d", b"5")
    await said(space, "bob", Delete("b"), Put("e", b"6"), message="é")
    return space


async def test_commits_above_the_floor_say_all_that_was_said(lived: Space) -> None:
    found = await origins(lived, 1, 2, 4, 6)
    assert found == {
        1: Provenance("ann", "begin", "00-1-2-01"),
        2: Provenance("bob", "", ""),
        4: Provenance("ann", "no c", ""),
        6: Provenance("bob", "é", ""),
    }
    assert await origins(lived) == {}
    assert (await origins(lived, 5)).get(5) in (None, Provenance("", "", ""))
    assert await origins(lived, 7, 100) == {}
    assert await origins(lived.sibling("absent"), 1) == {}


async def test_who_wrote_what_is_there_is_known_below_the_floor(lived: Space) -> None:
    await said(lived, "dan", Put("f", b"7"))
    assert await lived.compact() == 7
    assert await blame(lived) == {"a": "bob", "d": "", "e": "bob", "f": "dan"}
    assert await origins(lived, 2, 6) == {2: Provenance("bob", "", ""), 6: Provenance("bob", "é", "")}


async def test_who_wrote_what_is_gone_is_forgotten(lived: Space) -> None:
    await lived.compact()
    assert await origins(lived, 1, 3, 4, 5) == {}
    await said(lived, "eve", Put("a", b"7"))
    await lived.compact()
    assert set(await origins(lived, *range(1, 8))) == {6, 7}
    await lived.delete_prefix("")
    await lived.compact()
    assert await origins(lived, *range(1, 9)) == {}


async def test_commit_is_remembered_until_the_last_entry_that_it_wrote_is_gone(lived: Space) -> None:
    keys = [f"k{number}" for number in range(4)]
    revision = await said(lived, "mia", *(Put(key, b"") for key in keys), message="four")
    for key in keys:
        await lived.compact()
        assert await origins(lived, revision) == {revision: Provenance("mia", "four", "")}
        await lived.put(key, b"later")
    await lived.compact()
    assert await origins(lived, revision) == {}


async def test_who_wrote_what_a_checkpoint_shows_is_known_until_it_is_dropped(lived: Space) -> None:
    expected = {2: {"a": "bob", "b": "ann"}, 3: {"a": "bob", "b": "ann", "c": "cid"}}
    for revision in expected:
        await lived.checkpoint(f"at{revision}", revision)
    await said(lived, "zoe", Put("a", b"7"), Put("b", b"7"), Put("c", b"7"))
    await lived.compact()
    for revision, authors in expected.items():
        assert await blame(lived, revision) == authors
    assert await origins(lived, 1) == {1: Provenance("ann", "begin", "00-1-2-01")}
    await lived.drop("at3")
    await lived.compact()
    assert await blame(lived, 2) == expected[2]
    assert await origins(lived, 3) == {}
    await lived.drop("at2")
    await lived.compact()
    assert await origins(lived, 1, 2, 3) == {}
    assert await blame(lived) == {"a": "zoe", "b": "zoe", "c": "zoe", "d": "", "e": "bob"}


async def test_fork_knows_who_wrote_what_it_began_with(lived: Space) -> None:
    fork = lived.sibling("fork")
    await fork.commit(Fork(parent=lived.name, ref=3, author="fay"))
    assert await blame(fork) == {"a": "bob", "b": "ann", "c": "cid"}
    await said(fork, "gus", Put("a", b"fork"), Put("g", b""))
    await said(lived, "zoe", Put("a", b""), Put("b", b""))
    for space in (lived, fork):
        await space.compact()
    assert await blame(fork) == {"a": "gus", "b": "ann", "c": "cid", "g": "gus"}
    assert await blame(lived) == {"a": "zoe", "b": "zoe", "d": "", "e": "bob"}
    # The same revision is another one's in the parent.
    assert (await origins(fork, 5))[5].author == "gus"
    inner = lived.sibling("inner")
    await inner.commit(Fork(parent=fork.name))
    await lived.store.delete_namespace(lived.name)
    await fork.store.delete_namespace(fork.name)
    assert await blame(inner) == {"a": "gus", "b": "ann", "c": "cid", "g": "gus"}


async def test_who_restores_or_merges_is_who_wrote_what_that_changed(lived: Space) -> None:
    await lived.commit(Restore(ref=3, author="rex"))
    assert await blame(lived) == {"a": "bob", "b": "rex", "c": "rex"}
    fork = lived.sibling("fork")
    await fork.commit(Fork(parent=lived.name, author="fay"))
    await said(fork, "gus", Put("a", b"fork"), Delete("b"), Increment("n", 1))
    await lived.commit(Merge(fork=fork.name, author="max", message="the best"))
    assert await blame(lived) == {"a": "max", "c": "rex", "n": "max"}
    assert await blame(fork) == {"a": "gus", "c": "rex", "n": "gus"}
    await lived.compact()
    assert await blame(lived) == {"a": "max", "c": "rex", "n": "max"}
    assert await origins(lived, 8) == {8: Provenance("max", "the best", "")}


async def test_nothing_is_known_of_a_namespace_that_was_deleted(lived: Space) -> None:
    await lived.compact()
    await lived.store.delete_namespace(lived.name)
    assert await origins(lived, 2, 6) == {}
    await said(lived, "new", Put("a", b""))
    assert await blame(lived) == {"a": "new"}
    assert await origins(lived, 2, 6) == {}


async def test_compaction_in_steps_forgets_and_keeps_the_same_as_at_once(lived: Space) -> None:
    await lived.checkpoint("three", 3)
    for floor in range(1, 7):
        await lived.compact(floor)
        assert await blame(lived) == {"a": "bob", "d": "", "e": "bob"}
        assert await blame(lived, 3) == {"a": "bob", "b": "ann", "c": "cid"}
    assert set(await origins(lived, *range(1, 7))) == {1, 2, 3, 6}
