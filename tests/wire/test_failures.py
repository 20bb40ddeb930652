"""What a client is told when the server itself is in trouble, and what the server does about clients in trouble."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from structlog.testing import capture_logs

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server import errors
from comity_server.server import grpc_options
from comity_server.services import status
from comity_server.settings import Settings
from tests.proxy import Proxy
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, read_refusal
from tests.wire.inprocess import Running, run

SECRET = "Traceback of a library"
TRAILER_BYTES = 8192
INT32_MOST = 2**31 - 1
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
PINGING = [
    OWN_CONNECTION,
    ("grpc.keepalive_time_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
QUIET = s.WatchRequest(namespace="n", prefix="", progress_interval=Duration(seconds=3600))


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return read_refusal(raised.value)


def failing(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def calls(running: Running) -> list[Callable[[], Awaitable[object]]]:
    state = running.state
    return [
        lambda: state.Get(s.GetRequest(namespace="n", key="k"), timeout=TIMEOUT),
        lambda: state.List(s.ListRequest(namespace="n"), timeout=TIMEOUT),
        lambda: state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT),
        lambda: state.Watch(s.WatchRequest(namespace="n", prefix=""), timeout=TIMEOUT).read(),
    ]


def break_store(running: Running, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    for method in ("get", "list", "commit", "follow"):
        monkeypatch.setattr(running.store, method, failing(error))


async def test_a_defect_is_internal_and_its_trace_stays_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:
        with monkeypatch.context() as broken, capture_logs() as log:
            break_store(running, broken, RuntimeError(SECRET))
            for call in calls(running):
                answer = await refused(call())
                assert SECRET not in str(answer)
                if answer.code is grpc.StatusCode.UNAVAILABLE:  # the end of a write is unknown, whatever the reason
                    continue
                assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
                assert answer.metadata["error_id"] in answer.message
                (line,) = [one for one in log if one.get("error_id") == answer.metadata["error_id"]]
                assert line["method"].startswith("comity.v1.StateService/")
                assert SECRET in str(line["exc_info"])
        for call in calls(running):
            await call()


async def test_a_store_in_trouble_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:
        with monkeypatch.context() as broken, capture_logs() as log:
            break_store(running, broken, errors.StoreUnavailable("the disk is full"))
            for call in calls(running):
                answer = await refused(call())
                assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                assert answer.retry_after is not None
                assert answer.message == "the disk is full"
            assert not [line for line in log if line["log_level"] == "error"]
        for call in calls(running):
            await call()


async def test_streams_of_a_client_that_does_not_answer_any_more_end() -> None:
    async with (
        run(keepalive_time=1, keepalive_timeout=0.5) as running,
        Proxy(running.server.addresses[0]) as proxy,
        grpc.aio.insecure_channel(proxy.address) as channel,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        stream = stub.Watch(s.WatchRequest(namespace="n", prefix="", progress_interval=Duration(seconds=60)))
        await stream.read()
        assert running.server.calls.streams == 1
        proxy.stall()
        await until(lambda: running.server.calls.streams == 0, 30)
        proxy.resume()


async def pings_sent(tools: Any, address: str) -> int:
    """The pings that this process's clients of an address have sent, on the connections that they have now."""
    sent = 0
    for channel in (await tools.GetTopChannels(channelz_pb2.GetTopChannelsRequest())).channel:
        if not channel.data.target.endswith(address):
            continue
        for ref in channel.subchannel_ref:
            found = await tools.GetSubchannel(channelz_pb2.GetSubchannelRequest(subchannel_id=ref.subchannel_id))
            for socket in found.subchannel.socket_ref:
                shown = await tools.GetSocket(channelz_pb2.GetSocketRequest(socket_id=socket.socket_id))
                sent += shown.socket.data.keep_alives_sent
    return sent


@pytest.mark.parametrize("in_a_call", [True, False])
async def test_a_client_may_ping_a_quiet_connection(in_a_call: bool) -> None:
    async with (
        run(keepalive_least=0.05) as running,
        Proxy(running.server.addresses[0]) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=PINGING) as channel,
        grpc.aio.insecure_channel(running.server.addresses[0], options=[OWN_CONNECTION]) as other,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        if in_a_call:
            stream = stub.Watch(QUIET)
            await stream.read()
        else:
            await stub.Get(s.GetRequest(namespace="n", key="k"), timeout=TIMEOUT)
        tools: Any = channelz_pb2_grpc.ChannelzStub(other)  # type: ignore[arg-type]  # takes either kind

        async def enough() -> bool:  # gRPC sends away who pings four times too early
            return await pings_sent(tools, proxy.address) >= 5

        await until(enough)
        await stub.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT)
        if in_a_call:
            seen = await stream.read()
            assert isinstance(seen, s.WatchResponse)
            assert seen.revision == 1
        assert proxy.connections == 1


async def test_a_client_that_pings_too_often_is_sent_away() -> None:
    async with (
        run(keepalive_least=3600) as running,
        grpc.aio.insecure_channel(running.server.addresses[0], options=PINGING) as channel,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        stream = stub.Watch(QUIET, timeout=60)
        await stream.read()
        answer = await refused(stream.read())
        assert (answer.code, answer.message) == (grpc.StatusCode.UNAVAILABLE, "Too many pings")


async def test_a_burst_beyond_what_may_wait_is_overload() -> None:
    """From several connections at once, and while the server has not come to any of it: nothing else may refuse it."""
    connections, each = 20, 100
    async with run(max_pending=1, max_connection_calls=each) as running, AsyncExitStack() as stack:
        running.store.gate.clear()
        puts = []
        for _ in range(connections):
            channel = grpc.aio.insecure_channel(running.server.addresses[0], options=[OWN_CONNECTION])
            stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(
                await stack.enter_async_context(channel)
            )
            await channel.channel_ready()
            puts += [stub.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT) for _ in range(each)]
        ended = [asyncio.ensure_future(refused(put)) for put in puts]
        await until(lambda: sum(one.done() for one in ended) >= len(puts) - 2)  # one is committed, and one waits
        for one in ended:
            if one.done():
                answer = one.result()
                assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
                assert answer.retry_after is not None
            else:
                one.cancel()


@pytest.mark.parametrize("max_pending", [1, 10_000, 10_000_000])
@pytest.mark.parametrize("max_connection_calls", [1, 10_000, 1_000_000])
def test_what_grpc_lets_wait_is_far_more_than_the_committer(max_pending: int, max_connection_calls: int) -> None:
    options = dict(grpc_options(Settings(max_pending=max_pending, max_connection_calls=max_connection_calls)))
    soft = options["grpc.server.max_pending_requests"]
    hard = options["grpc.server.max_pending_requests_hard_limit"]
    assert max(100_000, 10 * max_pending) <= soft <= hard <= INT32_MOST


def tree(kind: type[errors.StateError]) -> list[type[errors.StateError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


CODES: dict[type[errors.StateError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.LeaseLost: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RequestIdForgotten: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotANumber: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotAFork: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.NamespaceNotFound: grpc.StatusCode.NOT_FOUND,
    errors.CheckpointNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LeaseNotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NamespaceExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.CheckpointExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.OutsideHistory: grpc.StatusCode.OUT_OF_RANGE,
    errors.Compacted: grpc.StatusCode.OUT_OF_RANGE,
    errors.RevisionInFuture: grpc.StatusCode.OUT_OF_RANGE,
    errors.EpochChanged: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CommitTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ResultTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TransactionTooCostly: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ForkTooDeep: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyCalls: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineReached: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.TooManyPipelines: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.UNAVAILABLE,
    errors.RequestTimeout: grpc.StatusCode.UNAVAILABLE,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.AuthorNotPrincipal: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotImplementedYet: grpc.StatusCode.UNIMPLEMENTED,
}
# A store may tell some of them apart by classes of its own, which callers are not told of.
KINDS = [kind for kind in tree(errors.StateError)[1:] if kind.__module__ == errors.__name__]


def test_every_error_has_the_code_of_the_contract() -> None:
    assert set(CODES) == set(KINDS)
    assert CODES.items() >= status.CODES.items()
    for kind, code in CODES.items():
        error = kind.__new__(kind)
        errors.StateError.__init__(error, "")
        if isinstance(error, errors.InvalidRequest):
            error.violations = []
        assert status.answer(error).code is code, kind.__name__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("letter", ["x", "\x01", "é", "\U0001f600"])
def test_every_error_fits_into_a_trailer(kind: type[errors.StateError], letter: str) -> None:
    long = letter * 5000
    error = kind.__new__(kind)
    errors.StateError.__init__(error, long, key=long, revision=2**63 - 1)
    if isinstance(error, errors.InvalidRequest):
        error.violations = [errors.Violation(long, long)] * 1000
        error.metadata = {}
    _, message, ((name, details),) = status.answer(error)
    on_the_wire = sum(1 if 0x20 <= byte < 0x7F and byte != 0x25 else 3 for byte in message.encode())
    assert on_the_wire + len(name) + len(details) * 4 / 3 < TRAILER_BYTES - 512
