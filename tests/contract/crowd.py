"""Many tasks that do everything at once to a few namespaces, and what must hold of these afterwards."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from comity_server.errors import StateError
from comity_server.model import Fork, NamespaceInfo, Put, Strategy
from comity_server.record import KEY, Record, size
from tests.contract.space import Space, plain

KEYS = 2_600
STEPS = ["put", "put", "many", "prefix", "mark", "drop", "restore", "fork", "merge", "delete", "compact"]


async def crowd(spaces: Sequence[Space], *, tasks: int, steps: int, seed: int) -> None:
    """What is refused is refused; anything else that is raised is a defect."""
    await asyncio.gather(*(_one(spaces, random.Random(seed * 1000 + task), steps) for task in range(tasks)))


async def _one(spaces: Sequence[Space], dice: random.Random, steps: int) -> None:
    for _ in range(steps):
        with suppress(StateError):
            await _step(dice.choice(spaces), dice.choice(spaces), dice)
        await asyncio.sleep(0)  # a store in memory may answer without a pause


async def _step(space: Space, other: Space, dice: random.Random) -> None:
    mark = f"c{dice.randrange(8)}"
    back = max(0, await space.revision() - dice.randrange(5))
    match dice.choice(
        ["put", "put", "many", "prefix", "mark", "drop", "restore", "fork", "merge", "delete", "compact"]
    ):
        case "put":
            await space.put(f"k{dice.randrange(KEYS):04}", bytes(dice.randrange(50)))
        case "many":  # more than a store would apply in one go
            keys = range(dice.randrange(500), KEYS, dice.randrange(1, 9))
            await space.apply(*(Put(f"k{number:04}", b"%d" % dice.randrange(3)) for number in keys))
        case "prefix":
            await space.delete_prefix(f"k{dice.randrange(30)}")
        case "mark":
            await space.checkpoint(mark, back)
        case "drop":
            await space.drop(mark)
        case "restore":
            await space.restore(mark if dice.random() < 0.5 else back)
        case "fork":
            await space.commit(Fork(parent=other.name))
        case "merge":
            await space.merge(other, Strategy.THEIRS)
        case "delete" if dice.random() < 0.3:
            await space.store.delete_namespace(space.name)
        case "compact":
            await space.compact(back)


async def all_of(space: Space) -> dict[str, object]:
    """All that a namespace holds; what it says of itself must fit together."""
    info = await space.info()
    entries = await space.entries()
    assert (info.key_count, info.size_bytes) == _figures(entries)
    log = await space.log()
    assert [commit.revision for commit in log] == list(range(info.floor + 1, info.revision + 1))
    state = {entry[KEY]: entry for entry in await space.entries(revision=info.floor)} if info.floor else {}
    for commit in log:
        for event in commit.events:
            assert event.previous == state.pop(event.entry[KEY], None)
            if not event.is_delete:
                state[event.entry[KEY]] = event.entry
    assert [state[key] for key in sorted(state)] == entries, "the log leads from the floor to what there is"
    marks = await space.store.checkpoints(space.name, {}, limit=100)
    for mark in marks:
        assert (mark.key_count, mark.size_bytes) == _figures(await space.entries(revision=mark.revision))
    return {"info": info, "entries": entries, "log": plain(log), "checkpoints": plain(marks)}


async def clear(spaces: Sequence[Space]) -> list[NamespaceInfo]:
    """Drop every checkpoint and every fork, and forget all that can be forgotten: what is left."""
    there = []
    for space in spaces:
        try:
            info = await space.info()
        except StateError:
            continue
        for mark in await space.store.checkpoints(space.name, {}, limit=100):
            await space.drop(mark.name)
        if info.parent:
            await space.store.delete_namespace(space.name)
        else:
            there.append(space)
    for space in there:
        await space.settled()
    return [await space.info() for space in there]


def _figures(entries: Sequence[Record]) -> tuple[int, int]:
    return len(entries), sum(map(size, entries))
