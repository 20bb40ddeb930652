"""Many objects of 1 KB: every one is there, half of them go, and what they took up comes back."""

import asyncio
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import pytest

from comity import Client, Delete, Put
from tests.memory import MIB, memory
from tests.redis_servers import RedisServer
from tests.scenarios.places import KINDS, Place, place

Record = Callable[[str, object], None]

SOME: Final = 100
NOISE: Final = 8 * MIB  # by which a server may grow whatever is in it


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Place]:
    """A server that no other scenario uses: its memory is measured."""
    with place(request.param, redis_server) as made:
        yield made


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 256


async def fill(world: Client, numbers: Sequence[int]) -> None:
    """By transactions of a hundred, some at a time."""

    async def some(part: Sequence[int]) -> None:
        await world.transact(then=[Put(f"objects/{number:06}", content(number)) for number in part])

    parts = [numbers[start : start + SOME] for start in range(0, len(numbers), SOME)]
    for start in range(0, len(parts), 10):
        await asyncio.gather(*map(some, parts[start : start + 10]))


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


async def median_seconds(world: Client, numbers: Iterable[int]) -> float:
    """Of puts, one after another."""
    seconds = []
    for number in numbers:
        start = time.perf_counter()
        await world.put(f"objects/{number:06}", content(number), if_version=0)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_objects_are_all_present_and_half_of_them_go(
    shared: Place, world: Client, count: int, record_property: Record
) -> None:
    rss = {"before": memory(shared.server)}
    first = await median_seconds(world, range(SOME))
    await fill(world, range(SOME, count - SOME))
    last = await median_seconds(world, range(count - SOME, count))
    full = await world.namespace_info()
    assert full.key_count == count
    await check(world, range(count))
    await world.compact()
    rss["full"] = memory(shared.server)

    await drop_half(world, count)
    await check(world, range(1, count, 2))
    await world.compact()
    rss["half deleted"] = memory(shared.server)
    half = await world.namespace_info()
    assert half.key_count == count // 2
    assert half.size_bytes * 2 == full.size_bytes
    assert half.history_size_bytes < full.size_bytes // 100  # what was deleted is nowhere any more

    await fill(world, range(0, count, 2))
    await check(world, range(count))
    await world.compact()
    rss["filled again"] = memory(shared.server)
    assert (await world.namespace_info()).size_bytes == full.size_bytes
    grown, taken = rss["filled again"] - rss["full"], rss["full"] - rss["before"]
    assert grown <= max(taken // 5, NOISE), rss  # what was deleted made room for what came

    shown = {f"MiB of the server {when}": round(size / MIB, 1) for when, size in rss.items()}
    shown |= {"ms of a put, of the first": round(first * 1e3, 2), "ms of a put, of the last": round(last * 1e3, 2)}
    for name, value in shown.items():
        record_property(name, value)
    print(f"{count} objects over {shared.kind}:", shown)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left to give memory back")
async def test_memory_is_given_back_when_much_is_gone(shared: Place, world: Client) -> None:
    count = 40_000
    await fill(world, range(count))
    full = memory(shared.server)
    for part in range(count // 10_000):  # all of them are more than one commit may delete
        await world.delete(prefix=f"objects/{part:02}")
    await world.compact()
    assert memory(shared.server) < full - count * len(content(0)) // 2
