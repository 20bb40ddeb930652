"""Renewals of leases under rates: none is late for them, and none gets around them."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest

from comity.v1 import lease_pb2, lease_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.access.limits import Table
from comity_server.access.rates import Account
from comity_server.services import renewals
from comity_server.services.renewals import OF_A_TTL, SWEPT, WAITING, Allowances
from tests.access.believing import refused
from tests.waiting import until
from tests.wire.calls import TIMEOUT
from tests.wire.inprocess import Running, run

NEVER = 1e-6  # a second: what is taken does not come back while a test lasts
BURST = 5
TTL = 86_400
FLOOD = 10 * WAITING


class Leases:
    def __init__(self, running: Running, channel: grpc.aio.Channel) -> None:
        self.running = running
        self._stub: lease_pb2_grpc.LeaseServiceAsyncStub = lease_pb2_grpc.LeaseServiceStub(channel)

    async def grant(self, namespace: str = "n") -> int:
        request = lease_pb2.GrantLeaseRequest(namespace=namespace)
        request.ttl.FromSeconds(TTL)
        return (await self._stub.GrantLease(request, timeout=TIMEOUT)).lease.id

    def keep(self) -> "Stream":
        return Stream(self._stub.KeepAlive())

    def account(self) -> Account:
        found = self.running.server._access.bounds.namespaces.find("n")
        assert found is not None
        return found


class Stream:
    """A stream of renewals in one namespace."""

    def __init__(
        self, call: grpc.aio.StreamStreamCall[lease_pb2.KeepAliveRequest, lease_pb2.KeepAliveResponse]
    ) -> None:
        self.call = call

    async def send(self, *lease_ids: int) -> None:
        for lease_id in lease_ids:
            await self.call.write(lease_pb2.KeepAliveRequest(namespace="n", lease_id=lease_id))

    async def read(self, count: int) -> list[int]:
        """The leases that so many answers are of, each of which is alive."""
        leases = []
        for _ in range(count):
            answer = await self.call.read()
            assert isinstance(answer, lease_pb2.KeepAliveResponse), answer
            assert answer.ttl.seconds
            leases.append(answer.lease_id)
        return leases


@pytest.fixture
async def leases() -> AsyncIterator[Leases]:
    """Of a server on which a namespace has a few operations, and then none any more."""
    async with (
        run(rate_namespace=NEVER, rate_namespace_burst=BURST) as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        yield Leases(running, channel)


async def test_a_renewal_that_is_due_waits_for_no_rate(leases: Leases) -> None:
    lease = await leases.grant()
    leases.account().owe(1000)
    stream = leases.keep()
    for _ in range(OF_A_TTL):  # three are due in a ttl
        await stream.send(lease)
        assert await stream.read(1) == [lease]
    stream.call.cancel()


async def test_a_stream_of_renewals_begins_whatever_is_owed() -> None:
    async with (
        run(rate_principal=NEVER, rate_principal_burst=1) as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        leases = Leases(running, channel)
        lease = await leases.grant()
        assert (await refused(running.state.Get(s.GetRequest(namespace="n", key="k")))).reason == "RATE_LIMITED"
        for _ in range(3):
            stream = leases.keep()
            await stream.send(lease)
            assert await stream.read(1) == [lease]
            stream.call.cancel()


async def test_renewals_count_in_their_namespace(leases: Leases) -> None:
    lease = await leases.grant()
    stream = leases.keep()
    await stream.send(*[lease] * (BURST - 1))
    await stream.read(BURST - 1)
    stream.call.cancel()
    answer = await refused(leases.running.state.Get(s.GetRequest(namespace="n", key="k"), timeout=TIMEOUT))
    assert (answer.reason, answer.metadata["limit"]) == ("RATE_LIMITED", "rate_namespace")


async def test_what_comes_too_often_waits_and_holds_up_no_other_lease(leases: Leases) -> None:
    often, other = await leases.grant(), await leases.grant()
    stream = leases.keep()
    await stream.send(*[often] * OF_A_TTL)
    await stream.read(OF_A_TTL)
    await stream.send(*[often] * (WAITING - 1), other)
    assert await stream.read(1) == [other]
    elsewhere = leases.keep()
    await elsewhere.send(often, other)
    assert await elsewhere.read(1) == [other], "a lease has no more for more streams"
    leases.running.server._access.bounds.use([Table(namespaces=["*"], rate=1_000_000)])
    assert await stream.read(WAITING - 1) == [often] * (WAITING - 1)
    assert await elsewhere.read(1) == [often]
    stream.call.cancel()
    elsewhere.call.cancel()


async def test_a_flood_is_not_read(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = 0
    enter = renewals.Turnstile.enter

    async def counted(turnstile: renewals.Turnstile, renewal: renewals.Renewal, size: int) -> None:
        nonlocal entered
        entered += 1
        await enter(turnstile, renewal, size)

    monkeypatch.setattr(renewals.Turnstile, "enter", counted)
    lease = await leases.grant()
    stream = leases.keep()
    await stream.send(*[lease] * FLOOD)
    await stream.read(OF_A_TTL)
    await until(lambda: entered == OF_A_TTL + WAITING)
    assert (await refused(leases.running.state.Get(s.GetRequest(namespace="n", key="k")))).reason == "RATE_LIMITED"
    assert entered == OF_A_TTL + WAITING
    stream.call.cancel()


async def test_what_waits_is_answered_when_the_client_sends_no_more(leases: Leases) -> None:
    lease = await leases.grant()
    stream = leases.keep()
    await stream.send(*[lease] * (OF_A_TTL + 3))
    await stream.call.done_writing()
    assert await stream.read(OF_A_TTL + 3) == [lease] * (OF_A_TTL + 3)
    assert await stream.call.read() is grpc.aio.EOF


async def test_renewals_of_a_lease_that_go_on_together_are_one_to_the_store(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    store = leases.running.store
    keep_alive = store.keep_alive

    async def noted(namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        asked.extend(lease_ids)
        return await keep_alive(namespace, lease_ids)

    lease = await leases.grant()
    stream = leases.keep()
    await stream.send(*[lease] * OF_A_TTL)
    await stream.read(OF_A_TTL)
    await stream.send(*[lease] * (WAITING - 1))
    monkeypatch.setattr(store, "keep_alive", noted)
    await stream.call.done_writing()
    assert await stream.read(WAITING - 1) == [lease] * (WAITING - 1)
    assert asked == [lease]


async def unknown(stream: Stream) -> None:
    """Ask for as many leases that are not there as may be asked for at once."""
    for number in range(renewals.UNKNOWN):
        await stream.send(1000 + number)
        answer = await stream.call.read()
        assert isinstance(answer, lease_pb2.KeepAliveResponse)
        assert not answer.ttl.seconds


async def test_leases_that_are_not_there_are_asked_for_no_faster(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "UNKNOWN_SECONDS", 1e6)
    await leases.grant()
    stream = leases.keep()
    await unknown(stream)
    await stream.send(5000)
    account = leases.account()
    await until(lambda: bool(account._held))
    stream.call.cancel()


async def test_a_lease_of_which_nothing_is_known_waits_for_a_moment_only(leases: Leases) -> None:
    lease = await leases.grant()
    stream = leases.keep()
    await unknown(stream)
    await stream.send(lease)
    assert await stream.read(1) == [lease]
    stream.call.cancel()


def test_what_is_remembered_of_leases_is_forgotten_when_nothing_is_missing() -> None:
    now = 0.0
    allowances = Allowances(lambda: now)
    for number in range(SWEPT):
        allowances.take(("n", number))
        allowances.renewed(("n", number), 1_000_000)
    assert len(allowances) == SWEPT
    now = 1.0
    allowances.take(("n", SWEPT))
    assert len(allowances) == 1


def test_a_lease_has_its_renewals_again_in_a_ttl() -> None:
    now = 0.0
    allowances, lease = Allowances(lambda: now), ("n", 1)

    def renew(micros: int) -> None:
        assert not allowances.seconds(lease)
        allowances.take(lease)
        allowances.renewed(lease, micros)

    renew(1)  # what was slow to be answered
    now = 1.0
    for _ in range(OF_A_TTL):
        renew(12_000_000)
    assert allowances.seconds(lease) == pytest.approx(12 / OF_A_TTL)
    now = 13.0
    for _ in range(OF_A_TTL):
        renew(12_000_000)
    assert allowances.seconds(lease)
