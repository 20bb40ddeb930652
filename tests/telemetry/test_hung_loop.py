"""What is told of a server whose event loop does nothing any more."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from comity_server.committer import Committer
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.observing import instruments, snapshot
from comity_server.observing.snapshot import Observer, Snapshot
from comity_server.services.wire import watch_fragment
from comity_server.stores.memory.store import MemoryStore
from comity_server.telemetry.tally import Tally
from tests.telemetry.prometheus import samples
from tests.telemetry.test_metrics import Idle
from tests.waiting import until

ANSWERING = "comity_loop_answering"


class Scraped:
    """What Prometheus would read, with the number of looks that it took."""

    def __init__(self, observer: Observer, tally: Tally) -> None:
        self.looks = 0
        self._observer = observer
        self._registry = CollectorRegistry()
        provider = MeterProvider(
            [PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)], shutdown_on_exit=False
        )
        instruments.register(provider.get_meter("test"), tally, self._look)

    def read(self) -> dict[str, float]:
        text = generate_latest(self._registry).decode()
        return {name: measured for name, labels, measured in samples(text) if not labels}

    def _look(self) -> Snapshot:
        self.looks += 1
        return self._observer.look_from_thread()


@contextmanager
def looked_at(tally: Tally) -> Iterator[tuple[Observer, asyncio.AbstractEventLoop]]:
    """An observer, on the loop of another thread."""
    store = MemoryStore(Limits())
    loop = asyncio.new_event_loop()

    async def observe() -> Observer:
        observer = Observer(store, Committer(store, tally), Feed(store, watch_fragment), Idle(), tally)
        running.append(asyncio.create_task(observer.run()))
        return observer

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    running: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(observe(), loop).result(60), loop
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def hung(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    begun, ends = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        ends.wait()

    loop.call_soon_threadsafe(hang)
    begun.wait()
    try:
        yield
    finally:
        ends.set()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets for how long a thread waits."""
    return lambda seconds: monkeypatch.setattr(snapshot, "THREAD_SECONDS", seconds)


async def test_a_scrape_waits_once_and_says_what_needs_no_loop(patient: Any) -> None:
    tally = Tally()
    with looked_at(tally) as (observer, loop):
        scraped = Scraped(observer, tally)
        assert (scraped.read()[ANSWERING], scraped.looks) == (1, 1)
        tally.leases_expired = 7
        patient(0.05)
        with hung(loop):
            await until(lambda: scraped.read()[ANSWERING] == 0)
            patient(3600)
            looks = scraped.looks
            told = await asyncio.to_thread(scraped.read)  # for an hour, if it would wait again
            assert (told[ANSWERING], scraped.looks) == (0, looks + 1)
            assert told["comity_lease_expired_total"] == 7
            assert told["comity_store_writable"] == 1


async def test_after_a_while_the_loop_is_asked_again(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    with looked_at(tally) as (observer, loop):
        monkeypatch.setattr(snapshot, "HUNG_SECONDS", 0.05)
        patient(0.05)
        with hung(loop):
            await until(lambda: not observer.look_from_thread().answering)
        patient(60)
        await until(lambda: observer.look_from_thread().answering)
