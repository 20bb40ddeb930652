"""What a client may send on one connection, as Hypothesis draws it: calls as they should be, frames of every kind out
of place, header blocks and messages that lie, and bytes that are something else altogether."""

import gzip
import ssl

from hpack import Encoder
from hyperframe.frame import DataFrame, ExtensionFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame
from hypothesis import strategies as st

from tests.fuzz.messages import blobs, messages
from tests.fuzz.methods import METHODS, path
from tests.fuzz.mutations import mutated
from tests.http2 import PREFACE, framed, request

KINDS = (*range(11), 0x77, 0xFF)  # every kind that RFC 9113 knows, and others
STREAMS = (0, 1, 1, 1, 2, 3, 5, 2**31 - 1)
PATHS = (
    "", "/", "//", "/comity.v1.StateService", "/comity.v1.StateService/Nothing", "/\0", "/" + "x" * 9_000, "*", "http://x/",
)  # fmt: skip
HEADERS = (
    ("grpc-timeout", "0n"), ("grpc-timeout", "1n"), ("grpc-timeout", "99999999H"), ("grpc-timeout", "-1S"),
    ("grpc-timeout", "x"), ("grpc-encoding", "gzip"), ("grpc-encoding", "deflate"), ("grpc-encoding", "nothing"),
    ("grpc-accept-encoding", "gzip,\0"), ("grpc-status", "0"), ("grpc-previous-rpc-attempts", "-1"),
    ("content-type", "text/html"), ("content-type", ""), ("content-length", "-1"), ("content-length", "99999999999"),
    ("te", ""), ("connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("host", "a\r\nb: c"),
    (":method", "GET"), (":method", "CONNECT"), (":scheme", "ftp"), (":authority", ""), (":nothing", "x"),
    ("Upper", "x"), ("x", "a" * 20_000), ("x-bin", "!"), ("x-bin", "a" * 3), ("", "x"), ("a b", "\n"),
    ("authorization", "Bearer \xff"), ("traceparent", "00-" + "0" * 60), ("cookie", "a=b; " * 500),
)  # fmt: skip


@st.composite
def header_blocks(draw: st.DrawFn) -> bytes:
    """The headers of a call, with a few that are wrong."""
    where = draw(
        st.one_of(st.sampled_from(sorted(METHODS)).map(lambda name: path(METHODS[name])), st.sampled_from(PATHS))
    )
    headers = [*request(where), *draw(st.lists(st.sampled_from(HEADERS), max_size=3))]
    if draw(st.sampled_from(range(5))) == 0:
        headers = draw(st.permutations(headers))[draw(st.integers(0, 3)) :]
    return Encoder().encode(headers)  # on its own: what it says of the dynamic table may be wrong by then


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The data of a stream: messages, and what looks like some."""
    method = METHODS[draw(st.sampled_from(sorted(METHODS)))]
    message = draw(mutated(messages(method.input_type).map(lambda made: made.SerializeToString())))
    kind = draw(st.sampled_from(("plain", "plain", "plain", "gzip", "flag", "length", "nothing")))
    match kind:
        case "plain":
            return framed(message) * draw(st.sampled_from((1, 1, 1, 2, 50)))
        case "gzip":
            return framed(gzip.compress(message * 100), compressed=True)
        case "flag":
            return bytes((draw(st.integers(1, 255)),)) + framed(message)[1:]
        case "length":
            return framed(message)[:1] + draw(st.sampled_from((0, 1, 2**31, 2**32 - 1))).to_bytes(4) + message
        case _:
            return draw(blobs)


@st.composite
def plain_calls(draw: st.DrawFn) -> bytes:
    """A call, or most of one."""
    stream = draw(st.sampled_from((1, 1, 3, 5, 7)))
    frames: list[Frame] = [HeadersFrame(stream, draw(header_blocks()), flags=["END_HEADERS"])]
    frames.append(DataFrame(stream, draw(bodies())[:16_000], flags=draw(st.sampled_from(([], ["END_STREAM"])))))
    if draw(st.sampled_from(range(4))) == 0:
        frames.insert(
            draw(st.integers(0, 2)), RstStreamFrame(stream, error_code=draw(st.sampled_from((0, 8, 2**32 - 1))))
        )
    return b"".join(frame.serialize() for frame in frames)


@st.composite
def wild_frames(draw: st.DrawFn) -> bytes:
    """A frame of any kind, on any stream, with any flags, and a length that may be wrong."""
    body = draw(
        st.one_of(st.binary(max_size=40), header_blocks(), st.sampled_from((b"", bytes(4), bytes(8), b"\xff" * 4)))
    )
    frame = ExtensionFrame(
        draw(st.sampled_from(KINDS)), draw(st.sampled_from(STREAMS)), flag_byte=draw(st.integers(0, 255)), body=body
    ).serialize()
    length = draw(st.sampled_from((None, None, None, None, 0, 1, 5, 2**14 + 1, 2**24 - 1)))
    return frame if length is None else length.to_bytes(3) + frame[3:]


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """All that is sent on a connection of HTTP/2."""
    settings = draw(
        st.dictionaries(st.integers(0, 10), st.sampled_from((0, 1, 100, 2**16, 2**31, 2**32 - 1)), max_size=4)
    )
    parts = [PREFACE, SettingsFrame(settings=settings if draw(st.booleans()) else {}).serialize()]
    parts += draw(st.lists(st.one_of(plain_calls(), plain_calls(), wild_frames()), max_size=8))
    return draw(mutated(st.just(b"".join(parts))))


def client_hello() -> bytes:
    """How a client of TLS begins."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("it should want an answer")


GREETINGS = (
    b"", b"\0", b"\0" * 100_000, b"\r\n" * 1_000, PREFACE, PREFACE[:10], PREFACE * 3,
    b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /comity.v1.StateService/Get HTTP/1.0\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0",
    b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    b"SSH-2.0-OpenSSH_9.6\r\n", b"*1\r\n$4\r\nPING\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + PREFACE,
    client_hello(),
)  # fmt: skip
