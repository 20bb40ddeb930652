"""One call as a fuzzer makes it, and what may come of it."""

import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from comity.v1 import state_pb2
from tests.fuzz.messages import blobs, messages
from tests.fuzz.methods import METHODS, path
from tests.fuzz.mutations import mutated
from tests.wire.calls import TIMEOUT, Metadata, read_refusal

Code = grpc.StatusCode

# With these the server would say that it has a defect, or has lost something; or the call would have hung.
DEFECTS = {Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS, Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}
DEFECTIVE_RESULTS = {code.value[0] for code in DEFECTS - {Code.DEADLINE_EXCEEDED}}  # a message may say a timeout
LIBRARIES = re.compile(
    r"Traceback|File \"|\.py\b|grpc\._|grpc\.aio|_pb2|object at 0x|sqlite|SQL\b|redis|Lua\b|msgpack|upb"
    r"|[A-Z]\w+(Error|Exception)\b"
)
ANSWERS = 20  # of a stream that are read before it is given up


class Call(NamedTuple):
    """What is sent: messages as bytes, and whether their end is said, or the call is given up right after them."""

    method: str
    messages: Sequence[bytes]
    half_close: bool
    metadata: Metadata

    def __repr__(self) -> str:  # as Hypothesis prints what failed: to be pasted into a test
        return f"Call({self.method!r}, {list(self.messages)!r}, {self.half_close}, {self.metadata!r})"


_names = st.one_of(
    st.sampled_from(
        ("authorization", "user-agent", "traceparent", "tracestate", "baggage", "x-request-id", "grpc-tags-bin")
    ),
    st.from_regex(r"[a-z0-9_.-]{1,20}", fullmatch=True).map(lambda name: f"x-{name}".removesuffix("-bin")),
)
_ascii = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
_metadatum = st.one_of(
    st.tuples(_names.filter(lambda name: not name.endswith("-bin")), _ascii),
    st.tuples(_names.map(lambda name: f"{name.removesuffix('-bin')}-bin"), st.binary(max_size=200)),
)


@st.composite
def calls(draw: st.DrawFn, method: MethodDescriptor | None = None) -> Call:
    """Calls of one method, or of any."""
    if method is None:
        method = METHODS[draw(st.sampled_from(sorted(METHODS)))]
    request = messages(method.input_type).map(lambda message: message.SerializeToString())
    one = mutated(st.sampled_from(range(12)).flatmap(lambda at: request if at else blobs))
    if method.client_streaming:
        sent = draw(st.lists(one, max_size=5))
    else:  # which should send one message
        sent = [draw(one)] * draw(st.sampled_from((1,) * 15 + (0, 2)))
    metadata = tuple(draw(st.lists(_metadatum, max_size=3)))
    return Call(method.full_name, sent, draw(st.sampled_from(range(12))) > 0, metadata)


def make(channel: grpc.Channel, call: Call, identity: Metadata, secret: bytes) -> None:
    """Make a call, and show an identity. Raises AssertionError where the answer is none that a client may get, or has
    the secret in it."""
    method = METHODS[call.method]
    given_up = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from call.messages
        if not call.half_close:
            given_up.wait()

    start: Any = channel.stream_stream(path(method))
    stream = start(requests(), timeout=TIMEOUT, metadata=(*call.metadata, *identity))
    try:
        if call.half_close:
            endless = method.server_streaming and not method.client_streaming
            _read(stream, GetMessageClass(method.output_type), 1 if endless else ANSWERS, secret)
    except grpc.RpcError as error:
        refusal = read_refusal(error)
        assert refusal.code not in DEFECTS, refusal
        assert (refusal.domain, bool(refusal.reason)) == ("comity", True), refusal
        told = (refusal.message, *refusal.metadata.values(), *refusal.fields, *refusal.fields.values())
        assert not LIBRARIES.search(" ".join(told)), refusal
    finally:
        stream.cancel()
        given_up.set()


def _read(stream: Iterator[bytes], made: type[Message], count: int, secret: bytes) -> None:
    for data in itertools.islice(stream, count):
        assert secret not in data
        answer = made.FromString(data)
        if isinstance(answer, state_pb2.PipelineResponse):
            for result in answer.results:
                assert result.code not in DEFECTIVE_RESULTS, result
                assert not LIBRARIES.search(result.error.message), result
