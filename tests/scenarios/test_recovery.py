"""What a checkpoint brings back, and what an exception leaves behind: all of it, or nothing."""

import time
from collections.abc import Callable

import pytest

from comity import Client, Entry, Transaction

Record = Callable[[str, object], None]


async def states(client: Client, prefix: str) -> dict[str, object]:
    return {entry.key: entry.value for entry in await client.list(prefix).all()}


async def test_ten_corrupted_states_are_back_from_a_checkpoint(world: Client, record_property: Record) -> None:
    for number in range(10):
        await world.put(f"agents/{number}", {"step": number, "notes": ["n"] * 50})
    await world.put("outside", "before")
    before = await states(world, "agents/")
    mark = await world.checkpoint("good")
    for number in range(0, 10, 2):
        await world.put(f"agents/{number}", b"\x00\xff garbage", content_type="application/octet-stream")
    for number in range(1, 10, 4):
        await world.delete(f"agents/{number}")
    await world.put("agents/stray", "half a state")
    await world.put("outside", "after")

    start = time.monotonic()
    restored = await world.restore(mark, prefix="agents/")
    record_property("seconds", time.monotonic() - start)

    assert await states(world, "agents/") == before
    assert (restored.put, restored.deleted) == (8, 1)
    assert await states(world, "outside") == {"outside": "after"}


async def test_a_checkpoint_of_20_states_all_changed_all_restored(world: Client) -> None:
    for number in range(20):
        await world.put(f"state/{number:02}", number)
    mark = await world.checkpoint("twenty", message="before the experiment")
    for number in range(20):
        await world.put(f"state/{number:02}", -number - 1)
    assert set((await states(world, "state/")).values()) == {-number - 1 for number in range(20)}
    changed = await world.diff(mark, prefix="state/").all()
    assert len(changed) == 20
    restored = await world.restore(mark)
    assert (restored.put, restored.deleted) == (20, 0)
    assert await states(world, "state/") == {f"state/{number:02}": number for number in range(20)}
    entries: list[Entry] = await world.list("state/").all()
    assert {entry.version for entry in entries} == {3}  # a restore is a write like any other
    assert {entry.mod_revision for entry in entries} == {restored.revision}


async def test_a_transaction_is_rolled_back_as_a_whole_by_an_exception(world: Client) -> None:
    await world.put("a", 1)
    await world.put("b", 1)

    class Failed(Exception):
        pass

    async def half(tx: Transaction) -> None:
        one = await tx.get("a")
        assert one is not None
        tx.put("a", one.value + 1)
        tx.delete("b")
        tx.increment("n", 5)
        tx.put("c", "new")
        assert [entry.key for entry in await tx.list("")] == ["a", "c", "n"]  # as the transaction sees it
        raise Failed

    with pytest.raises(Failed):
        await world.transact(half)
    assert await states(world, "") == {"a": 1, "b": 1}
    assert (await world.namespace_info()).revision == 2
