"""What a listener hears: every commit after the position that it was given, in order, none left out, none twice."""

import asyncio
from collections.abc import Sequence

from comity_server.model import Commit, Delete, Put, Read, Transaction
from tests.contract.space import Space, plain
from tests.waiting import until


class Heard:
    """A listener that keeps what it hears. A reset empties it."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.resets = 0

    def publish(self, commits: Sequence[Commit]) -> None:
        self.commits += commits

    def reset(self) -> None:
        self.resets += 1
        self.commits = []

    async def hears(self, count: int) -> list[Commit]:
        await until(lambda: len(self.commits) >= count, seconds=10)
        assert len(self.commits) == count
        return self.commits


async def test_listener_hears_every_commit_after_its_position_as_the_log_has_it(space: Space) -> None:
    await space.put("before")
    heard = Heard()
    position = await space.store.follow(space.name, heard)
    assert position == await space.position()
    await space.put("a", b"1", "text/plain")
    await space.group(
        Transaction(then=[Put("a", b"2"), Put("b", b"2")], author="me"),
        Transaction(then=[Delete("absent")]),
        Transaction(then=[Delete("a")]),
    )
    await space.delete_prefix("")
    commits = await heard.hears(4)
    assert [commit.revision for commit in commits] == [2, 3, 4, 5]
    assert plain(commits) == plain((await space.log())[1:])
    await space.store.unfollow(space.name)


async def test_listener_may_come_before_the_namespace(space: Space) -> None:
    heard = Heard()
    position = await space.store.follow(space.name, heard)
    assert (position.revision, position.floor) == (0, 0)
    await space.put("a")
    assert [commit.revision for commit in await heard.hears(1)] == [1]
    await space.store.unfollow(space.name)


async def test_commit_is_readable_when_it_is_heard_of(space: Space) -> None:
    class Reader(Heard):
        def publish(self, commits: Sequence[Commit]) -> None:
            super().publish(commits)
            reads.extend(asyncio.create_task(space.store.get(space.name, "a", commit.revision)) for commit in commits)

    reads: list[asyncio.Task[Read]] = []
    heard = Reader()
    await space.store.follow(space.name, heard)
    for turn in range(10):
        await space.put("a", str(turn).encode())
    await heard.hears(10)
    epoch = (await space.position()).epoch
    read = [Read(commit.events[0].entry, commit.revision, epoch) for commit in heard.commits]
    assert await asyncio.gather(*reads) == read
    await space.store.unfollow(space.name)


async def test_position_and_first_commit_fit_while_writes_go_on(space: Space) -> None:
    """However following and writing meet: what was there by the position and what is heard make up the whole log."""
    enough = asyncio.Event()

    async def write() -> int:
        written = 0
        while not enough.is_set():
            await space.put("a", str(written).encode())
            written += 1
            await asyncio.sleep(0)
        return written

    writer = asyncio.create_task(write())
    for turn in range(20):
        heard = Heard()
        position = await space.store.follow(space.name, heard)
        await until(lambda heard=heard, turn=turn: len(heard.commits) > turn, seconds=10)  # type: ignore[misc]
        await space.store.unfollow(space.name)
        revisions = [commit.revision for commit in heard.commits]
        assert revisions == list(range(position.revision + 1, position.revision + 1 + len(revisions)))
    enough.set()
    written = await writer
    heard = Heard()
    assert (await space.store.follow(space.name, heard)).revision == written
    await space.put("last")
    assert [commit.revision for commit in await heard.hears(1)] == [written + 1]
    await space.store.unfollow(space.name)


async def test_listener_hears_nothing_after_it_is_taken_away(space: Space) -> None:
    heard, later = Heard(), Heard()
    await space.store.follow(space.name, heard)
    await space.put("a")
    await heard.hears(1)
    await space.store.unfollow(space.name)
    await space.put("a")
    position = await space.store.follow(space.name, later)
    assert position.revision == 2
    await space.put("a")
    assert [commit.revision for commit in await later.hears(1)] == [3]
    assert [commit.revision for commit in heard.commits] == [1]
    await space.store.unfollow(space.name)
    await space.store.unfollow(space.name)  # nothing to stop is no error
    await space.store.unfollow(space.sibling("absent").name)


async def test_listener_hears_of_its_namespace_only(space: Space) -> None:
    one, two = Heard(), Heard()
    other = space.sibling("other")
    await space.store.follow(space.name, one)
    await other.store.follow(other.name, two)
    await space.put("a")
    await other.put("b")
    await other.put("b")
    await other.store.delete_namespace(other.name)
    await until(lambda: two.resets > 0, seconds=10)
    assert [commit.events[0].entry[0] for commit in await one.hears(1)] == ["a"]
    assert one.resets == 0
    await space.store.unfollow(space.name)
    await other.store.unfollow(other.name)


async def test_listener_hears_that_the_namespace_was_deleted_and_then_what_is_new(space: Space) -> None:
    heard = Heard()
    await space.store.follow(space.name, heard)
    await space.put("a")
    await heard.hears(1)
    await space.store.delete_namespace(space.name)
    await until(lambda: heard.resets > 0, seconds=10)
    assert heard.resets == 1
    assert heard.commits == []
    revision = await space.put("a")
    assert [commit.revision for commit in await heard.hears(1)] == [revision]
    await space.store.unfollow(space.name)


async def test_compaction_is_nothing_that_a_listener_hears_of(space: Space) -> None:
    heard = Heard()
    await space.store.follow(space.name, heard)
    await space.put("a")
    await space.store.compact(space.name)
    await space.put("a")
    assert [commit.revision for commit in await heard.hears(2)] == [1, 2]
    assert heard.resets == 0
    await space.store.unfollow(space.name)
