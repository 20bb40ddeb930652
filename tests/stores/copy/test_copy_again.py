"""A target that has something already: a second copy brings what has come since, and replaces nothing unasked."""

import pytest

from comity_server.errors import NotAFork
from comity_server.limits import Retention
from comity_server.model import Fork, MakeCheckpoint, Put, RequestId, Strategy
from comity_server.stores.copy.copying import Choice
from tests.contract.crowd import all_of
from tests.stores.copy.copies import copied, family, made_equal, opened, placeless


async def test_a_second_copy_brings_what_has_come_since(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        await one.space("same").put("a")
    await made_equal(source, target)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(3):
            await space.apply(
                Put("a", b"%d" % turn),
                Put("since", b""),
                Put("big", bytes(1_200_000)),
                request_id=RequestId("ann", 3 + turn),
            )
            await space.delete("since")
        await space.checkpoint("since")
        await space.commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 1)))
        await space.drop("named")
        await space.commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 2)))
        await space.sibling("new").commit(Fork(parent="f", ref="since"))
        await space.sibling("old").commit(Fork(parent="f", ref=2))
        await space.sibling("held").commit(Fork(parent="f", ref=4))
        await space.sibling("inner").put("i", b"2")
        await space.sibling("late").put("a")
        await space.compact(5)
    assert await made_equal(source, target) == {
        "f": "continued",
        "f.gone": "counted",
        "f.held": "copied",
        "f.inner": "continued",
        "f.inner.more": "there",
        "f.late": "copied",
        "f.new": "copied",
        "f.old": "copied",
        "f.one": "there",
        "f.two": "there",
        "same": "there",
    }
    assert set((await made_equal(source, target)).values()) == {"there", "counted"}
    async with opened(source) as one, opened(target) as other:
        for info in await one.store.namespaces("", limit=100):
            there, here = await all_of(one.space(info.name)), await all_of(other.space(info.name))
            for what, was in there.items():
                assert placeless(here[what]) == placeless(was), (info.name, what)
        again = await other.space("f").commit(MakeCheckpoint(name="named", request_id=RequestId("bob", 2)))
        assert again.results
        await other.space("f").merge(other.space("f.new"))
        await other.space("f").merge(other.space("f.old"), Strategy.OURS)


async def test_others_at_the_target_are_left_alone(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        for name in ("other", "ahead", "compacted", "marked", "gone", "changed", "fine"):
            await one.space(name).apply(Put("a", b"1"))
            await one.space(name).apply(Put("a", b"2"))
        await other.space("own").put("a")
        await other.space("other").put("a")
        await one.store.delete_namespace("gone")
        await other.space("gone").put("a")
    names = Choice(["ahead", "compacted", "marked", "changed"])
    assert {result.ending for result in (await copied(source, target, names)).values()} == {"copied"}
    async with opened(source) as one, opened(target) as other:
        await other.space("ahead").put("a")
        await other.space("compacted").compact()
        await other.space("marked").checkpoint("own")
        await one.space("changed").put("a", b"at the source")
        await other.space("changed").put("a", b"at the target")
        before = {info.name: await all_of(other.space(info.name)) for info in await other.store.namespaces("", limit=9)}
    results = await copied(source, target)
    assert results["fine"].ending == "copied"
    others = {name: result.reason for name, result in results.items() if not result.is_equal}
    assert {results[name].ending for name in others} == {"conflict"}
    assert others == {
        "ahead": "it is at revision 3, and the source at 2",
        "changed": "'a' differs at revision 3",
        "compacted": "it was compacted up to revision 2, and at the source up to 0",
        "gone": "it is deleted at the source, and is there",
        "marked": "it has the checkpoint own, and the source has none of that name",
        "other": "another namespace has this name",
    }
    async with opened(target) as other:
        for name, held in before.items():
            after = await all_of(other.space(name))
            assert {what: placeless(part) for what, part in after.items()} == {
                what: placeless(part) for what, part in held.items()
            }
        epoch = (await other.space("ahead").position()).epoch
    endings = await made_equal(source, target, overwrite=True)
    assert endings == dict.fromkeys(others, "replaced") | {"fine": "there"}
    async with opened(target) as other:
        assert (await other.space("ahead").position()).epoch != epoch
        assert await other.space("own").keys() == ["a"]
        assert (await other.space("gone").position()).revision == 3
    assert set((await made_equal(source, target)).values()) == {"there", "counted"}


async def test_forks_of_what_is_replaced(pair: tuple[str, str]) -> None:
    """Those that come with it are forks of it; others share what was there."""
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        await other.space("f").put("a", b"own")
        await other.space("own").commit(Fork(parent="f"))
    results = await copied(source, target)
    assert {name for name, result in results.items() if not result.is_equal} == {"f"}
    endings = await made_equal(source, target, overwrite=True)
    assert {name for name, ending in endings.items() if ending == "replaced"} == {*results} - {"f.gone"}
    async with opened(target) as other:
        assert (await other.space("own").contents())["a"] == b"own"
        with pytest.raises(NotAFork):
            await other.space("f").merge(other.space("own"))
        await other.space("f").merge(other.space("f.one"), Strategy.THEIRS)
        assert (await other.space("f").contents())["a"] == b"one"


async def test_a_fork_of_a_deleted_fork_of_what_is_replaced_comes_anew(pair: tuple[str, str]) -> None:
    """So that what comes keeps what that shares, as the source does."""
    source, target = pair
    async with opened(source) as one:
        space = one.space("a")
        for number in range(3):
            await space.put("k", b"%d" % number)
        await space.checkpoint("mark")
        await one.space("d").commit(Fork(parent="a", ref=1))
        await one.space("b").commit(Fork(parent="d"))
        await one.store.delete_namespace("d")
        await space.compact()
    await made_equal(source, target)
    async with opened(source) as one:
        await one.space("a").drop("mark")
        expected = await one.space("a").contents(1)
    endings = await made_equal(source, target, overwrite=True)
    assert endings == {"a": "replaced", "b": "replaced", "d": "counted"}
    async with opened(target) as other:
        assert await other.space("a").contents(1) == expected == {"k": b"0"}
        assert await other.space("b").contents() == expected


async def test_a_fork_that_is_replaced_finds_what_it_shares(pair: tuple[str, str]) -> None:
    """Although nothing but the one in its place kept it."""
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        for name in ("f.one", "f.inner"):
            await other.space(name).put("own")
    endings = await made_equal(source, target, overwrite=True)
    assert {name for name, ending in endings.items() if ending == "replaced"} == {"f.one", "f.inner"}
    async with opened(target) as other:
        assert (await other.space("f.one").contents())["a"] == b"one"
        assert (await other.space("f.inner").contents())["g"] == b"1"
        assert await other.store.retain("f", Retention()) == 4
        assert (await other.space("f.one").get("k0")) is not None
        await other.space("f").merge(other.space("f.one"), Strategy.THEIRS)


async def test_a_fork_of_what_the_target_has_forgotten_waits_for_leave(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    results = await copied(source, target, Choice(["f.two"]))
    assert {name: result.ending for name, result in results.items()} == {"f": "copied", "f.two": "copied"}
    async with opened(target) as other:
        await other.space("f").compact()  # so that nothing keeps what only the other fork shares
    results = await copied(source, target)
    assert results["f.one"].reason == "what it shares with f, as of revision 1, is not there (any more)"
    assert (results["f.one"].ending, results["f.two"].ending) == ("conflict", "there")
    endings = await made_equal(source, target, overwrite=True)
    assert (endings["f"], endings["f.one"], endings["f.two"]) == ("replaced", "copied", "replaced")
