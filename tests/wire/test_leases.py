"""LeaseService on the wire: what a grant answers, streams of renewals, and what a watch sees of an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import lease_pb2 as le
from comity.v1 import lease_pb2_grpc
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire, read_refusal
from tests.wire.inprocess import Running, run
from tests.wire.pipes import Pipe, create, delete, get, increment, put

LONG = Duration(seconds=60)
BRIEF = Duration(seconds=1)


class Keeping:
    """A KeepAlive stream."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        stub: Any = lease_pb2_grpc.LeaseServiceStub(channel)
        self._namespace = namespace
        self.call = stub.KeepAlive(timeout=TIMEOUT)

    async def send(self, *lease_ids: int, namespace: str = "") -> None:
        for lease_id in lease_ids:
            await self.call.write(le.KeepAliveRequest(namespace=namespace or self._namespace, lease_id=lease_id))

    async def read(self) -> tuple[int, float]:
        """A lease, and how long it lives, in seconds."""
        answer = await self.call.read()
        assert isinstance(answer, le.KeepAliveResponse), answer
        return answer.lease_id, answer.ttl.ToMicroseconds() / 1e6


@pytest.fixture
async def keeping(channel: grpc.aio.Channel, namespace: str) -> AsyncIterator[Keeping]:
    stream = Keeping(channel, namespace)
    yield stream
    stream.call.cancel()


def granted(wire: Wire, namespace: str, ttl: Duration = LONG, **said: Any) -> le.Lease:
    request = le.GrantLeaseRequest(namespace=namespace, ttl=ttl, options=t.WriteOptions(**said))
    return wire.leases.GrantLease(request, timeout=TIMEOUT).lease


def leased(wire: Wire, namespace: str, key: str, lease_id: int) -> int:
    return wire.call(s.PutRequest(namespace=namespace, key=key, lease_id=lease_id)).revision  # type: ignore[no-any-return]


def test_a_grant(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "before")
    lease = granted(wire, namespace, author="ann")
    assert (lease.author, lease.key_count, lease.ends_with_keys) == ("ann", 0, False)
    assert lease.ttl == lease.remaining == LONG
    [commit, _] = wire.call(s.HistoryRequest(namespace=namespace)).commits
    said = (commit.revision, commit.author, commit.message, len(commit.events))
    assert said == (2, "ann", f"grant lease {lease.id}", 0)
    assert lease.id == lease.fence == commit.commit_time.ToMicroseconds()
    assert lease.expire_time.ToMicroseconds() == commit.commit_time.ToMicroseconds() + 60_000_000


def test_a_lease_is_read_with_what_is_left_of_it(wire: Wire, namespace: str) -> None:
    lease = granted(wire, namespace)
    leased(wire, namespace, "k", lease.id)
    found = wire.call(le.GetLeaseRequest(namespace=namespace, lease_id=lease.id)).lease
    assert (found.id, found.key_count, found.ttl) == (lease.id, 1, LONG)
    assert 0 < found.remaining.ToMicroseconds() <= 60_000_000
    assert wire.call(s.GetRequest(namespace=namespace, key="k")).entry.lease_id == lease.id


def test_leases_are_listed_in_pages(wire: Wire, namespace: str) -> None:
    ids = [granted(wire, namespace).id for _ in range(5)]
    seen: list[int] = []
    token = ""
    while True:
        page = wire.call(le.ListLeasesRequest(namespace=namespace, page_size=2, page_token=token))
        assert len(page.leases) <= 2
        seen += [lease.id for lease in page.leases]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids


def test_what_is_not_there(wire: Wire, namespace: str) -> None:
    refused = wire.refused(le.ListLeasesRequest(namespace=namespace))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
    wire.put(namespace, "k")
    assert not wire.call(le.ListLeasesRequest(namespace=namespace)).leases
    for request in (
        le.GetLeaseRequest(namespace=namespace, lease_id=1),
        le.RevokeLeaseRequest(namespace=namespace, lease_id=1),
        s.PutRequest(namespace=namespace, key="k", lease_id=1),
    ):
        refused = wire.refused(request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND")
        assert refused.metadata == {"lease_id": "1", "namespace": namespace}


def test_a_revoked_lease_takes_its_keys_along(wire: Wire, namespace: str) -> None:
    lease = granted(wire, namespace)
    for key in "ab":
        leased(wire, namespace, key, lease.id)
    options = t.WriteOptions(author="ann", message="done")
    answer = wire.call(le.RevokeLeaseRequest(namespace=namespace, lease_id=lease.id, options=options))
    assert (answer.revision, answer.deleted) == (4, 2)
    commit = wire.call(s.HistoryRequest(namespace=namespace)).commits[0]
    assert (commit.revision, commit.author, commit.message) == (4, "ann", "done")
    events = [(event.type, event.entry.key, event.cause) for event in commit.events]
    assert events == [(t.EVENT_TYPE_DELETE, key, t.EVENT_CAUSE_CLIENT) for key in "ab"]


def test_an_expired_lease_takes_its_keys_along(wire: Wire, namespace: str) -> None:
    lease = granted(wire, namespace, BRIEF, author="ann")
    for key in "ab":
        leased(wire, namespace, key, lease.id)
    watch = wire.state.Watch(s.WatchRequest(namespace=namespace, prefix="", from_revision=4), timeout=TIMEOUT)
    [commit] = next(answer for answer in watch if answer.commits).commits
    watch.cancel()
    assert (commit.revision, commit.message) == (4, f"lease {lease.id} of ann expired")
    events = [(event.type, event.entry.key, event.cause) for event in commit.events]
    assert events == [(t.EVENT_TYPE_DELETE, key, t.EVENT_CAUSE_LEASE_EXPIRY) for key in "ab"]
    took = commit.commit_time.ToMicroseconds() - lease.expire_time.ToMicroseconds()
    assert took >= 0
    assert wire.refused(le.GetLeaseRequest(namespace=namespace, lease_id=lease.id)).reason == "LEASE_NOT_FOUND"


def test_a_guarded_write_needs_its_lease(wire: Wire, namespace: str) -> None:
    lease = granted(wire, namespace)
    for guard in (t.LeaseGuard(lease_id=lease.id), t.LeaseGuard(lease_id=lease.id, fence=lease.fence)):
        wire.call(s.PutRequest(namespace=namespace, key="k", options=t.WriteOptions(guard=guard)))
    other = t.WriteOptions(guard=t.LeaseGuard(lease_id=lease.id, fence=lease.fence + 1))
    assert wire.refused(s.PutRequest(namespace=namespace, key="k", options=other)).reason == "LEASE_LOST"
    wire.call(le.RevokeLeaseRequest(namespace=namespace, lease_id=lease.id))
    late = t.WriteOptions(guard=t.LeaseGuard(lease_id=lease.id))
    for request in (
        s.PutRequest(namespace=namespace, key="k", options=late),
        s.DeleteRequest(namespace=namespace, key="k", options=late),
        s.TransactRequest(namespace=namespace, options=late),
        le.GrantLeaseRequest(namespace=namespace, ttl=LONG, options=late),
    ):
        refused = wire.refused(request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
        assert refused.metadata == {"lease_id": str(lease.id)}


def test_a_put_with_a_ttl_has_a_lease_of_its_own(wire: Wire, namespace: str) -> None:
    first = wire.call(s.PutRequest(namespace=namespace, key="k", ttl=LONG)).lease_id
    lease = wire.call(le.GetLeaseRequest(namespace=namespace, lease_id=first)).lease
    assert (lease.key_count, lease.ends_with_keys, lease.ttl) == (1, True, LONG)
    second = wire.call(s.PutRequest(namespace=namespace, key="k", ttl=LONG)).lease_id
    assert [lease.id for lease in wire.call(le.ListLeasesRequest(namespace=namespace)).leases] == [second]
    wire.call(s.PutRequest(namespace=namespace, key="k"))
    assert not wire.call(le.ListLeasesRequest(namespace=namespace)).leases
    assert not wire.call(s.GetRequest(namespace=namespace, key="k")).entry.lease_id
    operations = [s.Operation(put=s.PutOperation(key="l", ttl=LONG)), s.Operation(put=s.PutOperation(key="m"))]
    done = wire.call(s.TransactRequest(namespace=namespace, then=operations))
    [own] = wire.call(le.ListLeasesRequest(namespace=namespace)).leases
    assert [result.put.lease_id for result in done.results] == [own.id, 0]


def test_leases_end_with_their_namespace(wire: Wire, namespace: str) -> None:
    lease = granted(wire, namespace)
    wire.call(n.DeleteNamespaceRequest(namespace=namespace))
    assert wire.refused(le.GetLeaseRequest(namespace=namespace, lease_id=lease.id)).reason == "LEASE_NOT_FOUND"
    assert granted(wire, namespace).id > lease.id


async def test_the_lease_of_a_pipeline(pipe: Pipe, wire: Wire, namespace: str) -> None:
    lease = await asyncio.to_thread(granted, wire, namespace)
    results = await pipe.ask(
        put("a", lease_id=lease.id, guard_lease_id=lease.id),
        create("b", ttl_ms=60_000),
        increment("c", guard_lease_id=lease.id, guard_fence=lease.id),
        delete("c", guard_lease_id=lease.id, guard_fence=lease.id + 1),
        get("a"),
        get("b"),
    )
    assert [result.error.reason for result in results] == ["", "", "", "LEASE_LOST", "", ""]
    assert [result.lease_id for result in results[:2]] == [result.entry.lease_id for result in results[4:]]
    assert results[0].lease_id == lease.id < results[1].lease_id


async def test_renewals_are_answered_in_their_order(keeping: Keeping, wire: Wire, namespace: str) -> None:
    ids = [granted(wire, namespace, Duration(seconds=seconds)).id for seconds in (30, 40)]
    other = namespace[:-1]
    apart = granted(wire, other).id
    await keeping.send(*ids, 99)
    answers = [await keeping.read() for _ in range(3)]
    assert [(id, round(ttl)) for id, ttl in answers] == [(ids[0], 30), (ids[1], 40), (99, 0)]
    await keeping.send(apart, namespace=other)
    assert (await keeping.read())[0] == apart
    await keeping.call.done_writing()
    assert await keeping.call.read() is grpc.aio.EOF
    assert await keeping.call.code() is grpc.StatusCode.OK


async def test_a_lease_that_is_kept_alive_lives_on(keeping: Keeping, wire: Wire, namespace: str) -> None:
    kept, left = (granted(wire, namespace, BRIEF).id for _ in range(2))
    for key, id in (("kept", kept), ("left", left)):
        leased(wire, namespace, key, id)

    async def is_gone() -> bool:
        await keeping.send(kept)
        assert (await keeping.read())[1] > 0
        return wire.get(namespace, "left") is None

    await until(is_gone)
    assert wire.get(namespace, "kept") is not None


@pytest.mark.parametrize("how", ["revoked", "expired", "deleted", "overwritten", "namespace"])
async def test_who_keeps_a_lease_alive_is_told_of_its_end(
    keeping: Keeping, wire: Wire, namespace: str, how: str
) -> None:
    ttl = BRIEF if how == "expired" else LONG
    lease_id = wire.call(s.PutRequest(namespace=namespace, key="k", ttl=ttl)).lease_id
    other = granted(wire, namespace).id
    await keeping.send(lease_id, other)
    assert [(await keeping.read())[0] for _ in range(2)] == [lease_id, other]
    match how:
        case "revoked":
            wire.call(le.RevokeLeaseRequest(namespace=namespace, lease_id=lease_id))
        case "deleted":
            wire.call(s.DeleteRequest(namespace=namespace, key="k"))
        case "overwritten":
            wire.put(namespace, "k")
        case "namespace":
            wire.call(n.DeleteNamespaceRequest(namespace=namespace))
    assert await keeping.read() == (lease_id, 0)
    if how == "namespace":
        assert await keeping.read() == (other, 0)


async def test_a_wrong_renewal_ends_the_stream_after_the_answers(keeping: Keeping, wire: Wire, namespace: str) -> None:
    lease_id = granted(wire, namespace).id
    await keeping.send(lease_id, -1)
    assert (await keeping.read())[0] == lease_id
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await keeping.call.read()
    refused = read_refusal(ended.value)
    assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["lease_id"])


async def test_many_renewals_at_once(keeping: Keeping, wire: Wire, namespace: str) -> None:
    lease_id = granted(wire, namespace).id

    async def send() -> None:
        await keeping.send(*[lease_id] * 3000)

    sending = asyncio.create_task(send())
    for _ in range(3000):
        assert (await keeping.read())[1] > 0
    await sending


@asynccontextmanager
async def alone(**settings: Any) -> AsyncIterator[tuple[Running, Keeping]]:
    async with run(**settings) as running, grpc.aio.insecure_channel(running.server.addresses[0]) as channel:
        keeping = Keeping(channel, "n")
        put = await running.state.Put(s.PutRequest(namespace="n", key="k", ttl=LONG), timeout=TIMEOUT)
        await keeping.send(put.lease_id)
        assert (await keeping.read())[0] == put.lease_id
        yield running, keeping


async def test_a_server_that_ends_says_so_to_who_keeps_leases_alive() -> None:
    async with alone() as (running, keeping):
        await running.server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await keeping.call.read()
        refused = read_refusal(ended.value)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_an_expiry_waits_behind_no_bound_on_writes() -> None:
    async with alone(max_pending=1) as (running, _):
        put = running.state.Put(s.PutRequest(namespace="n", key="brief", ttl=BRIEF), timeout=TIMEOUT)
        await put
        deadline = running.store.clock() + 1_000_000
        running.store.gate.clear()
        held = [
            asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="x"), timeout=TIMEOUT))
            for _ in range(3)  # one under way, one that waits, and one
        ]
        await until(lambda: any(one.done() for one in held))  # that is OVERLOADED
        await until(lambda: running.store.clock() > deadline)
        running.store.gate.set()
        await asyncio.wait(held)

        async def is_gone() -> bool:
            answer = await running.state.Get(s.GetRequest(namespace="n", key="brief"), timeout=TIMEOUT)
            return not answer.HasField("entry")

        await until(is_gone)


def test_limits_of_a_lease_are_settings() -> None:
    settings = ("--limit-lease-ttl-least", "0.2", "--limit-lease-ttl-most", "5", "--limit-leases", "2")
    with (
        servers.start(*settings, "--limit-lease-keys", "1") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        wire = Wire(channel)
        for seconds in (0.1, 5.5):
            ttl = Duration(nanos=int(seconds * 1e9) % 10**9, seconds=int(seconds))
            refused = wire.refused(le.GrantLeaseRequest(namespace="n", ttl=ttl))
            assert refused.fields == {"ttl": "must be from 0.2 to 5 s"}
        first = granted(wire, "n", Duration(seconds=5))
        leased(wire, "n", "a", first.id)
        full = wire.refused(s.PutRequest(namespace="n", key="b", lease_id=first.id))
        assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert full.metadata == {"quota": "keys of a lease", "limit": "1"}
        granted(wire, "n", Duration(seconds=5))
        full = wire.refused(s.PutRequest(namespace="n", key="b", ttl=Duration(seconds=5)))
        assert full.metadata == {"quota": "leases", "limit": "2"}
        assert wire.refused(le.GrantLeaseRequest(namespace="n", ttl=Duration(seconds=5))).reason == "QUOTA_EXCEEDED"
