"""Copies that are cut off anywhere go on, and what others do meanwhile neither harms nor is harmed."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from comity_server.errors import Conflict, StoreUnavailable
from comity_server.limits import Retention
from comity_server.model import Commit, Fork, Put, RequestId
from comity_server.stores.copy.comparing import compare
from comity_server.stores.copy.copying import Choice, Copy
from comity_server.stores.copy.planning import Plan
from comity_server.stores.copy.run import ignore
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.redis import holds
from comity_server.stores.redis.arrivals import FILL
from comity_server.stores.redis.client import Client
from tests.contract.crowd import crowd
from tests.redis_servers import RedisServer
from tests.servers import environment
from tests.stores.copy.copies import (
    KINDS,
    Scissors,
    Urls,
    copied,
    ends_open,
    family,
    leaves_nothing,
    made_equal,
    opened,
    reading,
)
from tests.waiting import until


async def is_harmless(source: str, target: str) -> None:
    """Nothing at the target is there in part, and a server that uses it then takes nothing away that a copy needs."""
    async with reading(source) as reader, opened(target) as other:
        has = await reader.load(await reader.names())
        assert isinstance(other.store, MemoryStore)
        for info in await other.store.namespaces("", limit=100):
            found = await compare(has.store, other.store, info.name)
            assert found.is_equal, (info.name, found)
        for info in await other.store.namespaces("", limit=100):
            for _ in range(2):
                await other.store.retain(info.name, Retention())


@pytest.mark.timeout(600)
async def test_a_copy_that_was_cut_off_anywhere_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    source, kind = pair[0], "sqlite" if pair[1].startswith("sqlite:") else "redis"
    async with opened(source) as one:
        await family(one.space("f"))
        for turn in range(3):
            await one.space("other").put("a", b"%d" % turn)
        await one.store.delete_namespace("other")
    scissors = Scissors(monkeypatch)
    await made_equal(source, urls.new(kind))
    steps = scissors.steps
    cuts = sorted({step * steps // 20 for step in range(20)} | set(range(steps // 3, steps // 3 + 6)))
    for cut in cuts:
        target = urls.new(kind)
        scissors.left = cut
        with pytest.raises(StoreUnavailable, match="cut off"):
            await copied(source, target)
        scissors.left = None
        await is_harmless(source, target)
        assert await made_equal(source, target)
        leaves_nothing(target, redis_server, shared=1)


@pytest.mark.timeout(600)
async def test_a_second_copy_that_was_cut_off_anywhere_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ORPHAN_SECONDS", 0.0)
    source, kind = pair[0], "sqlite" if pair[1].startswith("sqlite:") else "redis"
    targets = [urls.new(kind) for _ in range(15)]
    async with opened(source) as one:
        await family(one.space("f"))
    for target in targets:
        await made_equal(source, target)
    async with opened(source) as one:
        space = one.space("f")
        for turn in range(4):
            await space.apply(Put("a", b"%d" % turn), request_id=RequestId("ann", 3 + turn))
        await space.checkpoint("since")
        await space.sibling("new").commit(Fork(parent="f", ref="since"))
        await space.sibling("old").commit(Fork(parent="f", ref=2))
        await space.compact(5)
    scissors = Scissors(monkeypatch)
    await made_equal(source, targets.pop())
    steps = scissors.steps
    for number, target in enumerate(targets):
        scissors.left = number * steps // len(targets)
        with pytest.raises(StoreUnavailable, match="cut off"):
            await copied(source, target)
        scissors.left = None
        async with opened(target) as other:  # what is there of it is a part of the history, with its outcomes
            revision = await other.space("f").revision()
            assert len(await other.space("f").log()) == revision - (await other.space("f").position()).floor
            for sequence in range(3, 7):
                if revision >= sequence + 3:
                    again = await other.space("f").apply(
                        Put("a", b"%d" % (sequence - 3)), request_id=RequestId("ann", sequence)
                    )
                    assert again.revision == sequence + 3
            assert await other.space("f").revision() == revision
        assert await made_equal(source, target)
        leaves_nothing(target, redis_server, shared=1)


KILLED = """
import os, signal, sys
from comity_server.stores.redis.client import Client
from comity_server.stores.sqlite.writer import Writer

left = int(sys.argv.pop(1))


def counted(kind, name):
    method = getattr(kind, name)

    async def count(self, *arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return await method(self, *arguments)

    setattr(kind, name, count)


counted(Client, "once")
counted(Writer, "write")
from comity.cli import main

main()
"""


@pytest.mark.timeout(300)
async def test_a_copy_that_was_killed_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        await crowd([one.space(name) for name in "uvw"], tasks=6, steps=15, seed=1)
    scissors = Scissors(monkeypatch)
    await made_equal(source, urls.new("sqlite" if target.startswith("sqlite:") else "redis"))
    kills = 4
    for number in range(kills):
        left = (number + 1) * scissors.steps // (kills + 2)
        program = [sys.executable, "-c", KILLED, str(left), "copy", "--from", source, "--to", target]
        done = await asyncio.to_thread(
            subprocess.run, program, env=environment(), capture_output=True, check=False, timeout=60
        )
        if done.returncode != -signal.SIGKILL:  # what an earlier one had done was not to be done again
            assert done.returncode == 0, done
            break
        await is_harmless(source, target)
    assert await made_equal(source, target)
    leaves_nothing(target, redis_server)


async def test_redis_that_is_full_is_told_and_the_copy_goes_on(urls: Urls) -> None:
    source = urls.new("sqlite")
    async with opened(source) as one:
        for number in range(30):
            await one.space("large").apply(Put(f"k{number}", bytes(500_000)))
        await one.space("small").put("a")
    with RedisServer() as redis:
        with redis.client() as client:
            used = int(redis.says("memory", "used_memory"))  # type: ignore[call-overload]
            client.config_set("maxmemory", used + 8_000_000)
        with pytest.raises(StoreUnavailable, match="out of memory"):
            await copied(source, redis.url)
        async with opened(redis.url) as other:
            assert list(await other.store.namespaces("", limit=9)) == []
        with redis.client() as client:
            client.config_set("maxmemory", 0)
        assert set((await made_equal(source, redis.url)).values()) == {"copied"}


async def test_a_target_that_loses_a_piece_of_a_long_entry_is_told(
    urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replica that takes over without having it yet."""
    source, target = urls.new("redis"), urls.new("redis")
    async with opened(source) as one:
        await one.space("n").apply(*(Put(f"k{number}", bytes(900_000)) for number in range(3)))
    run, lost = Client.run, False

    async def lose_first(self: Client, script: Any, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        nonlocal lost
        answer = await run(self, script, names, arguments)
        if script is FILL and ":staged:" in names[1] and not lost:
            lost = True
            with redis_server.client() as client:
                client.delete(names[1])
        return answer

    monkeypatch.setattr(Client, "run", lose_first)
    with pytest.raises(StoreUnavailable, match="Redis has lost a part of it"):
        await copied(source, target)
    assert lost
    assert await made_equal(source, target) == {"n": "copied"}


async def test_two_copies_at_once_do_not_mix(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that came first is told, and its namespace is whole by the other."""
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        await family(one.space("f"))
    async with reading(source) as reader:
        loaded = await reader.load(await reader.names())
        async with ends_open(target) as there, ends_open(target) as also:
            plans = []
            for store in (there, also):
                plan = Plan(loaded.store, store, overwrite=False)
                await plan.add("f")
                plans.append(plan)
            first = True

            def second(name: str, done: int, total: int) -> None:
                nonlocal first
                if first:
                    first = False
                    others.append(
                        asyncio.ensure_future(also.arrivals().bring(plans[1].arrivals, (), ignore, reader.remaining))
                    )

            others: list[asyncio.Future[None]] = []
            coming = there.arrivals().bring(plans[0].arrivals, (), second, reader.remaining)
            ended = [*await asyncio.gather(coming, return_exceptions=True)]
            ended += await asyncio.gather(*others, return_exceptions=True)
            failures = [failure for failure in ended if failure is not None]
            assert len(failures) == 1
            assert isinstance(failures[0], Conflict | StoreUnavailable)
        async with ends_open(target) as there:
            assert (await compare(loaded.store, there, "f")).is_equal


@pytest.mark.parametrize("kind", KINDS)
async def test_a_source_that_changes_meanwhile_is_told_and_copied_again(urls: Urls, kind: str) -> None:
    source, target = urls.new("redis"), urls.new(kind)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened(source))
        for name in ("a", "b", "c", "d"):
            await one.space(name).put("k")
        reader = await stack.enter_async_context(reading(source))
        copying = Copy(reader, Choice(), overwrite=False)
        await copying.choose()
        await one.store.delete_namespace("d")
        async with ends_open(target) as there:
            await copying.write(there, there.arrivals(), ignore)
        await one.space("b").put("k", b"changed")
        await one.space("new").put("k")
        await one.store.delete_namespace("c")
        async with ends_open(target) as there:
            await copying.verify(there)
        endings = {result.namespace: result.ending for result in copying.results}
        assert endings == {"a": "copied", "b": "changed", "c": "changed", "d": "counted", "new": "changed"}
        results = await copied(source, target)
        endings = {name: result.ending for name, result in results.items()}
        # What was copied before it was deleted is not taken away unasked.
        assert endings == {"a": "there", "b": "continued", "c": "conflict", "d": "counted", "new": "copied"}
        assert (await made_equal(source, target, overwrite=True))["c"] == "replaced"


class Heard:
    """A listener, and what it was told."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.resets = 0

    def publish(self, commits: Sequence[Commit]) -> None:
        self.commits += commits

    def reset(self) -> None:
        self.resets += 1
        self.commits = []


async def test_a_server_that_follows_the_target_hears_of_it(urls: Urls) -> None:
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        await family(one.space("f"))
        for turn in range(3):
            await one.space("plain").put("a", b"%d" % turn)
    async with opened(target) as other:
        heard = {name: Heard() for name in ("f", "f.one", "plain")}
        for name, listener in heard.items():
            await other.store.follow(name, listener)
            assert await other.space(name).keys() == []
        await made_equal(source, target)
        await until(lambda: all(listener.resets for listener in heard.values()))
        assert (await other.space("f").contents())["a"] == b"newest"
        assert (await other.space("f.one").contents())["a"] == b"one"
        async with opened(source) as one:
            for turn in range(3):
                await one.space("plain").apply(Put("a", b"more %d" % turn), request_id=RequestId("ann", turn))
        assert (await made_equal(source, target))["plain"] == "continued"
        await until(lambda: len(heard["plain"].commits) == 3)
        assert [commit.revision for commit in heard["plain"].commits] == [4, 5, 6]
        again = await other.space("plain").apply(Put("a", b"more 2"), request_id=RequestId("ann", 2))
        assert again.revision == await other.space("plain").revision() == 6
        for name in heard:
            await other.store.unfollow(name)


async def test_who_writes_to_the_target_meanwhile_is_not_overwritten(urls: Urls) -> None:
    source, target = urls.new("sqlite"), urls.new("redis")
    async with opened(source) as one:
        for turn in range(3):
            await one.space("a").put("a", b"%d" % turn)
            await one.space("b").put("a", b"%d" % turn)
    async with opened(target) as other:

        def write(name: str, done: int, total: int) -> None:
            writes.append(asyncio.ensure_future(other.space(name).put("own")))

        writes: list[asyncio.Future[int]] = []
        results = await copied(source, target, progress=write)
        await asyncio.gather(*writes, return_exceptions=True)
        for name in ("a", "b"):
            if results[name].ending == "conflict":
                assert "meanwhile" in results[name].reason
                assert await other.space(name).keys() == ["own"]
            else:  # it was there before
                assert results[name].ending == "unequal"
                assert await other.space(name).keys() == ["a", "own"]
