"""Leases while Redis, and the servers that share it, fail."""

import time
import uuid
from contextlib import suppress
from typing import Any

import grpc
import pytest

from comity.v1 import lease_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.errors import LeaseLost, StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Expire, Guard, Lease, Put, Transaction
from comity_server.stores.redis import keys
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests import servers
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import RedisCluster, RedisServer, Replicated, program
from tests.stores.leases import keys_of, run_out
from tests.stores.sharing import NAME, Shared
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


async def test_renewals_and_ends_go_on_where_redis_is_full() -> None:
    with RedisServer("--appendonly", "no") as server:
        shared = Shared(server.url)
        (space,) = await shared.spaces(1)
        lease = await space.grant(HOUR)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        assert await space.store.keep_alive(NAME, [lease.id]) == [HOUR]
        await shared.close()


async def test_leases_that_redis_starts_again_with() -> None:
    """Their time has gone on."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        shared = Shared(server.url)
        one, other = await shared.spaces()
        brief, lease = await one.grant(SECOND // 2), await one.grant(HOUR)
        await one.put_with(brief, "brief")
        await one.put_with(lease, "long")
        server.kill()
        with pytest.raises(StoreUnavailable):
            await one.store.due()
        with pytest.raises(StoreUnavailable):
            await one.store.keep_alive(NAME, [lease.id])
        server.start()
        ended: list[int] = []

        async def is_through() -> bool:
            with suppress(StoreUnavailable):
                ended.extend(await other.expire())
            return bool(ended)

        await until(is_through)
        assert ended == [brief.id]
        assert await one.keys() == ["long"]
        assert await one.store.keep_alive(NAME, [brief.id, lease.id]) == [0, HOUR]
        await shared.close()


async def test_leases_that_redis_has_lost() -> None:
    """What it has of them counts, and servers do not go on as if they had it still."""
    with RedisServer("--appendonly", "no") as server:
        shared = Shared(server.url)
        one, other = await shared.spaces()
        kept, gone = await one.grant(HOUR), await one.grant(HOUR)
        await one.put_with(kept, "kept")
        with server.client() as client:
            client.save()
        await one.revoke(gone)
        lost = await one.grant(HOUR)
        await one.put_with(lost, "lost")
        assert await other.leases() == {kept.id: 1, lost.id: 1}
        server.kill()
        server.start()
        assert await one.store.keep_alive(NAME, [kept.id, gone.id, lost.id]) == [HOUR, HOUR, 0]
        again = await other.grant(HOUR)  # at the revision that the lost one had
        assert again.id > lost.id
        for guard in (Guard(lost.id), Guard(lost.id, lost.id)):
            with pytest.raises(LeaseLost):
                await one.commit(Transaction(then=[Put("k", b"")], guard=guard))
        await other.revoke(again)
        for space in (one, other):
            assert await space.leases() == {kept.id: 1, gone.id: 0}
            assert await space.keys() == ["kept"]
        await run_out(other, kept, gone)
        assert await one.expire() == [kept.id, gone.id]
        assert await other.keys() == []
        await shared.close()


async def test_replicas_that_are_waited_for_have_renewals(replicated: Replicated) -> None:
    target = parse(f"{replicated.url}?prefix=t-{uuid.uuid4().hex}")
    store = RedisStore(target, Limits(), wait_replicas=2)
    await store.open()
    space = Space(store, NAME)
    lease = await space.grant(HOUR)
    await run_out(space, lease)
    assert await store.keep_alive(NAME, [lease.id]) == [HOUR]
    deadlines = [_deadline(server, keys_of(space).deadlines(1), lease) for server in replicated.servers]
    assert len(set(deadlines)) == 1
    assert deadlines[0] > 1
    await store.close()
    strict = RedisStore(target, Limits(), wait_replicas=3)
    await strict.open()
    with pytest.raises(StoreUnavailable):
        await strict.keep_alive(NAME, [lease.id])
    await strict.close()


def _deadline(server: RedisServer, key: str, lease: Lease) -> float:
    with server.client() as client:
        score = client.zscore(key, str(lease.id))
    assert isinstance(score, float)
    return score


async def test_leases_on_each_node_of_a_cluster(redis_cluster: RedisCluster) -> None:
    shared = Shared(f"{redis_cluster.url}?prefix=t-{time.time_ns()}")
    one, other = await shared.open(), await shared.open()
    spaces = [Space(one, f"n{number}") for number in range(9)]
    brief: dict[str, int] = {}
    for space in spaces:
        brief[space.name] = await space.put_for(SECOND // 5, "k")
        await space.put_for(HOUR, "stays")
    assert len({redis_cluster.master_of(keys_of(space).meta).port for space in spaces}) == 3
    ended: set[str] = set()

    async def all_ended() -> bool:
        for name, ids in (await other.due()).items():
            assert ids == [brief[name]]
            await Space(other, name).commit(Expire(lease_ids=tuple(ids)))
            ended.add(name)
        return len(ended) == len(spaces)

    await until(all_ended)
    for space in spaces:
        assert await space.keys() == ["stays"]
        assert await other.keep_alive(space.name, [brief[space.name]]) == [0]
    await shared.close()


class Stubs:
    """Of one server process."""

    def __init__(self, server: servers.Server) -> None:
        self._channel = grpc.insecure_channel(server.address)
        self.state: Any = state_pb2_grpc.StateServiceStub(self._channel)
        self.leases: Any = lease_pb2_grpc.LeaseServiceStub(self._channel)

    def has(self, key: str) -> bool:
        return bool(self.state.Get(s.GetRequest(namespace=NAME, key=key), timeout=30).HasField("entry"))

    def close(self) -> None:
        self._channel.close()


async def test_a_server_that_is_killed_leaves_its_leases_to_another(redis_server: RedisServer) -> None:
    """Neither early, nor never. The other one has not been asked for the namespace."""
    prefix = f"t-{uuid.uuid4().hex}"
    url = f"{redis_server.url}?prefix={prefix}"
    with servers.start("--store", url) as one, servers.start("--store", url) as other, redis_server.client() as redis:
        first, second = Stubs(one), Stubs(other)
        put = s.PutRequest(namespace=NAME, key="k", value=b"v")
        put.ttl.FromMilliseconds(1500)
        began = time.monotonic()
        first.state.Put(put, timeout=30)
        one.kill()
        leases = keys.Keys(prefix, NAME).leases(1)
        assert redis.exists(leases)
        await until(lambda: not redis.exists(leases))
        assert time.monotonic() - began >= 1.5
        assert not second.has("k")
        first.close()
        second.close()


async def test_all_servers_that_are_killed_at_once(redis_url: str) -> None:
    with servers.start("--store", redis_url) as server:
        stubs = Stubs(server)
        for key, milliseconds in (("brief", 1000), ("long", 3_600_000)):
            put = s.PutRequest(namespace=NAME, key=key, value=b"v")
            put.ttl.FromMilliseconds(milliseconds)
            stubs.state.Put(put, timeout=30)
        server.kill()
        server.restart()
        stubs.close()
        stubs = Stubs(server)
        await until(lambda: not stubs.has("brief"))
        assert stubs.has("long")
        stubs.close()
