"""What Prometheus and a collector are told."""

import asyncio
import json
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import pytest

import comity
from comity.v1 import state_pb2, state_pb2_grpc
from comity_server.committer import Committer
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.model import NamespaceInfo, Put, Transaction
from comity_server.observing.metrics import MEASURED, NAMESPACE, OBSERVED, Measured, Observed
from comity_server.observing.snapshot import Observer
from comity_server.services.wire import watch_fragment
from comity_server.settings import SettingsError
from comity_server.sources import load
from comity_server.stores.memory.store import MemoryStore
from comity_server.telemetry.tally import NAMESPACES, OTHER, Histogram, Tally
from tests import servers
from tests.access.bearers import bearing
from tests.telemetry.busy import CANARY, NAME
from tests.telemetry.conftest import Busy
from tests.telemetry.prometheus import label_of, read, samples, series
from tests.waiting import until

METRICS = (*MEASURED, *OBSERVED)


def value(text: str, name: str, **labels: str) -> float:
    """What a scrape says of the samples of a name that have these labels, together."""
    return sum(
        measured
        for found, its, measured in samples(text)
        if found == name and all(its.get(label) == said for label, said in labels.items())
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_there_with_its_labels(busy_server: Busy, metric: Measured | Observed) -> None:
    found = [(name, labels) for name, labels, _ in samples(busy_server.first) if name in series(metric)]
    assert {name for name, _ in found} == series(metric)
    for _, labels in found:
        assert labels.keys() - {"le"} == {label_of(attribute) for attribute in metric.attributes}


def test_nothing_else_is_there(busy_server: Busy) -> None:
    known = {name for metric in METRICS for name in series(metric)} | {"target_info"}
    others = {name for name, _, _ in samples(busy_server.first)} - known
    assert all(name.startswith(("process_", "python_")) for name in others), others
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= others


def test_no_label_says_what_clients_choose(busy_server: Busy) -> None:
    text = busy_server.first
    assert CANARY not in text
    assert "planner" not in text
    assert busy_server.token not in text


def test_the_counts_are_those_of_what_was_done(busy_server: Busy) -> None:
    text = busy_server.first
    calls = "rpc_server_call_duration_seconds_count"
    get = "comity.v1.StateService/Get"
    assert value(text, calls, rpc_method=get, rpc_response_status_code="OK") == 1
    assert value(text, calls, rpc_method=get, rpc_response_status_code="INVALID_ARGUMENT") == 4
    assert value(text, calls, rpc_method=get, rpc_response_status_code="OUT_OF_RANGE") == 1
    unauthenticated = {"rpc_method": "comity.v1.StateService/Put", "rpc_response_status_code": "UNAUTHENTICATED"}
    assert value(text, calls, **unauthenticated) == 3
    assert value(text, "comity_errors_total", reason="UNAUTHENTICATED") == 3
    assert value(text, "comity_errors_total", reason="AUTHOR_NOT_PRINCIPAL") == 1
    assert value(text, "comity_commit_writes_total", outcome="conflict") == 4
    assert value(text, "comity_errors_total", reason="CONFLICT") == 4
    assert value(text, "comity_errors_total", reason="TOO_MANY_CALLS") == 1
    assert value(text, "comity_calls_shed_total", limit="max_principal_streams") == 1
    assert value(text, "comity_loop_answering") == 1
    for kind in ("get", "create", "delete", "increment", "list", "transact"):
        assert value(text, "comity_pipeline_operations_total", kind=kind) == 2
    assert value(text, "comity_pipeline_operations_total", kind="put") == 3
    assert value(text, "comity_pipeline_message_duration_seconds_count") == 1
    assert value(text, "comity_lease_expired_total") == 1
    assert value(text, "comity_namespaces") == 2
    assert value(text, "comity_store_writable") == 1
    floor = value(text, "comity_namespace_floor", comity_namespace=NAME)
    assert value(text, "comity_namespace_revision", comity_namespace=NAME) > floor > 0


async def test_a_collector_is_told_the_same(busy_server: Busy) -> None:
    names = {metric.name for metric in METRICS}
    await until(lambda: busy_server.collector.metrics >= names)
    assert busy_server.collector.resource["service.name"] == "comity"
    assert busy_server.collector.resource["service.version"] == comity.__version__


async def test_streams_that_fall_behind_are_seen(busy_server: Busy) -> None:
    """One that its client does not read, beside one that is read."""
    metadata = bearing(busy_server.token)
    async with grpc.aio.insecure_channel(busy_server.server.address) as channel:
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        request = state_pb2.WatchRequest(namespace="lagging", prefix="")
        stalled, reading = stub.Watch(request, metadata=metadata), stub.Watch(request, metadata=metadata)
        await stalled.read()
        await reading.read()

        async def read() -> None:
            while await reading.read() is not grpc.aio.EOF:
                pass

        task = asyncio.create_task(read())

        async def behind() -> bool:
            put = state_pb2.PutRequest(namespace="lagging", key="k", value=bytes(200_000))
            for _ in range(20):
                await stub.Put(put, metadata=metadata)
            return value(await asyncio.to_thread(busy_server.scrape), "comity_watch_lag_max") > 10

        await until(behind)
        text = await asyncio.to_thread(busy_server.scrape)
        assert sum(value(text, "comity_watch_streams", behind=how_far) for how_far in ("<=100", "<=1000")) == 1
        assert value(text, "comity_watch_streams") == 2
        task.cancel()


def test_names_of_namespaces_are_bounded() -> None:
    tally = Tally()
    for number in range(NAMESPACES + 50):
        tally.wrote(f"n{number}", 1, 0.0, 1, 0)
    assert len(tally.namespaces) == NAMESPACES + 1
    assert tally.namespaces[OTHER] == 50
    tally.wrote("failing", 3, 0.0, 0, 1)
    assert tally.namespaces["failing"] == 0
    assert (tally.conflicts, tally.failures) == (1, 2)
    tally.forget({f"n{number}": None for number in range(NAMESPACES - 1)})
    tally.wrote("new", 2, 0.0, 2, 0)
    assert tally.namespaces["new"] == 2


class Idle(NamedTuple):
    draining: bool = False
    connections: int = 0


async def test_of_many_namespaces_some_are_shown_and_the_others_together() -> None:
    store, tally = MemoryStore(Limits()), Tally()
    committer = Committer(store, tally)
    observer = Observer(store, committer, Feed(store, watch_fragment), Idle(), tally)
    names = [f"n{number:03}" for number in range(NAMESPACES + 5)]
    for name in reversed(names):
        await committer.submit(name, Transaction(then=(Put("k", b"v"),)))
    snapshot = await observer.look()
    assert snapshot.everything.namespaces == snapshot.everything.keys == NAMESPACES + 5
    assert {info.name for info in snapshot.namespaces} == set(names[5:])  # those that were written to first
    metric = next(metric for metric in OBSERVED if metric.name == "comity.namespace.keys")
    found = {labels[NAMESPACE]: keys for keys, labels in metric.read(tally, snapshot)}
    assert len(found) == NAMESPACES + 1
    assert found[OTHER] == 5
    await store.delete_namespace(names[-1])
    await until(lambda: forgets(observer, tally, names[-1]))


def names_in(server: servers.Server) -> set[str]:
    """What a scrape calls the namespaces, of which one is written to before."""
    with grpc.insecure_channel(server.address) as channel:
        state: Any = state_pb2_grpc.StateServiceStub(channel)
        state.Put(state_pb2.PutRequest(namespace="plans-of-ann", key="k"), timeout=20)
    text = read(server.metrics_address.replace("0.0.0.0", "127.0.0.1"))
    assert value(text, "comity_namespace_keys") == value(text, "comity_namespace_writes_total") == 1
    return {name for _, labels, _ in samples(text) if (name := labels.get("comity_namespace")) is not None}


def test_others_can_read_no_names_of_namespaces_unless_that_is_said() -> None:
    with servers.start("--metrics-listen", "0.0.0.0:0") as server:
        assert names_in(server) == {OTHER}
        (line,) = [json.loads(line) for line in server.log().splitlines() if "others can read the metrics" in line]
        assert (line["level"], line["address"], line["metrics_namespaces"]) == ("warning", "0.0.0.0:0", False)
    with servers.start("--metrics-listen", "0.0.0.0:0", "--metrics-namespaces") as server:
        assert names_in(server) == {"plans-of-ann"}


class Silent(MemoryStore):
    """A store that does not answer."""

    async def namespaces(
        self, prefix: str, *, after: str = "", limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        await asyncio.Event().wait()
        raise AssertionError

    def trouble(self) -> str:
        return "it is away"


async def test_what_is_known_without_the_store_is_told_without_it() -> None:
    store, tally = Silent(Limits()), Tally()
    observer = Observer(store, Committer(store, Tally()), Feed(store, watch_fragment), Idle(), tally)
    async with asyncio.timeout(20):
        assert (await observer.look()).trouble == "it is away"


async def forgets(observer: Observer, tally: Tally, name: str) -> bool:
    await observer.look()
    return name not in tally.namespaces


def test_a_histogram_counts_what_is_within_its_bounds() -> None:
    histogram = Histogram((1.0, 2.0))
    seen: list[float] = []
    histogram.passed_on = seen.append
    for measured in (0.5, 1.0, 1.5, 99.0):
        histogram.add(measured)
    assert (histogram.counts, histogram.sum, seen) == ([2, 1, 1], 102.0, [0.5, 1.0, 1.5, 99.0])


def taken() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_endpoint_that_is_taken_ends_the_start() -> None:
    listener, address = taken()
    with listener:
        done = servers.run("--metrics-listen", address)
    assert done.returncode == 1
    assert re.search(rf"cannot listen on {address}: .*in use", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("metrics-listen", "nowhere"),
        ("metrics-listen", "127.0.0.1:99999"),
        ("metrics-listen", "127.0.0.1:1,127.0.0.1:2"),
        ("otlp-endpoint", "127.0.0.1:4317"),
        ("otlp-endpoint", "ftp://127.0.0.1:4317"),
        ("otlp-endpoint", "http://127.0.0.1"),
        ("otlp-endpoint", "http://user:pw@127.0.0.1:1/x"),
    ],
)
def test_a_wrong_address_is_refused(setting: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^--{setting}: '.*' is not ") as refused:
        load({setting.replace("-", "_"): said})
    assert repr(said) in str(refused.value)


@pytest.mark.long
def test_each_of_several_processes_has_an_endpoint_of_its_own(redis_url: str) -> None:
    with servers.start("--store", redis_url, "--workers", "2", "--metrics-listen", "127.0.0.1:0") as server:
        said = map(json.loads, server.log().splitlines())
        found = {line["worker"]: line["address"] for line in said if line["event"] == "metrics can be read"}
        assert found.keys() == {1, 2}
        for worker, address in found.items():
            (about,) = [labels for name, labels, _ in samples(read(address)) if name == "target_info"]
            assert about["comity_worker"] == str(worker)
