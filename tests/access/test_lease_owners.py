"""Leases of others, whose ids can be guessed: whoever asks for one before it is there has nothing of it later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import lease_pb2 as le
from comity.v1 import lease_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.model import LeaseInfo
from comity_server.stores.memory.store import MemoryStore
from tests.access.believing import as_principals, by, refused
from tests.access.principals import write_policy
from tests.waiting import until
from tests.wire.calls import TIMEOUT, read_refusal
from tests.wire.inprocess import Running, run

GRANT = le.GrantLeaseRequest(namespace="n", ttl=Duration(seconds=60))


class Leases(NamedTuple):
    running: Running
    stub: Any

    async def grant(self, principal: str) -> int:
        answer = await self.stub.GrantLease(GRANT, timeout=TIMEOUT, metadata=by(principal))
        return answer.lease.id  # type: ignore[no-any-return]

    def revoke(self, principal: str, lease_id: int) -> Any:
        request = le.RevokeLeaseRequest(namespace="n", lease_id=lease_id)
        return self.stub.RevokeLease(request, timeout=TIMEOUT, metadata=by(principal))

    def keep_alive(self, principal: str) -> Any:
        return self.stub.KeepAlive(timeout=TIMEOUT, metadata=by(principal))


async def renewed(stream: Any, lease_id: int) -> float:
    """Renew a lease. Returns how long it lives, in seconds."""
    await stream.write(le.KeepAliveRequest(namespace="n", lease_id=lease_id))
    answer = await stream.read()
    assert isinstance(answer, le.KeepAliveResponse), read_refusal(await ended(stream))
    assert answer.lease_id == lease_id
    return answer.ttl.ToMicroseconds() / 1e6


async def ended(stream: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()
    return failed.value


@pytest.fixture
async def leases(tmp_path: Path) -> AsyncIterator[Leases]:
    """Those of a server on which two principals may write different keys of a namespace."""
    rules: Sequence[Any] = [
        {"principals": [who], "namespaces": ["n"], "prefixes": [f"{who}/"], "allow": ["read", "write"]}
        for who in ("ann", "eve")
    ]
    async with run(policy=write_policy(tmp_path / "policy.toml", rules)) as running:
        as_principals(running)
        async with grpc.aio.insecure_channel(running.server.addresses[0]) as channel:
            yield Leases(running, lease_pb2_grpc.LeaseServiceStub(channel))


async def test_a_revoke_that_was_asked_before_the_grant_landed_ends_nothing(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, committer = leases.running.store.gate, leases.running.server._committer
    first_id = await leases.grant("ann")
    id = first_id + 2  # of the second group behind it
    monkeypatch.setattr(leases.running.store, "time", lambda: first_id)  # so that the next ids can be told
    gate.clear()
    put = s.PutRequest(namespace="n", key="ann/k")
    first = asyncio.ensure_future(leases.running.state.Put(put, timeout=TIMEOUT, metadata=by("ann")))
    await until(lambda: leases.running.store.commits_begun == 2)
    grant = asyncio.ensure_future(leases.grant("ann"))
    await until(lambda: committer.pending == 1)
    denied = asyncio.ensure_future(refused(leases.revoke("eve", id)))
    await until(lambda: committer.pending == 2)
    gate.set()
    await first
    assert await grant == id
    answer = await denied
    assert leases.running.store.commits_begun == 3  # the grant and the revoke were one group
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert answer.metadata["lease_id"] == str(id)
    await leases.revoke("ann", id)


async def test_who_asked_to_renew_a_lease_before_there_was_one_does_not_renew_another_s(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = leases.running.store.time()
    monkeypatch.setattr(leases.running.store, "time", lambda: id)
    stream = leases.keep_alive("eve")
    assert await renewed(stream, id) == 0
    assert await leases.grant("ann") == id
    await stream.write(le.KeepAliveRequest(namespace="n", lease_id=id))
    assert read_refusal(await ended(stream)).metadata["lease_id"] == str(id)


async def test_a_lease_that_there_is_not_is_not_renewed(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there, and another's, by the time that the store is asked to renew it."""
    lease = MemoryStore.lease

    async def before(store: MemoryStore, namespace: str, id: int) -> LeaseInfo:
        try:
            return await lease(store, namespace, id)
        finally:
            await leases.grant("ann")

    id = await leases.grant("ann")
    monkeypatch.setattr(leases.running.store, "time", lambda: id)  # so that the next id can be told
    monkeypatch.setattr(MemoryStore, "lease", before)
    stream = leases.keep_alive("eve")
    assert await renewed(stream, id + 1) == 0
    assert not await leases.running.store.ended("n", [id + 1])
    stream.cancel()


async def test_answers_keep_their_order_where_some_leases_have_ended(leases: Leases) -> None:
    ids = [await leases.grant("eve") for _ in range(2)]
    stream = leases.keep_alive("eve")
    for lease_id in (ids[0], 99, ids[1]):
        await stream.write(le.KeepAliveRequest(namespace="n", lease_id=lease_id))
    answers = [await stream.read() for _ in range(3)]
    said = [(answer.lease_id, answer.ttl.seconds > 0) for answer in answers]
    assert said == [(ids[0], True), (99, False), (ids[1], True)]
    stream.cancel()


async def test_what_was_found_before_the_rights_changed_is_not_remembered(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = MemoryStore.lease
    asked, goes_on = asyncio.Queue[int](), asyncio.Event()

    async def slow(store: MemoryStore, namespace: str, id: int) -> LeaseInfo:
        asked.put_nowait(id)
        await goes_on.wait()
        return await lease(store, namespace, id)

    monkeypatch.setattr(MemoryStore, "lease", slow)
    lease_id = await leases.grant("eve")
    stream = leases.keep_alive("eve")
    renewing = asyncio.ensure_future(renewed(stream, lease_id))
    await asked.get()
    for standing in leases.running.server._access.gate._standings:
        standing.look()
    goes_on.set()
    assert await renewing > 0
    assert asked.empty()
    for _ in range(2):
        assert await renewed(stream, lease_id) > 0
    assert asked.qsize() == 1  # once more, and then it is known
    stream.cancel()
