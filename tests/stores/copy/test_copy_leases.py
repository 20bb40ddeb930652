"""Leases that are copied to another store: they live there as long as at the source, and never shorter."""

import sqlite3
from contextlib import suppress
from typing import Any

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.model import Expire, Lease
from comity_server.stores.copy.comparing import compare
from comity_server.stores.redis.arrivals import RedisArrivals
from comity_server.stores.redis.keys import Keys
from comity_server.stores.sqlite.arrivals import SqliteArrivals
from comity_server.stores.sqlite.check import check
from comity_server.stores.url import sqlite_path
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import RedisCluster, RedisServer, program
from tests.stores.copy.copies import (
    Scissors,
    Urls,
    copied,
    ends_open,
    leaves_nothing,
    made_equal,
    opened,
    reading,
)
from tests.stores.sharing import before, once
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

NAME = "n"


@pytest.fixture(params=["sqlite", "redis"])
def to_redis_or_sqlite(request: pytest.FixtureRequest, urls: Urls) -> tuple[str, str]:
    """The URLs of a Redis, which may be used while it is copied, and of a target of each kind."""
    return urls.new("redis"), urls.new(request.param)


def leave(url: str, redis: RedisServer, lease: Lease | int, remaining: int) -> None:
    """Have a lease of a store that nobody uses live so many µs from now on."""
    id = lease if isinstance(lease, int) else lease.id
    if url.startswith("sqlite:"):
        with sqlite3.connect(sqlite_path(url)) as connection:
            connection.execute(
                "UPDATE leases SET deadline = (SELECT clock FROM store) + ? WHERE id = ?", (remaining, id)
            )
        connection.close()
        return
    with redis.client() as client:
        seconds, micros = client.time()
        now = seconds * SECOND + micros
        client.zadd(Keys(url.partition("=")[2], NAME).deadlines(1), {str(id): now + remaining}, xx=True)


async def left(url: str, lease: Lease | int) -> int:
    """How many µs a lease has left, as a server would say."""
    async with opened(url) as one:
        return await one.space(NAME).remaining(lease)


async def lives(space: Space) -> Lease:
    """Leases of each kind, and some that have ended. Returns one that has keys."""
    lease = await space.grant(HOUR, author="ann é")
    await space.grant(2 * HOUR)
    await space.put_with(lease, "a", "b")
    await space.put_for(HOUR, "own")
    brief = await space.grant(HOUR)
    await space.put_with(brief, "gone")
    await space.revoke(brief)
    await space.revoke(await space.grant(HOUR))
    return lease


async def test_leases_live_on_as_long_as_they_would_have(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        space = one.space(NAME)
        lease = await lives(space)
        await space.compact()
        held = await space.leases()
    leave(source, redis_server, lease, HOUR // 2)
    before = await left(source, lease)
    assert set((await made_equal(source, target)).values()) == {"copied"}
    async with opened(target) as other:
        there = other.space(NAME)
        assert HOUR // 4 < await there.remaining(lease) <= before
        assert await there.leases() == held
        found, _, _ = await there.store.lease(NAME, lease.id)
        assert found == lease
        assert await there.expire() == []
        (renewed,) = await there.store.keep_alive(NAME, [lease.id])
        assert HOUR - SECOND * 60 < renewed <= HOUR
        assert await there.revoke(lease) == 2
        assert await there.keys() == ["own"]
        await there.put("own")
        assert await there.leases() == {id: keys for id, keys in held.items() if keys == 0}
        assert (await there.grant(HOUR)).id > max(held)
    if target.startswith("sqlite:"):
        assert check(sqlite_path(target)).problems == []


async def test_leases_run_out_at_the_target(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        lease = await lives(one.space(NAME))
    leave(source, redis_server, lease, SECOND // 2)
    assert await made_equal(source, target)
    async with opened(target) as other:
        there = other.space(NAME)
        ended: list[int] = []

        async def is_through() -> bool:
            ended.extend(await there.expire())
            return bool(ended)

        await until(is_through)
        assert ended == [lease.id]
        assert await there.keys() == ["own"]


async def test_a_second_copy_brings_what_became_of_leases(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        space = one.space(NAME)
        lease = await lives(space)
        unused, moved = await space.grant(HOUR), await space.grant(HOUR)
        await space.put_with(moved, "moved")
    assert set((await made_equal(source, target)).values()) == {"copied"}
    async with opened(source) as one:
        space = one.space(NAME)
        await space.revoke(unused)  # which makes no revision
    assert set((await made_equal(source, target)).values()) == {"continued"}
    async with opened(source) as one:
        space = one.space(NAME)
        new = await space.grant(HOUR)
        await space.put_with(new, "moved", "new")
        await space.put_for(HOUR, "more")
        await space.revoke(await space.grant(HOUR))
        await space.revoke(lease)
        await space.revoke(moved)
        held = await space.leases()
    leave(source, redis_server, new, HOUR // 2)
    assert set((await made_equal(source, target)).values()) == {"continued"}
    async with opened(target) as other:
        there = other.space(NAME)
        assert await there.leases() == held
        assert 0 < await there.remaining(new) <= HOUR // 2
        assert await there.revoke(new) == 2
    if target.startswith("sqlite:"):
        assert check(sqlite_path(target)).problems == []


async def test_a_second_copy_brings_renewals(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        lease = await lives(one.space(NAME))
    assert await made_equal(source, target)
    leave(target, redis_server, lease, SECOND * 60)
    leave(source, redis_server, lease, HOUR // 2)
    assert set((await made_equal(source, target)).values()) == {"there"}
    assert SECOND * 60 < await left(target, lease) <= HOUR // 2
    leave(source, redis_server, lease, SECOND * 60)
    leave(target, redis_server, lease, HOUR)
    assert set((await made_equal(source, target)).values()) == {"there"}
    assert await left(target, lease) > HOUR // 2  # it is not taken from whoever was told that it has so long


@pytest.mark.parametrize("how", ["copied", "continued"])
async def test_what_is_renewed_meanwhile_is_not_early(
    to_redis_or_sqlite: tuple[str, str], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source, target = to_redis_or_sqlite
    async with opened(source) as one:
        lease = await lives(one.space(NAME))
        if how == "continued":
            await made_equal(source, target)
            leave(target, redis_server, lease, SECOND * 60)
            await one.space(NAME).put("more")
        leave(source, redis_server, lease, SECOND * 60)

        async def renew() -> None:
            assert await one.store.keep_alive(NAME, [lease.id]) == [HOUR]

        act = once(renew)
        for arrivals in (RedisArrivals, SqliteArrivals):
            before(monkeypatch, arrivals, "bring" if how == "copied" else "take_over", act)
        assert set((await made_equal(source, target)).values()) == {how}
        assert await left(target, lease) > HOUR // 2


async def test_what_ends_meanwhile_is_told(
    to_redis_or_sqlite: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = to_redis_or_sqlite
    async with opened(source) as one:
        lease = await lives(one.space(NAME))

        async def revoke() -> None:
            await one.space(NAME).revoke(lease)

        act = once(revoke)
        for arrivals in (RedisArrivals, SqliteArrivals):
            before(monkeypatch, arrivals, "bring", act)
        assert (await copied(source, target))[NAME].ending == "changed"
        assert await left(target, lease) > HOUR // 2  # so that the next copy finds it there
        assert set((await made_equal(source, target)).values()) == {"continued"}
        async with opened(target) as other:
            assert await other.space(NAME).leases() == await one.space(NAME).leases()


async def test_what_ran_out_at_the_target_alone(pair: tuple[str, str], redis_server: RedisServer) -> None:
    """With keys it is another history. Without, it comes again."""
    source, target = pair
    async with opened(source) as one:
        space = one.space(NAME)
        lease = await lives(space)
        unused = await space.grant(HOUR)
    assert await made_equal(source, target)
    for ended, how in ((unused, "continued"), (lease, "conflict")):
        leave(target, redis_server, ended, -1)
        async with opened(target) as other:
            await other.space(NAME).commit(Expire(lease_ids=(ended.id,)))
            assert ended.id not in await other.space(NAME).leases()
        assert (await copied(source, target))[NAME].ending == how
    assert set((await made_equal(source, target, overwrite=True)).values()) == {"replaced"}
    async with opened(source) as one, opened(target) as other:
        assert await other.space(NAME).leases() == await one.space(NAME).leases()


async def test_forks_and_deleted_namespaces(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        space = one.space(NAME)
        await lives(space)
        fork = await space.fork("fork")
        own = await fork.grant(HOUR)
        await fork.put_with(own, "a")
        await space.store.delete_namespace(NAME)
        again = await space.grant(HOUR)
        await space.put_with(again, "again")
        held = await space.leases(), await fork.leases()
    assert await made_equal(source, target)
    async with opened(target) as other:
        space = other.space(NAME)
        fork = space.sibling("fork")
        assert (await space.leases(), await fork.leases()) == held == ({again.id: 1}, {own.id: 1})
        await fork.revoke(own)
        assert await fork.keys() == ["b", "own"]


@pytest.mark.parametrize("cut", range(6))
async def test_a_copy_of_leases_that_was_cut_off_goes_on(
    pair: tuple[str, str], urls: Urls, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    source, target = pair
    async with opened(source) as one:
        await lives(one.space(NAME))
    scissors = Scissors(monkeypatch)
    await made_equal(source, urls.new("sqlite" if target.startswith("sqlite:") else "redis"))
    scissors.left = scissors.steps - 1 - cut * scissors.steps // 8
    with suppress(StoreUnavailable):  # the last step is to note the clock of leases, which may fail
        await copied(source, target)
    scissors.left = None
    assert await made_equal(source, target)
    leaves_nothing(target, redis_server)
    async with opened(source) as one, opened(target) as other:
        assert await other.space(NAME).leases() == await one.space(NAME).leases()


async def test_a_difference_is_found(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        lease = await lives(one.space(NAME))
    await made_equal(source, target)

    def lie(leases: Any, what: str) -> None:
        held = leases.get(lease.id)
        match what:
            case "key":
                held.keys.discard("a")
            case "ttl":
                held.lease = held.lease._replace(ttl=1)
            case "gone":
                leases.end(lease.id)
            case "more":
                leases.grant(lease._replace(id=lease.id + 1000), 0)

    for what in ("key", "ttl", "gone", "more"):
        async with reading(source) as reader, ends_open(target) as there:
            loaded = await reader.load([NAME])
            lie(loaded.store.state(NAME).leases, what)
            found = await compare(loaded.store, there, NAME)
            assert "lease" in found.behind, what


async def test_to_a_cluster(urls: Urls, redis_cluster: RedisCluster) -> None:
    source, target = urls.new("sqlite"), f"{redis_cluster.url}?prefix=t-{id(urls)}"
    async with opened(source) as one:
        await lives(one.space(NAME))
        held = await one.space(NAME).leases()
    assert await made_equal(source, target)
    async with opened(target) as other:
        assert await other.space(NAME).leases() == held
    assert set((await made_equal(source, target)).values()) == {"there"}
