"""Errors out of a gRPC status and a trailer made by hand."""

import pickle
import socket

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

import comity
from comity.retry import Backoff
from comity.status import error_from_call, error_from_status, is_retriable, is_transient
from comity.unreachable import explained


def trailer(*details: Message) -> list[tuple[str, str | bytes]]:
    packed = []
    for detail in details:
        one = any_pb2.Any()
        one.Pack(detail)
        packed.append(one)
    status = status_pb2.Status(details=packed)
    return [("content-type", "application/grpc"), ("grpc-status-details-bin", status.SerializeToString())]


def info(reason: str, domain: str = "comity", **metadata: str) -> Message:
    made: Message = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    return made


def test_a_lost_race_says_where_the_key_stands() -> None:
    error = error_from_status(
        grpc.StatusCode.ABORTED,
        "somebody was faster",
        trailer(info("CONFLICT", key="plan", version="3", mod_revision="17", revision="20")),
    )
    assert isinstance(error, comity.Conflict)
    assert (error.key, error.version, error.mod_revision, error.revision) == ("plan", 3, 17, 20)
    assert (error.prefix, error.changed_revision) == (None, None)
    assert (error.code, error.reason, str(error)) == (grpc.StatusCode.ABORTED, "CONFLICT", "somebody was faster")


def test_a_lost_race_on_a_prefix() -> None:
    error = error_from_status(
        grpc.StatusCode.ABORTED, "", trailer(info("CONFLICT", prefix="a/", changed_revision="9", revision="20"))
    )
    assert isinstance(error, comity.Conflict)
    assert (error.prefix, error.changed_revision, error.key) == ("a/", 9, None)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "SERVER: Received message larger than max (7 vs. 5)",
            "the request has 7 bytes, and the server takes no more than 5",
        ),
        (
            "CLIENT: Received message larger than max (7 vs. 5)",
            "the answer has 7 bytes, and this client takes no more than 5",
        ),
        ("Received message larger than max (7 vs. 5)", "a message has 7 bytes, and its reader takes no more than 5"),
        ("something else", "something else"),
    ],
)
def test_a_message_that_is_too_large_is_said_in_plain_words(said: str, told: str) -> None:
    error = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, said, [])
    assert type(error) is comity.ResourceExhausted
    assert error.message.removesuffix(" in one message") == told


def test_fields_at_fault_are_named() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="then[2].put.key", description="is required")
    error = error_from_status(
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad",
        trailer(info("INVALID_REQUEST"), error_details_pb2.BadRequest(field_violations=[violation])),
    )
    assert isinstance(error, comity.InvalidArgument)
    assert error.violations == (comity.Violation("then[2].put.key", "is required"),)


def test_the_wish_to_wait_is_kept() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    error = error_from_status(grpc.StatusCode.UNAVAILABLE, "busy", trailer(info("OVERLOADED"), retry))
    assert error.retry_delay == 1.5


def test_the_id_of_the_call_is_kept() -> None:
    """Also where the reason is not known."""
    said = trailer(error_details_pb2.RequestInfo(request_id="7f"))
    assert error_from_status(grpc.StatusCode.INTERNAL, "", said).request_id == "7f"
    assert error_from_status(grpc.StatusCode.INTERNAL, "", []).request_id == ""


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("COMPACTED", comity.Compacted),
        ("EPOCH_CHANGED", comity.Compacted),
        ("REVISION_IN_FUTURE", comity.OutOfRange),
    ],
)
def test_what_cannot_be_read_any_more_differs_from_what_cannot_be_read_yet(
    reason: str, kind: type[comity.ComityError]
) -> None:
    error = error_from_status(grpc.StatusCode.OUT_OF_RANGE, "", trailer(info(reason, floor="5", revision="9")))
    assert type(error) is kind
    assert isinstance(error, comity.OutOfRange)
    assert (error.floor, error.revision) == (5, 9)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_an_error_and_keeps_it(code: grpc.StatusCode) -> None:
    error = error_from_status(code, None, [])
    assert isinstance(error, comity.ComityError)
    assert (error.code, error.message, error.reason, error.metadata) == (code, code.name, "", {})


@pytest.mark.parametrize(
    "broken",
    [
        [("grpc-status-details-bin", b"\xff\xff")],
        [("grpc-status-details-bin", "text")],
        trailer(info("CONFLICT", domain="example.com", key="not ours")),
        trailer(status_pb2.Status()),
    ],
)
def test_details_that_are_not_ours_are_left_out(broken: list[tuple[str, str | bytes]]) -> None:
    error = error_from_status(grpc.StatusCode.ABORTED, "lost", broken)
    assert isinstance(error, comity.Conflict)
    assert (error.message, error.reason, error.metadata) == ("lost", "", {})


@pytest.mark.parametrize(
    ("code", "message", "reason", "transient"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", "", True),
        (grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING", True),
        (grpc.StatusCode.CANCELLED, "CANCELLED", "", True),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", "", True),
        (grpc.StatusCode.UNKNOWN, "Stream removed", "", True),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", "", True),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM, says the log", "INTERNAL", False),
        (grpc.StatusCode.INTERNAL, "division by zero", "", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", "", False),
        (grpc.StatusCode.ABORTED, "", "CONFLICT", False),
    ],
)
def test_what_is_worth_another_try(code: grpc.StatusCode, message: str, reason: str, transient: bool) -> None:
    error = error_from_status(code, message, trailer(info(reason)) if reason else [])
    assert is_transient(error) is transient


def test_errors_can_be_pickled() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="key", description="is required")
    error = error_from_status(
        grpc.StatusCode.ABORTED,
        "lost",
        trailer(info("CONFLICT", key="plan", version="3"), error_details_pb2.BadRequest(field_violations=[violation])),
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is comity.Conflict
    assert vars(again) == vars(error)
    assert str(again) == "lost"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote "
            "host: Connection refused",
            "connection refused",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv6:%5B::1%5D:1: connection attempt timed "
            "out before receiving SETTINGS frame",
            "it does not answer",
        ),
        (
            "errors resolving h:1: [field:hostname lookup error:address lookup failed for h:1: Domain name not found]",
            "domain name not found",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Failed parsing HTTP/2 "
            "(Expected SETTINGS frame as the first frame, got frame type 79)",
            "it speaks no HTTP/2, as the port of something else may",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Cannot check peer: missing "
            "selected ALPN property.",
            "it speaks no HTTP/2, as the port of something else may",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Handshake read failed "
            "(Endpoint closing)",
            "it does not answer",
        ),
        (
            "DNS resolution failed for h:1: C-ares status is not ARES_SUCCESS qtype=A name=h is_balancer=0: Domain "
            "name not found",
            "domain name not found",
        ),
    ],
)
def test_why_a_server_cannot_be_reached(said: str, why: str) -> None:
    assert explained(said, "h:1") == ("UNREACHABLE", f"cannot reach h:1: {why}")
    assert explained(f"Socket closed: {said}", "h:1") is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "its certificate has expired"),
        ("CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", "its certificate is not valid yet"),
        (
            "CERTIFICATE_VERIFY_FAILED: self signed certificate: OK",
            "its certificate is signed by none of the authorities that are trusted here (COMITY_TLS_CA)",
        ),
        ("SSLV3_ALERT_BAD_CERTIFICATE: OK", "it does not accept the client certificate"),
        ("NO_SHARED_CIPHER: OK", "no connection by TLS could be made: no_shared_cipher"),
    ],
)
def test_why_there_is_no_connection_by_tls(said: str, why: str) -> None:
    whole = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed "
        f"(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:{said}"
    )
    for text in (whole, whole.replace("Tls", "Ssl").removesuffix(": OK")):  # the latter of older releases
        assert explained(text, "h:1") == ("TLS_FAILED", f"cannot reach h:1: {why}")


@pytest.mark.parametrize(
    "said",
    [
        "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
        "Peer name h is not in peer certificate",
    ],
)
def test_a_certificate_for_another_name(said: str) -> None:
    whole = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: {said}"
    assert explained(whole, "h:1") == ("TLS_FAILED", "cannot reach h:1: its certificate is for another name")


def test_a_lack_of_room_is_no_quota_and_no_absence() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    error = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "later", trailer(info("RATE_LIMITED"), retry))
    assert isinstance(error, comity.RateLimited)
    assert error.retry_after == 1.5
    assert is_retriable(error)
    assert not is_transient(error)
    full = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailer(info("QUOTA_EXCEEDED")))
    assert type(full) is comity.ResourceExhausted
    assert not is_retriable(full)


async def test_a_server_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a try ends with, of which there is one: how many there are in a time is for the machine to say."""
    monkeypatch.setattr(Backoff, "delay", lambda *_: None)
    async with comity.connect("127.0.0.1:1", timeout=60) as client:
        for call in (client.get("a"), client.put("a", 1), client.watch("a").ready(), client.wait_for_ready()):
            with pytest.raises(comity.Unavailable) as raised:
                await call
            error = raised.value
            assert (error.message, error.reason) == ("cannot reach 127.0.0.1:1: connection refused", "UNREACHABLE")
            assert isinstance(error.__cause__, grpc.aio.AioRpcError)
            assert "last error" in (error.__cause__.details() or "")


async def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.getsockname())
        async with comity.connect(address) as client:
            with pytest.raises(comity.DeadlineExceeded, match=rf"^no answer from {address} in time$"):
                await client.get("a", timeout=0.2)
            with pytest.raises(comity.DeadlineExceeded, match=rf"^no answer from {address} within 0.2 s$"):
                await client.watch("a", timeout=0.2).ready()
            for call in (client.get("a", timeout=2.5), client.watch("a", timeout=2.5).ready()):
                with pytest.raises(comity.Unavailable, match=rf"^cannot reach {address}: it does not answer$"):
                    await call


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNIMPLEMENTED, comity.Unimplemented), (grpc.StatusCode.UNAVAILABLE, comity.Unavailable)],
)
def test_what_answers_and_is_no_grpc_server_is_named(code: grpc.StatusCode, kind: type[comity.ComityError]) -> None:
    said = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), "Received http2 header with status: 404"
    )
    error = error_from_call(said, "example.org:443")
    assert (type(error), error.code) == (kind, code)
    assert str(error) == (
        "what answers at example.org:443 is no gRPC server, or a proxy that does not reach one: HTTP 404"
    )
