"""What a client is told when the server itself is in trouble, and what the server does about clients in trouble."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server import errors
from comity_server.services import status
from tests.proxy import Proxy
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, read_refusal
from tests.wire.inprocess import Running, run

SECRET = "Traceback of a library"
TRAILER_BYTES = 8192


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
                assert line["method"].startswith("comity.v1.StateService.")
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


def tree(kind: type[errors.StateError]) -> list[type[errors.StateError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


KINDS = [kind for kind in tree(errors.StateError) if kind is not errors.StateError]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("letter", ["x", "\x01", "é", "\U0001f600"])
def test_every_error_has_a_code_and_fits_into_a_trailer(kind: type[errors.StateError], letter: str) -> None:
    long = letter * 5000
    error = kind.__new__(kind)
    errors.StateError.__init__(error, long, key=long, revision=2**63 - 1)
    if isinstance(error, errors.InvalidRequest):
        error.violations = [errors.Violation(long, long)] * 1000
        error.metadata = {}
    code, message, ((name, details),) = status.answer(error)
    assert code in {code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL)}
    on_the_wire = sum(1 if 0x20 <= byte < 0x7F and byte != 0x25 else 3 for byte in message.encode())
    assert on_the_wire + len(name) + len(details) * 4 / 3 < TRAILER_BYTES - 512
