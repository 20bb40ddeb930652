"""Calls that last end when what they have shown shows nobody any more, and others go on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from comity.v1 import lease_pb2 as le
from comity.v1 import lease_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.access import files, gate
from comity_server.access.jwts import LEEWAY_SECONDS
from comity_server.access.tokens import line_of, new_token, time_of
from tests import servers
from tests.access.bearers import bearing, signed, write_jwks, write_tokens
from tests.access.channels import async_channel
from tests.authority import Authority
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, read_refusal
from tests.wire.inprocess import run
from tests.wire.pipes import connected

FIRST, SECOND = new_token(), new_token()
GET = s.GetRequest(namespace="n", key="k")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.02)


class Streams:
    """One of each call that lasts, of one token, each at work."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.channel = channel
        self._metadata = bearing(token)
        self._state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        self._leases: lease_pb2_grpc.LeaseServiceAsyncStub = lease_pb2_grpc.LeaseServiceStub(channel)

    async def open(self) -> None:
        grant = le.GrantLeaseRequest(namespace="n", ttl=Duration(seconds=60))
        self._lease = (await self._leases.GrantLease(grant, metadata=self._metadata)).lease.id
        self._watch: Any = self._state.Watch(s.WatchRequest(namespace="n", prefix=""), metadata=self._metadata)
        assert await self._watch.read() is not grpc.aio.EOF
        self._pipeline: Any = self._state.Pipeline(metadata=self._metadata)
        self._keepalive: Any = self._leases.KeepAlive(metadata=self._metadata)
        await self.work()

    async def work(self) -> None:
        """Use those that take requests. Raises AioRpcError if one has ended."""
        operation = s.PipelineOperation(id=1, kind=s.PIPELINE_KIND_GET, key="k")
        await self._pipeline.write(s.PipelineRequest(namespace="n", operations=[operation]))
        assert await self._pipeline.read() is not grpc.aio.EOF
        await self._keepalive.write(le.KeepAliveRequest(namespace="n", lease_id=self._lease))
        assert await self._keepalive.read() is not grpc.aio.EOF

    async def ends(self) -> list[Refusal]:
        """Wait for the ends of all."""
        async with asyncio.timeout(TIMEOUT):
            return [await _end(call) for call in (self._watch, self._pipeline, self._keepalive)]


async def _end(call: Any) -> Refusal:
    """How a stream is refused, once it is."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError(await call.code())


@asynccontextmanager
async def streams(token: str, *others: str, **settings: Any) -> AsyncIterator[list[Streams]]:
    """A server, and the streams of some tokens."""
    async with run(**settings) as running, connected(running.server.addresses[0]) as channel:
        made = [Streams(channel, each) for each in (token, *others)]
        for each in made:
            await each.open()
        yield made


def write(file: Path, content: str | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_text(content)


def problems(ends: list[Refusal]) -> list[tuple[grpc.StatusCode, str]]:
    return [(end.code, end.metadata["problem"]) for end in ends]


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def test_streams_of_a_token_that_is_taken_away_end_and_others_go_on(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", first=FIRST, second=SECOND)
    async with streams(FIRST, SECOND, tokens=tmp_path / "tokens") as (first, second):
        write_tokens(tmp_path / "tokens", second=SECOND)
        assert problems(await first.ends()) == [(UNAUTHENTICATED, "unknown")] * 3
        await second.work()


async def test_streams_of_a_token_that_is_somebody_elses_by_now_end(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", first=FIRST, second=SECOND)
    async with streams(FIRST, tokens=tmp_path / "tokens") as (first,):
        write_tokens(tmp_path / "tokens", third=FIRST, second=SECOND)
        ends = await first.ends()
        assert problems(ends) == [(UNAUTHENTICATED, "unknown")] * 3
        assert "somebody else's" in ends[0].message


async def test_a_request_that_comes_late_is_refused_where_the_token_was_taken_away_meanwhile(tmp_path: Path) -> None:
    """Whoever was let in by the headers of a call may send its request whenever it likes."""
    write_tokens(tmp_path / "tokens", first=FIRST, second=SECOND)
    requests: dict[str, Message] = {
        "Put": s.PutRequest(namespace="n", key="late"),
        "Get": GET,
        "Watch": s.WatchRequest(namespace="n"),
    }
    async with (
        run(tokens=tmp_path / "tokens") as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        calls: dict[str, Any] = {
            name: channel.stream_stream(f"/comity.v1.StateService/{name}")(metadata=bearing(FIRST)) for name in requests
        }
        await until(lambda: running.server._access.bounds.open == len(calls))
        write_tokens(tmp_path / "tokens", second=SECOND)
        tokens = running.server._access.gate._identify._tokens  # type: ignore[union-attr]
        await until(lambda: len(tokens.value) == 1)
        for name, request in requests.items():
            await calls[name].write(request.SerializeToString())
            await calls[name].done_writing()
        ends = [await _end(call) for call in calls.values()]
        assert problems(ends) == [(UNAUTHENTICATED, "unknown")] * len(calls)
        found = await running.state.Get(s.GetRequest(namespace="n", key="late"), metadata=bearing(SECOND))
        assert not found.HasField("entry")


async def test_a_wrong_file_ends_nothing(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", first=FIRST)
    async with streams(FIRST, tokens=tmp_path / "tokens") as (first,):
        for content in ("first\n", None):
            with structlog.testing.capture_logs() as logs:
                write(tmp_path / "tokens", content)
                await until(lambda: any(line["log_level"] == "error" for line in logs))
            await first.work()


async def test_streams_end_when_a_jwt_expires(tmp_path: Path) -> None:
    write_jwks(tmp_path / "jwks")
    async with streams(signed("second"), jwks=tmp_path / "jwks") as (second,):
        for seconds in (1, 4, 16, 64):  # how long it is valid, unless the machine is slower than that
            first = Streams(second.channel, signed("first", seconds - LEEWAY_SECONDS))
            try:
                await first.open()
            except grpc.aio.AioRpcError as error:
                if read_refusal(error).metadata["problem"] != "expired":
                    raise
            else:
                break
        assert problems(await first.ends()) == [(UNAUTHENTICATED, "expired")] * 3
        await second.work()


async def test_streams_end_when_the_key_of_a_jwt_is_taken_away(tmp_path: Path) -> None:
    write_jwks(tmp_path / "jwks")
    write_tokens(tmp_path / "tokens", second=SECOND)
    async with streams(signed("first"), SECOND, jwks=tmp_path / "jwks", tokens=tmp_path / "tokens") as (first, second):
        write_jwks(tmp_path / "jwks", kid="new")
        assert problems(await first.ends()) == [(UNAUTHENTICATED, "unknown")] * 3
        await second.work()


async def test_streams_end_when_a_token_is_given_an_end_that_is_past(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", first=FIRST)
    async with streams(FIRST, tokens=tmp_path / "tokens") as (first,):
        write(tmp_path / "tokens", line_of("first", FIRST, time_of("2020-01-01T00:00:00Z")))
        assert problems(await first.ends()) == [(UNAUTHENTICATED, "expired")] * 3


async def test_workers_have_the_same_certificates_and_tokens(redis_url: str, tmp_path: Path) -> None:
    """SIGHUP, which reads files again, is passed on to them."""
    authority, renewed = Authority(), Authority("renewed")
    cert, key = authority.server().write(tmp_path)
    tokens = tmp_path / "tokens"
    write_tokens(tokens, first=FIRST)
    arguments = ("--tls-cert", str(cert), "--tls-key", str(key), "--tokens", str(tokens), "--workers", "2")
    with servers.start("--store", redis_url, *arguments) as server:
        address = server.address.replace("127.0.0.1", "localhost")
        workers = psutil.Process(server.process.pid).children()

        async def known(trusted: bytes, token: str) -> str | None:
            async with async_channel(address, trusted) as channel:
                state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
                try:
                    await state.Get(GET, metadata=bearing(token), timeout=TIMEOUT)
                except grpc.aio.AioRpcError as error:
                    return read_refusal(error).metadata.get("problem", error.code().name)
            return None

        assert [await known(authority.pem, token) for token in (FIRST, SECOND)] == [None, "unknown"]
        renewed.server().write(tmp_path)
        write_tokens(tokens, second=SECOND)
        server.process.send_signal(signal.SIGHUP)
        # Whichever of them has a connection: so each has to log that it knows both.
        await until(lambda: server.log().count("a file has changed and is in force") == 4)
        for _ in range(4):
            assert [await known(renewed.pem, token) for token in (FIRST, SECOND)] == ["unknown", None]
            assert await known(authority.pem, SECOND) == "UNAVAILABLE"
        assert psutil.Process(server.process.pid).children() == workers
        assert server.stop() == 0
