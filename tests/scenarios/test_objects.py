"""Many objects of 1 KB: every one is there, half of them go, and what they took up comes back."""

import asyncio
import os

import pytest

from comity import Client, Delete, Put

SOAK = bool(os.environ.get("COMITY_SOAK"))


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 256


async def fill(world: Client, count: int) -> None:
    """By transactions of a hundred, some at a time."""

    async def some(start: int) -> None:
        await world.transact(then=[Put(f"objects/{n:06}", content(n)) for n in range(start, start + 100)])

    for start in range(0, count, 1000):
        await asyncio.gather(*(some(first) for first in range(start, start + 1000, 100)))


async def check(world: Client, present: range) -> None:
    """Every one of them is there, as it was written, and no other."""
    expected = iter(present)
    async for entry in world.list("objects/"):
        number = next(expected)
        assert entry.key == f"objects/{number:06}"
        assert entry.data == content(number)
    assert next(expected, None) is None


async def drop_half(world: Client, count: int) -> None:
    for start in range(0, count, 1000):
        await world.transact(then=[Delete(f"objects/{number:06}") for number in range(start, start + 1000, 2)])


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.soak)])
async def test_objects_are_all_present_and_half_of_them_go(world: Client, count: int) -> None:
    if count > 5_000 and not SOAK:
        pytest.skip("only in `make soak`")
    await fill(world, count)
    full = await world.namespace_info()
    assert full.key_count == count
    await check(world, range(count))

    await drop_half(world, count)
    await check(world, range(1, count, 2))
    await world.compact()
    half = await world.namespace_info()
    assert half.key_count == count // 2
    assert half.size_bytes * 2 == full.size_bytes
    assert half.history_size_bytes < full.size_bytes // 100  # what was deleted is nowhere any more
    for number in range(0, count, 2 * count // 100):  # what is gone may come again
        await world.put(f"objects/{number:06}", content(number), if_version=0)
