"""Who wrote each key last, and the traceparent that a program says with its writes."""

import pytest

import comity
from comity import Client
from tests.servers import Server

TRACES = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 4)]


async def test_who_wrote_each_key_last(state: Client) -> None:
    await state.put("p/a", 1, message="first")
    await state.with_options(author="bob").put("p/a", 2, message="second")
    put = await state.with_options(author="").put("p/b", 1)
    await state.put("q", 1, message="another")
    listing = state.blame("p/")
    with pytest.raises(RuntimeError):
        assert listing.revision
    first, second = await listing.all()
    assert (first.entry.key, first.entry.version, first.author, first.message) == ("p/a", 2, "bob", "second")
    assert (first.entry.mod_revision, first.entry.data) == (2, b"")
    assert (second.entry.key, second.author, second.message, second.trace_parent) == ("p/b", "", "", "")
    assert second.entry.mod_revision == put.revision
    assert listing.revision == put.revision + 1
    (then,) = await state.blame("p/", revision=1).all()
    assert (then.author, then.message) == ("ann", "first")
    assert await state.blame("none/").all() == []


async def test_the_pages_of_a_blame_stay_at_their_revision(state: Client) -> None:
    for number in range(5):
        await state.put(f"k{number}", number, message=str(number))
    listing = state.blame(page_size=2)
    messages: list[str] = []
    async for page in listing.pages():
        assert len(page) <= 2
        messages += [found.message for found in page]
        await state.put("k4", "later", message="later")
    assert messages == list("01234")
    assert listing.revision == 5


async def test_blame_knows_what_the_history_has_no_more(state: Client) -> None:
    await state.put("old", 1, message="long ago")
    for number in range(3):
        await state.put("new", number)
    await state.compact()
    assert [commit.revision async for commit in state.history()] == []
    found = {each.entry.key: each.message async for each in state.blame()}
    assert found == {"old": "long ago", "new": ""}
    with pytest.raises(comity.Compacted):
        await state.blame(revision=1).all()


async def test_each_write_says_its_traceparent(server: Server, namespace: str) -> None:
    said = iter([*TRACES, None])
    async with comity.connect(server.address, namespace=namespace, trace_parent=lambda: next(said)) as state:
        await state.put("a", 1)
        assert await state.get("a") is not None  # a read does not ask
        await state.with_options(author="bob").transact(lambda tx: tx.increment("n"))
        await state.delete("a")
        await state.put("b", 1)
        commits = await state.history(newest_first=False).all()
    assert [commit.trace_parent for commit in commits] == [*TRACES, ""]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "abc",
        TRACES[0].upper().replace("1", "A"),
        TRACES[0] + "-more",
        TRACES[0] + "\n",
        "ff" + TRACES[0][2:],
        f"00-{0:032x}-{1:016x}-01",
        f"00-{1:032x}-{0:016x}-01",
    ],
)
async def test_what_is_no_traceparent_is_not_sent(server: Server, namespace: str, wrong: str) -> None:
    async with comity.connect(server.address, namespace=namespace, trace_parent=lambda: wrong) as state:
        with pytest.raises(ValueError, match="traceparent"):
            await state.put("a", 1)
        assert await state.get("a") is None
