"""Rates: what is left of them, who is refused and for how long, and what is held back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from comity.v1 import (
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    namespace_pb2,
    namespace_pb2_grpc,
    types_pb2,
)
from comity.v1 import state_pb2 as s
from comity_server.access import rates
from comity_server.access.bounds import Bounds, address
from comity_server.access.buckets import Bucket, Rate
from comity_server.access.caller import Caller, Identity
from comity_server.access.gate import Gate
from comity_server.access.limits import NamespaceLimits, Rates, Rules, Table
from comity_server.access.rates import Account, Accounts
from comity_server.access.rights import NOTHING, Rights
from comity_server.errors import RateLimited
from comity_server.model import Put, Transaction
from comity_server.services import namespace
from comity_server.services.costs import operations
from comity_server.stores.memory import differences, judge
from tests.access.believing import as_principals, by, refused
from tests.waiting import until
from tests.wire.calls import TIMEOUT, read_refusal
from tests.wire.inprocess import Running, run
from tests.wire.pipes import get, piped, put, transact

NEVER = 1e-6  # a second: what is taken does not come back while a test lasts


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# Whole numbers over powers of two, so that nothing is lost to rounding.
eighths = st.integers(0, 200).map(lambda n: n / 8)
bucket_rates = st.builds(Rate, st.sampled_from([0.25, 0.5, 1.0, 2.0, 16.0]), st.integers(1, 32).map(float))
spendings = st.lists(st.tuples(eighths, st.integers(0, 40)), max_size=40)


@given(bucket_rates, spendings)
def test_a_bucket_is_one_that_is_filled_drop_by_drop(rate: Rate, spent: list[tuple[float, int]]) -> None:
    bucket, now, tokens = Bucket(rate), 0.0, rate.burst
    for pause, cost in spent:
        now += pause
        tokens = min(tokens + pause * rate.per_second, rate.burst)
        wait = bucket.wait(cost, now)
        assert wait == max(min(cost, rate.burst) - tokens, 0.0) / rate.per_second
        assert bucket.is_full(now) == (tokens == rate.burst)
        if not wait:
            bucket.take(cost, now)
            tokens -= cost


@given(bucket_rates, spendings)
def test_what_is_refused_is_there_after_the_wait_and_not_before(rate: Rate, spent: list[tuple[float, int]]) -> None:
    bucket, now = Bucket(rate), 0.0
    for pause, cost in spent:
        now += pause
        wait = bucket.wait(cost, now)
        if wait:
            assert bucket.wait(cost, now + wait / 2) == wait / 2
            now += wait
        assert not bucket.wait(cost, now)
        bucket.take(cost, now)


@given(bucket_rates, bucket_rates, st.integers(0, 64), eighths)
def test_another_rate_goes_on_with_what_is_missing(rate: Rate, other: Rate, cost: int, pause: float) -> None:
    bucket = Bucket(rate)
    bucket.take(cost, 0.0)
    missing = max(cost - pause * rate.per_second, 0.0)
    owed = max(missing - rate.burst, 0.0)
    bucket.change(other, pause)
    assert bucket.wait(0, pause) == max(min(missing, other.burst) + owed - other.burst, 0.0) / other.per_second
    assert bucket.is_full(pause + (min(missing, other.burst) + owed) / other.per_second)


def test_who_owes_nothing_owes_nothing_at_a_lower_rate() -> None:
    bucket = Bucket(Rate(10_000, 10_000))
    bucket.take(10_000, 0.0)
    bucket.change(Rate(10, 10), 0.0)
    assert not bucket.wait(0, 0.0)
    assert bucket.wait(1, 0.0) == pytest.approx(0.1)


def account(clock: Clock, operations: Rate | None = None, size: Rate | None = None) -> Account:
    return Account("rate_principal", "planner", Rates(operations, size), clock)


def test_who_is_refused_is_told_when_to_come_back_and_pays_nothing() -> None:
    clock = Clock()
    planner = account(clock, Rate(2, 4))
    planner.pay(4)
    for _ in range(3):
        with pytest.raises(RateLimited) as refused:
            planner.pay(1)
        assert refused.value.seconds == 0.5
    assert refused.value.metadata == {
        "limit": "rate_principal",
        "of": "planner",
        "rate": "2",
        "unit": "operations",
    }
    clock.now += 0.5
    planner.pay(1)


def test_what_costs_more_than_the_burst_waits_for_a_full_one_and_leaves_a_debt() -> None:
    clock = Clock()
    planner = account(clock, Rate(1, 4))
    planner.pay(10)
    with pytest.raises(RateLimited) as refused:
        planner.pay(1)
    assert refused.value.seconds == 7
    clock.now += 9
    with pytest.raises(RateLimited):
        planner.pay(10)
    clock.now += 1
    planner.pay(10)


def test_bytes_that_are_owed_are_paid_before_the_next_call() -> None:
    clock = Clock()
    planner = account(clock, size=Rate(100, 100))
    planner.pay(1)
    planner.charge(0, 300)
    with pytest.raises(RateLimited) as refused:
        planner.pay(1)
    assert (refused.value.seconds, refused.value.metadata["unit"]) == (2, "bytes")
    clock.now += 2
    planner.pay(1)


def test_a_refusal_says_its_figures_without_exponents() -> None:
    said = RateLimited("rate_principal", "planner", 5_000_000, "bytes", 2000.2)
    assert said.message == (
        "principal planner has 5000000 bytes a second; nothing was done, and it may be tried again in 2000 s"
    )
    assert RateLimited("rate_principal", "planner", 0.5, "operations", 1 / 3).message.endswith("again in 0.333 s")


async def test_who_is_held_back_waits_for_a_turn() -> None:
    clock = Clock()
    planner = account(clock, Rate(1000, 1))
    planner.charge(101, 0)
    done: list[str] = []

    async def hold(name: str) -> None:
        await planner.hold(1, 0)
        done.append(name)

    first, second = asyncio.create_task(hold("first")), asyncio.create_task(hold("second"))
    await asyncio.sleep(0)
    assert not planner.is_whole()
    clock.now += 0.101
    await first
    assert done == ["first"], "what the first one took has to come again"
    planner.change(Rates())
    await second


def test_accounts_are_bounded_and_forgotten_when_nothing_is_missing() -> None:
    clock = Clock()
    accounts = Accounts("rate_namespace", lambda _: Rates(Rate(1, 5)), clock)
    for number in range(2 * rates.ACCOUNTS):
        found = accounts.find(f"n-{number}")
        assert found is not None
        found.pay(1)
    assert len(accounts) == rates.ACCOUNTS
    last = accounts.find(f"n-{number}")
    assert last is not None
    last.pay(4)
    clock.now += 1
    assert accounts.find("another") is not None
    assert len(accounts) == 2, "of the last one something is missing still"
    assert accounts.find(f"n-{number}") is last


def test_the_account_of_who_goes_on_is_kept() -> None:
    clock = Clock()
    accounts = Accounts("rate_namespace", lambda _: Rates(Rate(1, 5)), clock)
    for number in range(2 * rates.ACCOUNTS):
        busy, other = accounts.find("busy"), accounts.find(f"n-{number}")
        assert busy is not None
        assert other is not None
        busy.charge(1, 0)
        other.charge(1, 0)
    busy = accounts.find("busy")
    assert busy is not None
    with pytest.raises(RateLimited):
        busy.pay(1)


def test_what_is_owed_is_not_forgotten_for_who_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "ACCOUNTS", 100)
    clock = Clock()
    accounts = Accounts("rate_namespace", lambda _: Rates(Rate(1, 5)), clock)

    def use(name: str, operations: int) -> None:
        found = accounts.find(name)
        assert found is not None
        found.charge(operations, 0)

    def is_refused(name: str) -> bool:
        found = accounts.find(name)
        assert found is not None
        try:
            found.pay(1)
        except RateLimited:
            return True
        return False

    for number in range(20):
        use(f"owes-{number}", 100_000)
    for number in range(2 * rates.ACCOUNTS):
        use(f"n-{number}", 1)
    assert all(is_refused(f"owes-{number}") for number in range(20))
    assert len(accounts) == rates.ACCOUNTS
    for number in range(2 * rates.ACCOUNTS):
        use(f"m-{number}", 100_000)
    assert is_refused("new"), "all owe"
    assert all(is_refused(f"owes-{number}") for number in range(20))
    assert len(accounts) == rates.ACCOUNTS
    clock.now += 200_000
    assert not is_refused("new")


async def in_turn(planner: Account, clock: Clock, calls: int, streams: int, taken: int) -> list[str]:
    """Who had something, while so much came to be there again one by one, and calls and streams never ended."""
    done: list[str] = []

    async def call() -> None:
        while True:
            await planner.pay_in_turn(1, lambda: 1000.0)
            done.append("call")

    async def stream() -> None:
        while True:
            await planner.hold(1, 0)
            done.append("stream")

    tasks = [asyncio.create_task(stream()) for _ in range(streams)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(call()) for _ in range(calls)]
    while len(done) < taken:
        clock.now += 0.001
        await asyncio.sleep(0.0005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return done


@pytest.mark.parametrize(("calls", "streams"), [(1, 1), (1, 20), (20, 1)])
async def test_calls_and_streams_take_turns(calls: int, streams: int) -> None:
    clock = Clock()
    planner = account(clock, Rate(1000, 1))
    planner.charge(1, 0)
    done = await in_turn(planner, clock, calls, streams, 40)
    assert 15 <= done.count("call") <= 25, done


async def test_a_large_message_takes_turns_with_calls() -> None:
    clock = Clock()
    planner = account(clock, Rate(1000, 10))
    planner.charge(10, 0)
    large = asyncio.create_task(planner.hold(1000, 0))
    await asyncio.sleep(0)
    call = asyncio.create_task(planner.pay_in_turn(1, lambda: 1000.0))
    for _ in range(40):
        clock.now += 0.001
        await asyncio.sleep(0.001)
    assert call.done()
    assert not large.done()
    planner.change(Rates())
    await large


async def test_a_call_waits_for_its_turn_for_a_moment_only() -> None:
    planner = account(Clock(), Rate(1, 1))
    planner.charge(1, 0)
    stream = asyncio.create_task(planner.hold(10, 0))
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await planner.pay_in_turn(1, lambda: 0.01)
    waiting = [asyncio.create_task(planner.pay_in_turn(1, lambda: 1000.0)) for _ in range(rates.WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await planner.pay_in_turn(1, lambda: 1000.0)
    planner.change(Rates())
    await asyncio.gather(stream, *waiting)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.7:5012", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:443", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::1]:443", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:443", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:443", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/comity.sock", "unix"),
        ("", ""),
        ("ipv6:what it may ever say", "ipv6:what it may ever say"),
    ],
)
def test_an_address_is_what_tells_one_host_from_others(peer: str, expected: str) -> None:
    assert address(peer) == expected


def test_a_transaction_is_as_many_operations_as_it_has() -> None:
    one = s.TransactRequest(then=[s.Operation()] * 3, otherwise=[s.Operation()], conditions=[s.Condition()] * 2)
    message = s.PipelineRequest(
        operations=[get("a"), put("b"), s.PipelineOperation(kind=s.PIPELINE_KIND_TRANSACT, transact=one)]
    )
    assert (operations(one), operations(s.TransactRequest()), operations(s.GetRequest())) == (6, 1, 1)
    assert operations(message) == 8
    assert operations(s.PipelineRequest()) == 1, "it is gone through all the same"
    assert (operations(one, 3), operations(one, 2), operations(message, 2)) == (6, 1, 3), "what is refused costs one"


GET = s.GetRequest(namespace="n", key="k")
PUT = s.PutRequest(namespace="n", key="k")


async def test_a_call_beyond_the_rate_of_a_principal_is_refused() -> None:
    async with run(rate_principal=NEVER, rate_principal_burst=3) as running:
        for _ in range(3):
            await running.state.Put(PUT, timeout=TIMEOUT)
        answer = await refused(running.state.Put(PUT, timeout=TIMEOUT))
        assert answer.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (answer.domain, answer.reason) == ("comity", "RATE_LIMITED")
        assert answer.metadata == {"limit": "rate_principal", "of": "127.0.0.1", "rate": "1e-06", "unit": "operations"}
        assert answer.retry_after == 24 * 3600, "it would be eleven days"
        assert running.store.commits_begun == 3
        assert running.server._tally.shed == {"rate_principal": 1}
        await running.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)


async def test_a_principal_that_floods_takes_nothing_from_others() -> None:
    async with run(rate_principal=NEVER, rate_principal_burst=10) as running:
        as_principals(running)
        flood = [running.state.Get(GET, timeout=TIMEOUT, metadata=by("a")) for _ in range(300)]
        calm = [running.state.Get(GET, timeout=TIMEOUT, metadata=by("b")) for _ in range(10)]
        await asyncio.gather(*calm)
        ended = await asyncio.gather(*flood, return_exceptions=True)
        answers = [read_refusal(each) for each in ended if isinstance(each, grpc.aio.AioRpcError)]
        assert len(answers) == 290
        assert {(each.reason, each.metadata["of"]) for each in answers} == {("RATE_LIMITED", "a")}


async def test_the_rate_of_a_namespace_is_that_of_all_who_use_it() -> None:
    async with run(rate_namespace=NEVER, rate_namespace_burst=4) as running:
        as_principals(running)
        two = s.TransactRequest(namespace="n", then=[s.Operation(put=s.PutOperation(key=key)) for key in "ab"])
        for principal in "ab":
            await running.state.Transact(two, timeout=TIMEOUT, metadata=by(principal))
        answer = await refused(running.state.Get(GET, timeout=TIMEOUT, metadata=by("c")))
        assert (answer.reason, answer.metadata["limit"], answer.metadata["of"]) == (
            "RATE_LIMITED",
            "rate_namespace",
            "n",
        )
        await running.state.Get(s.GetRequest(namespace="another", key="k"), timeout=TIMEOUT)


async def test_what_has_more_than_there_may_be_takes_nothing_from_a_namespace() -> None:
    async with run(rate_namespace=NEVER, rate_namespace_burst=5000) as running:
        many = [s.Condition(key="k", exists=False)] * 4000
        asked = s.TransactRequest(namespace="n", conditions=many)
        answer = await refused(running.state.Transact(asked, timeout=TIMEOUT))
        assert (answer.reason, list(answer.fields)) == ("INVALID_REQUEST", ["conditions"])
        async with grpc.aio.insecure_channel(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
            assert (await pipe.one(transact(conditions=many))).error.reason == "INVALID_REQUEST"
        del asked.conditions[1000:]
        for _ in range(4):
            await running.state.Transact(asked, timeout=TIMEOUT)


async def test_messages_without_operations_are_held_back_too() -> None:
    async with run(rate_principal=NEVER, rate_principal_burst=10) as running:
        address = running.server.addresses[0]
        async with grpc.aio.insecure_channel(address) as channel, piped(channel, "n") as pipe:  # which is one
            for _ in range(20):
                await pipe.send_message(s.PipelineRequest())
            account = running.server._access.bounds.principals.find("", "127.0.0.1")
            assert account is not None
            await until(account._turn.locked)
            [connection] = running.server.calls._admission._connections.values()
            assert connection.places == 1, "the one that is held back"
            [method] = running.server._tally.called()
            assert method.received_messages == 10


async def test_what_the_rate_of_a_namespace_refuses_takes_nothing_of_the_principals() -> None:
    rates = {"rate_principal": NEVER, "rate_principal_burst": 6, "rate_namespace": NEVER, "rate_namespace_burst": 2}
    async with run(**rates) as running:
        two = s.TransactRequest(namespace="n", then=[s.Operation(put=s.PutOperation(key=key)) for key in "ab"])
        await running.state.Transact(two, timeout=TIMEOUT)
        for request in (two, two, two):
            answer = await refused(running.state.Transact(request, timeout=TIMEOUT))
            assert answer.metadata["limit"] == "rate_namespace"
        two.namespace = "another"
        await running.state.Transact(two, timeout=TIMEOUT)
        for namespace in ("third", "fourth"):
            await running.state.Get(s.GetRequest(namespace=namespace, key="k"), timeout=TIMEOUT)
        answer = await refused(running.state.Get(s.GetRequest(namespace="fifth", key="k"), timeout=TIMEOUT))
        assert answer.metadata["limit"] == "rate_principal"


class Policied:
    """The planner may read, and nobody else may do anything."""

    def rights(self, principal: str, namespace: str) -> Rights:
        return Rights([""]) if principal == "planner" else NOTHING

    def administers(self, principal: str) -> bool:
        return False


async def test_who_may_do_nothing_in_a_namespace_takes_nothing_from_it() -> None:
    rules = Rules(namespace=NamespaceLimits(Rates(Rate(NEVER, 2))))
    bounds = Bounds(rules)

    async def ask(principal: str) -> None:
        meter = bounds.enter(Caller(Identity(principal), Gate(permissions=Policied)), "unix:", stream=False)
        try:
            await meter.begin("n", 1, 10)
        finally:
            meter.leave()

    for _ in range(10):
        await ask("stranger")
    await ask("planner")
    await ask("planner")
    with pytest.raises(RateLimited):
        await ask("planner")
    assert not bounds.open


async def test_no_account_is_kept_of_what_can_be_no_namespace() -> None:
    bounds = Bounds(Rules(namespace=NamespaceLimits(Rates(Rate(NEVER, 2)))))
    meter = bounds.enter(Caller(Identity(), Gate()), "unix:", stream=False)
    for name in ("", "x" * 64, "x" * 1_000_000):
        await meter.begin(name, 1, 10)
    assert not len(bounds.namespaces)


async def test_bytes_of_answers_count() -> None:
    async with run(rate_principal_bytes=NEVER, rate_principal_bytes_burst=5000) as running:
        value = bytes(4000)
        await running.state.Put(s.PutRequest(namespace="n", key="k", value=value), timeout=TIMEOUT)
        await running.state.Get(GET, timeout=TIMEOUT)
        answer = await refused(running.state.Get(GET, timeout=TIMEOUT))
        assert (answer.reason, answer.metadata["unit"]) == ("RATE_LIMITED", "bytes")


@pytest.fixture
async def slow() -> AsyncIterator[Running]:
    """Of a namespace's operations five are there, and no more come."""
    async with run(rate_namespace=NEVER, rate_namespace_burst=5) as running:
        yield running


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is held back learns soon that the rate is another one."""
    monkeypatch.setattr(rates, "LOOK_SECONDS", 0.01)


def quick(running: Running) -> None:
    """From now on there is no bound."""
    running.server._access.bounds.use([Table(namespaces=["*"], rate=0)])


async def test_a_pipeline_is_held_back_until_it_can_be_paid_for(slow: Running) -> None:
    async with grpc.aio.insecure_channel(slow.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        assert len(await pipe.ask(put("a"), put("b"))) == 2
        await pipe.send(put("c"), put("d"), transact(), get("a"), get("a"), get("a"))
        await pipe.send(put("e"))
        account = slow.server._access.bounds.namespaces.find("n")
        assert account is not None
        await until(lambda: account._turn.locked() and len(pipe.arrived) == 5)
        assert slow.store.commits_begun > 1, "what there was is used"
        quick(slow)
        await until(lambda: len(pipe.arrived) == 9)
        assert not any(each.code for each in pipe.arrived)


async def test_what_cannot_be_paid_for_in_its_time_is_refused_at_once_and_what_can_is_done(slow: Running) -> None:
    async with grpc.aio.insecure_channel(slow.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        results = await pipe.ask(*map(put, "abcdefg"), get("a"), timeout=Duration(seconds=3600))
        assert [each.id for each in results if not each.code] == [1, 2, 3, 4, 5]
        assert [each.id for each in results if each.code] == [6, 7, 8]
        assert {each.error.reason for each in results[5:]} == {"RATE_LIMITED"}
        assert results[5].error.metadata["limit"] == "rate_namespace"
        assert results[5].error.retry_delay.seconds > 3600
        assert slow.server._tally.shed == {"rate_namespace": 3}


async def test_an_end_answers_what_was_begun_of_a_message_and_leaves_out_the_rest(slow: Running) -> None:
    async with grpc.aio.insecure_channel(slow.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        await pipe.send(*map(put, "abcdefg"))
        await until(lambda: len(pipe.arrived) == 5)
        await slow.server.stop()
        assert len(pipe.arrived) == 5
        assert not any(each.code for each in pipe.arrived)
        assert slow.server.calls._admission.connections == 0


async def test_a_server_that_stops_does_not_wait_for_a_rate(slow: Running) -> None:
    async with grpc.aio.insecure_channel(slow.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        await pipe.ask(*map(put, "abcde"))
        await pipe.send(put("f"), get("a"))
        account = slow.server._access.bounds.namespaces.find("n")
        assert account is not None
        await until(lambda: account._turn.locked())
        await slow.server.stop()
        assert slow.store.commits_begun == 1


async def test_what_a_transaction_looks_through_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "STEPS", 1)
    search = s.TransactRequest(namespace="n", conditions=[s.Condition(prefix="a", unchanged_since=1)] * 2)
    async with run(rate_namespace=NEVER, rate_namespace_burst=100) as running:
        for prefix in "ab":
            await running.store.commit("n", [Transaction(then=[Put(f"{prefix}{n}", b"") for n in range(50)])])
        assert (await running.state.Transact(search, timeout=TIMEOUT)).committed
        assert (await refused(running.state.Get(GET, timeout=TIMEOUT))).reason == "RATE_LIMITED"
    async with (
        run(rate_namespace=NEVER, rate_namespace_burst=100) as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
        piped(channel, "n") as pipe,
    ):
        for prefix in "ab":
            await running.store.commit("n", [Transaction(then=[Put(f"{prefix}{n}", b"") for n in range(50)])])
        search.namespace = ""
        await pipe.ask(s.PipelineOperation(kind=s.PIPELINE_KIND_TRANSACT, transact=search))
        assert (await refused(running.state.Get(GET, timeout=TIMEOUT))).reason == "RATE_LIMITED"


@pytest.mark.parametrize("method", ["Restore", "Diff"])
async def test_what_a_restore_or_a_comparison_looks_through_counts(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "STEPS", 1)
    monkeypatch.setattr(differences, "STEPS", 1)
    async with run(rate_namespace=NEVER, rate_namespace_burst=50) as running:
        for prefix in "ab":
            await running.store.commit("n", [Transaction(then=[Put(f"{prefix}{n}", b"") for n in range(100)])])
        checkpoints: Any = checkpoint_pb2_grpc.CheckpointServiceStub(running.channel)
        if method == "Restore":
            restore = checkpoint_pb2.RestoreRequest(namespace="n", ref=types_pb2.Ref(revision=1), dry_run=True)
            await checkpoints.Restore(restore, timeout=TIMEOUT)
        else:
            diff = checkpoint_pb2.DiffRequest(namespace="n", base=types_pb2.Ref(revision=1))
            await checkpoints.Diff(diff, timeout=TIMEOUT)
        assert (await refused(running.state.Get(GET, timeout=TIMEOUT))).reason == "RATE_LIMITED"


async def test_namespaces_that_are_looked_at_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are not shown."""
    monkeypatch.setattr(namespace, "NAMES", 1)
    async with (
        run(rate_principal=NEVER, rate_principal_burst=20) as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        for number in range(30):
            await running.store.commit(f"n{number}", [Transaction(then=[Put("k", b"")])])
        stub: namespace_pb2_grpc.NamespaceServiceAsyncStub = namespace_pb2_grpc.NamespaceServiceStub(channel)
        await stub.ListNamespaces(namespace_pb2.ListNamespacesRequest(prefix="n"), timeout=TIMEOUT)
        assert (await refused(running.state.Get(GET, timeout=TIMEOUT))).reason == "RATE_LIMITED"
