"""Stores to copy from and to, what a copy comes to, and what cuts it off."""

import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Delete, Fork, NamespaceInfo, Position, Put, RequestId
from comity_server.stores.copy import ends
from comity_server.stores.copy.copying import Choice, Result
from comity_server.stores.copy.run import copy
from comity_server.stores.redis.client import Client
from comity_server.stores.sqlite.check import check
from comity_server.stores.sqlite.writer import Writer
from comity_server.stores.transfer import Reader
from comity_server.stores.url import open_store, sqlite_path
from tests.contract.space import Space
from tests.redis_servers import RedisServer

KINDS = ("sqlite", "redis")
PAIRS = list(itertools.product(KINDS, KINDS))
AGAIN = Choice()


class Opened:
    """A store that is open."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = open_store(url, Limits())

    def space(self, name: str) -> Space:
        return Space(self.store, name)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    one = Opened(url)
    await one.store.open()
    try:
        yield one
    finally:
        await one.store.close()


class Urls:
    """Stores that nobody has used yet."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._folder = folder
        self._redis = redis

    def new(self, kind: str) -> str:
        name = uuid.uuid4().hex
        return f"sqlite:{self._folder / name}.db" if kind == "sqlite" else f"{self._redis.url}?prefix=t-{name}"


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Reader]:
    reader = ends.reader(url)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()


@asynccontextmanager
async def ends_open(url: str) -> AsyncIterator[ends.Target]:
    store = ends.store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def copied(source: str, target: str, choice: Choice = AGAIN, **options: Any) -> dict[str, Result]:
    return {result.namespace: result for result in await copy(ends.reader(source), target, choice, **options)}


async def made_equal(source: str, target: str, **options: Any) -> dict[str, str]:
    """Copy all. Returns how it ended for each."""
    results = await copied(source, target, **options)
    assert all(result.is_equal for result in results.values()), results
    return {name: result.ending for name, result in results.items()}


def all_placeless(held: dict[str, Any]) -> dict[str, Any]:
    """What was read of a store, but for what is its own: the epoch, and how far compaction has got."""
    return {what: placeless(part) for what, part in held.items()}


def placeless(part: Any) -> Any:
    """One part of that."""
    match part:
        case NamespaceInfo():
            return part._replace(epoch="", history_size_bytes=0)
        case Position():
            return part._replace(epoch="")
        case list():
            return [placeless(one) for one in part]
    return part


async def family(space: Space) -> None:
    """Forks at revisions below the floor of what they were forked from, of which some are deleted."""
    for turn in range(4):
        await space.apply(Put("a", b"%d" % turn), Put(f"k{turn}", b"x" * 300), Put("big", bytes(400_000)))
    await space.checkpoint("two", 2)
    one, two, gone, inner = (space.sibling(name) for name in ("one", "two", "gone", "inner"))
    await one.commit(Fork(parent=space.name, ref=1, author="fay"))
    await two.commit(Fork(parent=space.name, ref=2))
    await gone.commit(Fork(parent=space.name, ref=3))
    await gone.apply(Put("g", b"1"), Delete("k1"))
    await inner.commit(Fork(parent=gone.name))
    await inner.sibling("more").commit(Fork(parent=gone.name, ref=(await gone.revision()) - 1))
    await gone.compact()
    await inner.apply(Put("i", b"1"))
    await space.store.delete_namespace(gone.name)
    await one.apply(Put("a", b"one"), request_id=RequestId("ann", 1))
    await space.compact()
    await space.apply(Put("a", b"newest"), request_id=RequestId("ann", 2))


def leaves_nothing(url: str, redis_server: RedisServer, *, shared: int | None = None) -> None:
    """All that a store holds belongs to what is there; and if given, so many deleted namespaces are shared."""
    if url.startswith("sqlite:"):
        assert check(sqlite_path(url)).problems == []
        return
    prefix = url.partition("=")[2]
    with redis_server.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{prefix}:*")]
        keys = [key for key in keys if not key.endswith(":compactor")]
        keys = [key for key in keys if not key.endswith("}:coming")]  # which goes by itself, and matters to nobody
        assert not [key for key in keys if "}:incoming" in key]
        assert not [key for key in keys if client.ttl(key) != -1]
        assert shared is None or len([key for key in keys if ":meta:" in key]) == shared


class Scissors:
    """Cuts off whatever is done to a store after so many steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.steps = 0
        for kind, name in ((Client, "once"), (Writer, "write")):
            monkeypatch.setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(of: Any, *arguments: Any) -> Any:
            self.steps += 1
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise StoreUnavailable("cut off")
            return await method(of, *arguments)

        return counted
