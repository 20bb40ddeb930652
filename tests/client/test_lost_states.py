"""A state that is lost, and begins anew while a holder is away: it hears that its lease is lost, and harms nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

import comity
from comity import Client, Lease, LeaseGuard, LeaseLost, LeaseNotFound
from comity.recipes.barrier import Arrival, Barrier
from comity.recipes.within import Wait
from tests import servers
from tests.client.leases import LONG, gone, renewed
from tests.proxy import Proxy
from tests.redis_servers import RedisServer, program
from tests.servers import Server
from tests.waiting import until


class Place(NamedTuple):
    """A server, and how what it has is lost."""

    server: Server
    lose: Callable[[], None]


def in_memory(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(servers.start("--store", "memory:"))

    def lose() -> None:
        server.kill()
        server.restart()

    return Place(server, lose)


def in_a_file(stack: ExitStack, path: Path) -> Place:
    server = stack.enter_context(servers.start("--store", f"sqlite:{path / 'state.db'}"))

    def lose() -> None:
        server.stop()
        for file in path.iterdir():
            file.unlink()
        server.restart()

    return Place(server, lose)


def in_redis(stack: ExitStack, _: Path) -> Place:
    redis = stack.enter_context(RedisServer("--appendonly", "no"))
    server = stack.enter_context(servers.start("--store", redis.url))

    def lose() -> None:
        with redis.client() as client:
            client.flushall()

    return Place(server, lose)


NO_REDIS = pytest.mark.skipif(program() is None, reason="there is no redis-server")


@pytest.fixture(params=[in_memory, in_a_file, pytest.param(in_redis, marks=NO_REDIS)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield request.param(stack, tmp_path)


async def test_a_bookmark_is_of_the_state_that_was_lost(place: Place, namespace: str) -> None:
    bookmarks: list[tuple[int, str]] = []
    async with comity.connect(place.server.address, namespace=namespace, timeout=20) as state:

        async def note() -> None:
            listing = state.list()
            await listing.all()
            done = await state.transact(then=[comity.Put("a", 1)])
            info = await state.namespace_info()
            async with state.watch(from_revision=listing.revision + 1, epoch=listing.epoch, resync=False) as watch:
                await anext(watch)
            said: list[comity.Listing | comity.TransactionResult | comity.Namespace | comity.Watch]
            said = [listing, done, info, watch]
            bookmarks[:] = [(each.revision, each.epoch) for each in said]

        await note()  # the state that is listed is empty
        await note()
        place.lose()
        for _ in range(5):  # more than there were, so that a revision alone fits
            await state.put("b", 1)
        for revision, epoch in bookmarks:
            async with state.watch(from_revision=revision + 1, epoch=epoch) as watch:
                assert (watch.revision, watch.epoch) == (revision, epoch)
                resync = await anext(watch)
                assert isinstance(resync, comity.Resync)
                assert [entry.key for entry in resync.entries] == ["b"]
                assert (watch.revision, watch.epoch) == (resync.revision, resync.epoch) == (5, resync.epoch)
                assert resync.epoch != epoch
            with pytest.raises(comity.Compacted) as caught:
                await anext(state.watch(from_revision=revision + 1, epoch=epoch, resync=False))
            assert caught.value.reason == "EPOCH_CHANGED"
        now = (await state.namespace_info()).epoch
        await note()
        assert {epoch for _, epoch in bookmarks} == {now}


class Late(Barrier):
    """A barrier at which who has arrived is held up before it watches."""

    def __init__(self, state: Client, name: str) -> None:
        super().__init__(state, name, parties=2)
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()

    async def _until_gone(self, key: str, arrival: Arrival, wait: Wait) -> bool:
        self.arrived.set()
        await self.go_on.wait()
        return await super()._until_gone(key, arrival, wait)


async def test_a_place_at_a_barrier_that_was_lost_before_it_is_watched_is_taken_anew(namespace: str) -> None:
    with servers.start("--store", "memory:") as server:
        async with comity.connect(server.address, namespace=namespace, timeout=20) as state, asyncio.timeout(30):
            late = Late(state, "b")
            first = asyncio.create_task(late.wait())
            await late.arrived.wait()
            server.kill()
            server.restart()
            for _ in range(5):
                await state.put("a", 1)
            late.go_on.set()
            assert await Barrier(state, "b", parties=2).wait() == await first == 1


async def begin(state: Client) -> Lease:
    """The same each time, so that a revision says nothing of which life it is of. Returns the lease that is kept."""
    await state.put("a", 1)
    lease = await state.grant_lease(LONG)
    await state.put("agents/a", 1, ttl=LONG)
    await state.put("lock", 1, lease=lease)
    return lease


async def test_a_holder_hears_that_the_state_of_its_lease_is_gone(place: Place, namespace: str) -> None:
    async def lose() -> None:
        place.lose()

    async def delete() -> None:
        await other.delete_namespace()

    async with (
        Proxy(place.server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=20) as state,
        comity.connect(place.server.address, namespace=namespace, timeout=20) as other,
    ):
        fences: list[int] = []
        for lost in (lose, delete):
            fences.append(await goes_on_elsewhere(state, other, proxy, lost))
            await other.delete_namespace()
        assert fences == sorted(set(fences))


async def goes_on_elsewhere(state: Client, other: Client, proxy: Proxy, lose: Callable[[], Awaitable[None]]) -> int:
    """Returns the fence of the lease that was held."""
    lease = await begin(state)
    told: list[Lease] = []
    lease.on_lost(told.append)
    await renewed(lease)
    own = (await state.put("own", 1, ttl=LONG)).lease_id
    proxy.refuse()
    await proxy.cut()
    await lose()
    theirs = await begin(other)
    before = {found.id async for found in other.list_leases()}
    proxy.refuse(False)

    await until(lambda: not lease.alive, seconds=LONG / 3)
    assert told == [lease]
    with pytest.raises(LeaseLost):
        await state.put("lock", 2, guard=lease)
    for guard in (LeaseGuard(lease.id, lease.fence), LeaseGuard(lease.id), LeaseGuard(own, own)):
        with pytest.raises(LeaseLost):
            await state.put("lock", 2, guard=guard)
    for id in (lease.id, own):
        assert await gone(state, id)
        with pytest.raises(LeaseNotFound):
            await state.renew_lease(id)
        with pytest.raises(LeaseNotFound):
            await state.revoke_lease(id)
        with pytest.raises(LeaseNotFound):
            await state.put("agents/b", 1, lease=id)

    assert {found.id async for found in other.list_leases()} == before
    await other.put("lock", 3, guard=theirs)
    assert theirs.fence > lease.fence
    await theirs.close()
    return lease.fence
