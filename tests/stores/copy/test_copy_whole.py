"""All of a namespace is at the target, field by field, and what is done there goes on from it."""

import pytest

from comity_server.errors import NotAFork, RequestIdForgotten
from comity_server.limits import Limits
from comity_server.model import Fork, Increment, Put, RequestId, Strategy, Transaction
from comity_server.record import MOD_REVISION
from comity_server.stores.copy.comparing import compare
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.url import open_store
from tests.contract.crowd import all_of, clear, crowd
from tests.contract.space import Space, plain
from tests.redis_servers import RedisServer
from tests.stores.copy.copies import (
    KINDS,
    Urls,
    all_placeless,
    ends_open,
    family,
    made_equal,
    opened,
    placeless,
    reading,
)
from tests.stores.everything import WRITES, everything, live, request


@pytest.mark.parametrize("seed", range(2))
async def test_everything_is_there_field_by_field(pair: tuple[str, str], seed: int) -> None:
    source, target = pair
    async with opened(source) as one:
        await live(one)
        for number, write in enumerate(WRITES, 1):
            where, sent = write(request(number))
            await one.space(where).commit(sent)
        await family(one.space("family"))
        await crowd([one.space(name) for name in "uvwxyz"], tasks=6, steps=20, seed=seed)
    assert "copied" in (await made_equal(source, target)).values()
    async with opened(source) as one, opened(target) as other:
        before, after = all_placeless(await everything(one)), all_placeless(await everything(other))
        assert after.keys() == before.keys()
        for what, held in before.items():
            assert after[what] == held, what
        for info in await one.store.namespaces("", limit=100):
            there, here = await all_of(one.space(info.name)), await all_of(other.space(info.name))
            for what, was in there.items():
                assert placeless(here[what]) == placeless(was), (info.name, what)
    assert set((await made_equal(source, target)).values()) <= {"there", "counted"}


async def test_what_is_done_after_a_copy_is_as_if_there_had_been_none(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await live(one)
        await family(one.space("family"))
    await made_equal(source, target)
    held = []
    for url in pair:
        async with opened(url) as one:
            space, plainly, inner = one.space("family"), one.space("plain"), one.space("inner")
            await space.merge(space.sibling("one"), Strategy.THEIRS)
            await space.merge(space.sibling("two"), Strategy.OURS)
            with pytest.raises(NotAFork):
                await space.merge(space.sibling("inner"))
            await space.sibling("inner").restore(5)
            await plainly.drop("early")
            await plainly.apply(Put("large", b""), Increment("n", 1))
            await plainly.restore(8)
            await inner.fork(".more", 4)
            await one.space("gone").put("a")
            await one.store.delete_namespace("family")
            await space.put("a", b"again")
            spaces = [one.space(info.name) for info in await one.store.namespaces("", limit=100)]
            entries = {each.name: timeless(await each.entries()) for each in spaces}
            figures = {each.name: (await each.info())[1:5] for each in spaces}
            logs = {each.name: timeless(await each.log()) for each in spaces}
            assert all(info.history_size_bytes == 0 for info in await clear(spaces))
        held.append((entries, figures, logs))
    assert held[1] == held[0]


def timeless(thing: object) -> object:
    return plain(thing, times=False)


async def test_forks_stay_forks_of_what_may_be_deleted(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
    await made_equal(source, target)
    async with opened(target) as other:
        infos = {info.name: (info.parent, info.fork_revision) for info in await other.store.namespaces("", limit=100)}
        assert infos == {
            "f": ("", 0),
            "f.one": ("f", 1),
            "f.two": ("f", 2),
            "f.inner": ("f.gone", 5),
            "f.inner.more": ("f.gone", 4),
        }
        await other.store.delete_namespace("f")
        assert (await other.space("f.one").contents())["a"] == b"one"
        assert (await other.space("f.inner").contents())["a"] == b"2"


async def test_a_namespace_begins_anew_above_its_old_revisions(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        for turn in range(5):
            await one.space("once").apply(Put("a", b""), request_id=RequestId("ann", turn))
            await one.space("more").put("a")
        await one.store.delete_namespace("once")
        await one.store.delete_namespace("more")
        for _ in range(9):
            await other.space("more").put("a")
        await other.store.delete_namespace("more")
    assert await made_equal(source, target) == {"once": "counted", "more": "counted"}
    async with opened(target) as other:
        assert [(await other.space(name).position())[:2] for name in ("once", "more")] == [(6, 6), (10, 10)]
        repeated = await other.space("once").apply(Put("a", b""), request_id=RequestId("ann", 4))
        assert (repeated.revision, await other.space("once").keys()) == (5, [])
        assert await other.space("once").put("a") == 7


async def test_names_that_go_round_are_copied(pair: tuple[str, str]) -> None:
    """A fork has the name of what that was forked from which it is a fork of."""
    source, target = pair
    async with opened(source) as one:
        await one.space("a").put("k", b"old")
        await one.space("d").commit(Fork(parent="a"))
        await one.store.delete_namespace("a")
        await one.space("a").commit(Fork(parent="d"))
        await one.space("a").put("own")
    assert set((await made_equal(source, target)).values()) == {"copied"}
    async with opened(target) as other:
        assert await other.space("d").contents() == {"k": b"old"}
        assert await other.space("a").contents() == {"k": b"old", "own": b"v"}
        await other.space("d").merge(other.space("a"))


async def test_a_repeat_after_the_move_is_not_applied_again(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        sent = [write(request(number)) for number, write in enumerate(WRITES, 1)]
        first = [await one.space(where).commit(write) for where, write in sent]
        await one.space("r").apply(Put("w", b""), request_id=RequestId("ann", 7, 6))
        before = [(await one.space(name).position()).revision for name in ("r", "r.fork")]
        await one.space("r").compact()
    await made_equal(source, target)
    async with opened(target) as other:
        for (where, write), outcome in zip(sent, first, strict=True):
            assert plain(await other.space(where).commit(write)) == plain(outcome), write
        with pytest.raises(RequestIdForgotten):
            await other.space("r").apply(Put("w", b""), request_id=RequestId("ann", 5))
        assert [(await other.space(name).position()).revision for name in ("r", "r.fork")] == before


async def test_what_clients_do_not_await_is_refused_at_the_target_too(pair: tuple[str, str]) -> None:
    """Of a client that never says what it awaits the lowest go, where there are too many."""
    source, target = pair
    few = open_store(source, Limits(request_outcomes=5))
    await few.open()
    for sequence in range(1, 31):
        await Space(few, "r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
    await few.close()
    await made_equal(source, target)
    few = open_store(source, Limits(request_outcomes=5))
    await few.open()
    for sequence in range(31, 61):
        await Space(few, "r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
    await few.close()
    assert await made_equal(source, target) == {"r": "continued"}
    async with opened(target) as other:
        for sequence in range(1, 61):
            try:
                again = await other.space("r").apply(Increment("n", 1), request_id=RequestId("ann", sequence))
            except RequestIdForgotten:
                assert sequence < 56
            else:
                assert again.revision == sequence
        assert await other.space("r").revision() == 60


async def test_a_watch_that_goes_on_at_the_target_is_told(pair: tuple[str, str]) -> None:
    """The source may go on, and give out the same revisions for something else."""
    source, target = pair
    async with opened(source) as one, opened(target) as other:
        await one.space("r").put("a")
        await other.space("other").put("a")
        epochs = {(await each.space("r").position()).epoch for each in (one, other)}
    await made_equal(source, target)
    async with opened(target) as other:
        epoch = (await other.space("r").position()).epoch
        assert epoch not in epochs
    async with opened(source) as one:
        await one.space("r").put("a")
    assert await made_equal(source, target) == {"r": "continued"}
    async with opened(target) as other:  # a history that goes on as it did is the same
        assert (await other.space("r").position()).epoch == epoch


@pytest.mark.parametrize("kind", KINDS)
async def test_what_compaction_has_not_seen_to_yet_is_copied_too(
    urls: Urls, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a namespace whose floor was raised, and nothing was dropped."""
    source, target = urls.new("redis"), urls.new(kind)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(9):
            author = Transaction(then=[Put("a", b"%d" % turn), Put(f"k{turn % 4}", b"")], author=f"author {turn}")
            await space.commit(author)
        await space.delete("k1")
        await space.sibling("fork").commit(Fork(parent="f", ref=3))
        with monkeypatch.context() as patch:
            patch.setattr(Namespace, "collect", lambda self: None)
            await space.compact(7)
            await made_equal(source, target)
        before = await all_of(space)
        said = await one.store.provenance("f", range(1, 11))
    async with opened(target) as other:
        after = await all_of(other.space("f"))
        for what, was in before.items():
            assert placeless(after[what]) == placeless(was), what
        await other.space("f").compact(7)
        found = await other.store.provenance("f", range(1, 11))
        written = {entry[MOD_REVISION] for entry in await other.space("f").entries(revision=7)}
        assert all(found[revision] == said[revision] for revision in written)
        assert (await other.space("f.fork").contents())["a"] == b"2"
        await clear([other.space("f.fork"), other.space("f")])
        assert await other.space("f").history_bytes() == 0


async def test_what_is_beyond_the_limits_is_copied(pair: tuple[str, str]) -> None:
    source, target = pair
    limits = Limits(fork_depth=80, value_bytes=1 << 24)
    store = open_store(source, limits)
    await store.open()
    await Space(store, "f0").put("a", bytes(3_000_000))
    for depth in range(1, 68):
        await Space(store, f"f{depth}").commit(Fork(parent=f"f{depth - 1}"))
        await Space(store, f"f{depth}").put("b", b"%d" % depth)
    await store.close()
    await made_equal(source, target)
    async with opened(target) as other:
        last = other.space("f67")
        assert await last.contents() == {"a": bytes(3_000_000), "b": b"67"}
        assert (await last.info()).parent == "f66"


async def test_a_difference_at_the_target_is_found(pair: tuple[str, str], redis_server: RedisServer) -> None:
    """The comparison would be of no use if nothing failed it."""
    source, target = pair
    async with opened(source) as one:
        await one.space("f").commit(Transaction(then=[Put("a", b"1")], author="ann"))
        await one.space("f").checkpoint("first")
        await one.space("f").put("a", b"2")
        await one.space("f").apply(Put("a", b"3"), request_id=RequestId("ann", 1))
    await made_equal(source, target)
    for lie in ("a", "author", "checkpoint", "outcome"):
        async with reading(source) as reader:
            loaded = await reader.load(["f"])
            state = loaded.store.state("f")
            match lie:
                case "a":
                    state.versions._older["a"][0] = ("a", b"x", *state.versions._older["a"][0][2:])
                case "author":
                    state.log._commits[0] = (*state.log._commits[0][:2], "bob", *state.log._commits[0][3:])
                case "checkpoint":
                    state.checkpoints["first"] = state.checkpoints["first"]._replace(message="x")
                case "outcome":
                    client = state.requests._clients["ann"]
                    client.outcomes[1] = client.outcomes[1]._replace(fingerprint=0)
            async with ends_open(target) as there:
                found = await compare(loaded.store, there, "f")
                assert not found.is_equal, lie
