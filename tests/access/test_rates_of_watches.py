"""Rates and watches: who is held back, in what order it goes on, and what it says meanwhile."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

import comity
from comity.v1 import state_pb2 as s
from comity_server.access import rates
from comity_server.access.limits import Table
from comity_server.feed import Batch, Cursor, Room
from comity_server.model import Put, Transaction
from comity_server.services import paid, pulse
from tests.access.believing import refused
from tests.waiting import until
from tests.wire.calls import TIMEOUT
from tests.wire.inprocess import run

NEVER = 1e-6  # a second: what is taken does not come back while a test lasts
GET = s.GetRequest(namespace="n", key="k")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is held back learns soon that the rate is another one."""
    monkeypatch.setattr(rates, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(paid, "LOOK_SECONDS", 0.01)


async def test_a_watch_is_held_back_by_its_bytes() -> None:
    async with run(rate_namespace_bytes=NEVER, rate_namespace_bytes_burst=5000) as running:
        stream = running.state.Watch(s.WatchRequest(namespace="n", prefix=""))
        await stream.read()
        await running.state.Put(s.PutRequest(namespace="n", key="k", value=bytes(3000)), timeout=TIMEOUT)
        event = await stream.read()
        assert isinstance(event, s.WatchResponse)
        assert event.revision == 1
        assert (await refused(running.state.Get(GET, timeout=TIMEOUT))).reason == "RATE_LIMITED"
        reading = asyncio.ensure_future(stream.read())
        await running.store.commit("n", [Transaction(then=[Put("k", b"")])])
        account = running.server._access.bounds.namespaces.find("n")
        assert account is not None
        await until(account._turn.locked)
        assert not reading.done()
        running.server._access.bounds.use([Table(namespaces=["*"], rate_bytes=0)])
        event = await reading
        assert isinstance(event, s.WatchResponse)
        assert event.revision == 2


async def test_a_watch_that_is_held_back_says_that_it_is_there() -> None:
    async with run(rate_namespace_bytes=NEVER, rate_namespace_bytes_burst=5000) as running:
        request = s.WatchRequest(namespace="n", prefix="", progress_interval=Duration(nanos=100_000_000))
        stream = running.state.Watch(request)
        await stream.read()
        await running.state.Put(s.PutRequest(namespace="n", key="k", value=bytes(3000)), timeout=TIMEOUT)
        event = await stream.read()
        assert isinstance(event, s.WatchResponse)
        assert len(event.commits) == 1
        await running.store.commit("n", [Transaction(then=[Put("k", b"")])])
        account = running.server._access.bounds.namespaces.find("n")
        assert account is not None
        bucket = account._buckets[1]
        assert bucket is not None
        owed = bucket.full_at
        for _ in range(3):
            event = await stream.read()
            assert event == s.WatchResponse(revision=1)
        assert bucket.full_at == owed, "what it says while it waits is not owed, too"
        running.server._access.bounds.use([Table(namespaces=["*"], rate_bytes=0)])
        while event == s.WatchResponse(revision=1):
            event = await stream.read()
        assert isinstance(event, s.WatchResponse)
        assert [commit.revision for commit in event.commits] == [2]


@pytest.mark.parametrize(("size", "sent"), [(3000, 2), (30_000, 1)])
async def test_watches_that_one_commit_wakes_do_not_owe_together(size: int, sent: int) -> None:
    async with run(rate_namespace_bytes=NEVER, rate_namespace_bytes_burst=5000) as running:
        streams = [running.state.Watch(s.WatchRequest(namespace="n", prefix="")) for _ in range(5)]
        for stream in streams:
            await stream.read()
        await running.store.commit("n", [Transaction(then=[Put("k", bytes(size))])])
        account = running.server._access.bounds.namespaces.find("n")
        assert account is not None
        reading = [asyncio.ensure_future(stream.read()) for stream in streams]
        await until(lambda: account._held == len(streams) - sent)
        await until(lambda: sum(one.done() for one in reading) == sent)
        running.server._access.bounds.use([Table(namespaces=["*"], rate_bytes=0)])
        for one in reading:
            event = await one
            assert isinstance(event, s.WatchResponse)
            assert [commit.revision for commit in event.commits] == [1]


async def test_a_watch_that_waits_for_its_turn_leaves_it_when_its_client_goes() -> None:
    async with run(rate_namespace_bytes=NEVER, rate_namespace_bytes_burst=5000) as running:
        stream = running.state.Watch(s.WatchRequest(namespace="n", prefix=""))
        await stream.read()
        account = running.server._access.bounds.namespaces.find("n")
        assert account is not None
        account.charge(0, 10_000)
        await running.store.commit("n", [Transaction(then=[Put("k", b"")])])
        await until(account._turn.locked)
        stream.cancel()
        await until(lambda: not account.is_awaited())


async def test_many_watches_say_less_often_that_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet: list[float] = []
    read = Cursor.read

    async def noted(cursor: Cursor, max_bytes: int, timeout: float, room: Room | None = None) -> Batch:
        quiet.append(timeout)
        return await read(cursor, max_bytes, timeout, room)

    monkeypatch.setattr(Cursor, "read", noted)
    monkeypatch.setattr(pulse, "PER_SECOND", 1 / 50)
    async with run(progress_interval=120) as running:
        streams, told = [], []
        for seconds in (1, 1, 1, 3600):
            request = s.WatchRequest(namespace="n", prefix="", progress_interval=Duration(seconds=seconds))
            streams.append(running.state.Watch(request))
            created = await streams[-1].read()
            assert isinstance(created, s.WatchResponse)
            told.append(created.progress_interval.seconds)
            await until(lambda: len(quiet) == len(streams))
        assert told == [50, 100, 120, 0]
        for waits, most in zip(quiet, (50, 100, 120, 3600), strict=True):
            assert 0.9 * most <= waits <= most


async def test_a_client_has_the_patience_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PER_SECOND", 1 / 50)
    async with (
        run(progress_interval=120) as running,
        comity.connect(running.server.addresses[0], namespace="n") as client,
        client.watch(progress_interval=0.1) as watch,
    ):
        await watch.ready()
        assert watch._following._silence == 3 * 50
        monkeypatch.setattr(pulse, "PER_SECOND", 1_000)
        await client.put("k", 1)
        assert (await anext(watch)).revision == 1
        assert watch._following._silence == pytest.approx(3 * 0.1)


async def test_a_watch_that_is_held_back_ends_with_the_server() -> None:
    async with run(rate_namespace_bytes=NEVER, rate_namespace_bytes_burst=5000) as running:
        stream = running.state.Watch(s.WatchRequest(namespace="n", prefix=""))
        await stream.read()
        await running.state.Put(s.PutRequest(namespace="n", key="k", value=bytes(3000)), timeout=TIMEOUT)
        await stream.read()
        await running.server.stop()
        assert (await refused(stream.read())).reason == "DRAINING"
