"""A copy from its beginning to its end, by the URLs of the stores."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from comity_server.limits import Limits
from comity_server.stores.copy import ends
from comity_server.stores.copy.copying import Choice, Copy, Result
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.redis.reading import RedisReader
from comity_server.stores.transfer import NoStore, Progress, Reader


class SameStore(Exception):
    """There is nothing to copy."""


def ignore(name: str, done: int, total: int) -> None:
    """For who does not want to know how far it is."""


async def copy(
    source: Reader,
    target_url: str,
    choice: Choice = Choice(),  # noqa: B008 - it cannot be changed
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    wait_replicas: int = 0,
    progress: Progress = ignore,
) -> Sequence[Result]:
    """Copy what is chosen, and compare it, or find out what there is to do.

    Args:
        source: not yet opened.
        target_url: one that `ends.reader` takes.
        wait_replicas: how many replicas of the target's Redis must have each namespace before the next one.

    Raises:
        SameStore: the two are one.
        NoStore, NoNamespace: there is nothing to copy.
        StateError: a store cannot be used. What was copied is there, and is not copied again by the next one.
    """
    target = ends.reader(target_url)
    if ends.are_one(source, target):
        raise SameStore
    async with AsyncExitStack() as stack:
        await source.open()
        stack.push_async_callback(source.close)
        copying = Copy(source, choice, overwrite=overwrite)
        await copying.choose()
        is_there = False
        if dry_run or isinstance(target, RedisReader):
            is_there = await _is_opened(target)
            if is_there:
                stack.push_async_callback(target.close)
            if ends.are_one(source, target):
                raise SameStore
        if dry_run:
            await copying.plan(lambda names: _has(target if is_there else None, names))
            return copying.results
        async with AsyncExitStack() as inner:
            store = await _open(inner, target_url, wait_replicas)
            await copying.write(store, store.arrivals(), progress)
        async with AsyncExitStack() as inner:
            await copying.verify(await _open(inner, target_url, wait_replicas))
    return copying.results


async def _open(stack: AsyncExitStack, url: str, wait_replicas: int) -> ends.Target:
    store = ends.store(url, wait_replicas=wait_replicas)
    await store.open()
    stack.push_async_callback(store.close)
    return store


async def _is_opened(reader: Reader) -> bool:
    """Open a reader, if there is anything to read."""
    try:
        await reader.open()
    except NoStore:
        return False
    return True


async def _has(target: Reader | None, names: Sequence[str]) -> MemoryStore:
    """What a target has of some namespaces."""
    return (await target.load(names)).store if target is not None else MemoryStore(Limits())
