"""What a collector is told of calls and commits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.v1 import server_pb2, server_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.observing.exporting import Exporting
from comity_server.settings import Settings, SettingsError
from tests import servers
from tests.access.bearers import bearing
from tests.telemetry.busy import CANARY, NAME, PARENT, TRACE, TRACED
from tests.telemetry.collector import Collector, Span, collecting
from tests.telemetry.conftest import SOON, Busy
from tests.waiting import until
from tests.wire.calls import Metadata

STATE = "/comity.v1.StateService"


async def one(collector: Collector, matches: Callable[[Span], bool]) -> Span:
    """The first span that is like this, once it has come."""
    await until(lambda: any(map(matches, collector.spans)))
    return next(filter(matches, collector.spans))


async def open_calls(channel: grpc.aio.Channel, metadata: Metadata = ()) -> dict[str, int]:
    """How many the server has in progress, by method, of those that it has had calls of."""
    stub: server_pb2_grpc.ServerServiceAsyncStub = server_pb2_grpc.ServerServiceStub(channel)
    status = (await stub.GetStatus(server_pb2.GetStatusRequest(), metadata=metadata)).status
    return {f"/{method.method}": method.open for method in status.methods}


async def has_no_watch(channel: grpc.aio.Channel) -> bool:
    """Whether the server has seen its end, too."""
    return (await open_calls(channel))[f"{STATE}/Watch"] == 0


async def test_a_call_goes_on_with_the_trace_of_its_client(busy_server: Busy) -> None:
    span = await one(busy_server.collector, lambda span: span.trace_id == TRACE)
    assert (span.name, span.parent_id) == (f"{STATE}/Put", PARENT)
    assert span.attributes["rpc.grpc.status_code"] == 0
    assert span.attributes["rpc.response.status_code"] == "OK"
    assert span.attributes["comity.namespace"] == NAME
    assert span.attributes["net.peer.ip"] == "127.0.0.1"
    assert not span.is_error


async def test_there_is_nothing_in_spans_that_is_secret(busy_server: Busy) -> None:
    async with grpc.aio.insecure_channel(busy_server.server.address) as channel:
        called = set(await open_calls(channel, bearing(busy_server.token)))
    await until(lambda: called <= {span.name for span in busy_server.collector.spans})
    for span in busy_server.collector.spans:
        assert CANARY not in span.text
        assert busy_server.token not in span.text


async def test_a_commit_links_to_the_calls_that_it_carries(busy_server: Busy) -> None:
    call = await one(busy_server.collector, lambda span: span.trace_id == TRACE)
    commit = await one(busy_server.collector, lambda span: span.name == "commit" and call.span_id in span.links)
    assert PARENT in commit.links
    assert commit.trace_id != TRACE
    assert commit.attributes == {"comity.namespace": NAME, "comity.writes": 1}
    together = await one(busy_server.collector, lambda span: span.attributes.get("comity.writes", 0) > 1)
    pipeline = await one(busy_server.collector, lambda span: span.name == f"{STATE}/Pipeline")
    assert set(together.links) == {PARENT, pipeline.span_id}


async def test_a_refusal_and_a_cancellation_are_ends_of_spans(busy_server: Busy) -> None:
    for method, code in (
        ("Get", grpc.StatusCode.INVALID_ARGUMENT),
        ("Put", grpc.StatusCode.UNAUTHENTICATED),
        ("Put", grpc.StatusCode.ABORTED),
        ("Watch", grpc.StatusCode.CANCELLED),
        ("Watch", grpc.StatusCode.OUT_OF_RANGE),
        ("Pipeline", grpc.StatusCode.OK),
    ):
        span = await one(
            busy_server.collector,
            lambda span, method=method, code=code: (  # type: ignore[misc]
                (span.name, span.attributes.get("rpc.response.status_code")) == (f"{STATE}/{method}", code.name)
            ),
        )
        assert span.attributes["rpc.grpc.status_code"] == code.value[0]
        assert not span.is_error  # they are the clients'
        assert not span.events  # and no exceptions


async def test_a_call_has_one_span_and_one_that_is_grpcs_own_none() -> None:
    with (
        collecting() as collector,
        servers.start("--otlp-endpoint", f"http://{collector.address}") as server,
    ):
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            await health.Check(health_pb2.HealthCheckRequest(), metadata=TRACED)
            assert await health.Watch(health_pb2.HealthCheckRequest(), metadata=TRACED).read()
            await stub.Put(s.PutRequest(namespace=NAME, key="k"), metadata=TRACED)
            watch = stub.Watch(s.WatchRequest(namespace=NAME, key="k"), metadata=TRACED)
            await watch.read()
            watch.cancel()
            await until(partial(has_no_watch, channel))
        server.stop()
    assert sorted(span.name for span in collector.spans if span.trace_id == TRACE) == [f"{STATE}/Put", f"{STATE}/Watch"]


async def test_what_was_not_sent_yet_is_sent_at_the_end_and_a_deadline_is_an_error() -> None:
    with collecting() as collector:
        variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "mine"}
        env = variables | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}"}
        with servers.start(env=env) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
                watch = stub.Watch(s.WatchRequest(namespace=NAME, key="k"), timeout=0.5)
                await watch.read()
                with pytest.raises(grpc.aio.AioRpcError):
                    await watch.read()
                await until(partial(has_no_watch, channel))
            assert not collector.spans
            server.stop()
        (span,) = [span for span in collector.spans if span.name == f"{STATE}/Watch"]
        assert (span.attributes["rpc.response.status_code"], span.is_error) == ("DEADLINE_EXCEEDED", True)
        assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert not collector.metrics


def test_a_collector_that_is_not_there_holds_up_nothing() -> None:
    with (
        servers.start("--otlp-endpoint", "http://127.0.0.1:1", env=SOON) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = state_pb2_grpc.StateServiceStub(channel)
        for number in range(20):
            stub.Put(s.PutRequest(namespace=NAME, key="k", value=bytes(number)), timeout=5)
        assert server.stop(timeout=15) == 0


@pytest.mark.parametrize(
    ("variables", "traced"),
    [({}, True), ({"OTEL_TRACES_EXPORTER": "none"}, False), ({"OTEL_SDK_DISABLED": "true"}, False)],
)
async def test_variables_switch_traces_off(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], traced: bool
) -> None:
    for name, said in variables.items():
        monkeypatch.setenv(name, said)
    exporting = Exporting(Settings(otlp_endpoint="http://127.0.0.1:1"), "1")
    assert (exporting.tracing is not None) == traced
    await exporting.stop()


@pytest.mark.parametrize("signal", ["TRACES", "METRICS"])
def test_an_exporter_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, signal: str) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none, carrier-pigeon")
    with pytest.raises(SettingsError, match=f"^OTEL_{signal}_EXPORTER: 'carrier-pigeon' is no exporter"):
        Exporting(Settings(), "1")


def test_a_propagator_that_is_not_installed_is_refused() -> None:
    with pytest.raises(RuntimeError, match="comity: OTEL_PROPAGATORS: Propagator carrier-pigeon not found"):
        servers.start("--otlp-endpoint", "http://127.0.0.1:1", env={"OTEL_PROPAGATORS": "carrier-pigeon"})
