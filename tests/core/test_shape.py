"""How much there is in a message is told from its bytes as the parser would tell it, and too much is not parsed."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import state_pb2 as s
from comity_server.errors import InvalidRequest
from comity_server.limits import Limits
from comity_server.services import shape
from comity_server.services.shape import ELEMENT_BYTES, FIELDS, INSIDE, OPERATIONS, SMALL, Shape

LIMITS = Limits(transaction_operations=4)
MOST = LIMITS.transaction_operations
PIPELINE: Any = s.PipelineRequest.DESCRIPTOR
TRANSACT: Any = s.TransactRequest.DESCRIPTOR


def field(number: int, holds: bytes) -> bytes:
    length, size = len(holds), bytearray((number << 3 | 2,))
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes(size) + bytes((length,)) + holds


def pipeline(*operations: bytes) -> bytes:
    return b"".join(field(s.PipelineRequest.OPERATIONS_FIELD_NUMBER, each) for each in operations)


def inside(transact: bytes) -> bytes:
    return b"\x08\x01\x10\x07" + field(s.PipelineOperation.TRANSACT_FIELD_NUMBER, transact)


EMPTY_CONDITION, EMPTY_OPERATION = b"\x12\x00", b"\x1a\x00"
SWITCHING = b"\x0a\x00\x12\x00"  # a get and a list: one of them counts, and both are parsed
LONG_TAG = b"\x92\x80\x80\x80\x00\x00"  # of a condition, as nobody writes it

texts = st.text("ab", max_size=300)
operations = st.one_of(
    st.builds(s.Operation, get=st.builds(s.GetOperation, key=texts)),
    st.builds(s.Operation, put=st.builds(s.PutOperation, key=texts, value=st.binary(max_size=300))),
    st.builds(s.Operation),
)
conditions = st.builds(s.Condition, key=texts, version=st.integers(-(2**63), 2**63 - 1))
transactions = st.builds(
    s.TransactRequest,
    namespace=texts,
    conditions=st.lists(conditions, max_size=6),
    then=st.lists(operations, max_size=6),
    otherwise=st.lists(operations, max_size=6),
)


@given(transactions)
def test_what_is_refused_is_what_has_too_many(request: s.TransactRequest) -> None:
    counts = {name: len(getattr(request, name)) for name in ("conditions", "then", "otherwise")}
    wrong = [name for name, count in counts.items() if count > MOST]
    data = request.SerializeToString()
    try:
        extra = Shape(TRANSACT, LIMITS).check(data)
    except InvalidRequest as error:
        [violation] = error.violations
        assert violation == (wrong[0], f"must not have more than {MOST} elements")
    else:
        assert not wrong
        assert extra == (sum(counts.values()) * ELEMENT_BYTES if len(data) > 2 * MOST else 0)


@given(st.lists(st.builds(s.PipelineOperation, kind=st.just(7), transact=transactions, message=texts), max_size=6))
def test_what_is_inside_of_operations_that_are_not_small_counts(asked: list[s.PipelineOperation]) -> None:
    request = s.PipelineRequest(operations=[*asked, *[s.PipelineOperation(id=1)] * 994])  # 994 and up to 6
    count = len(request.operations)
    for each in asked:
        if each.ByteSize() > SMALL:
            transact = each.transact
            fields = 1 if transact.namespace else 0
            count += fields + len(transact.conditions) + len(transact.then) + len(transact.otherwise)
    assert Shape(PIPELINE, LIMITS).check(request.SerializeToString()) == count * ELEMENT_BYTES


@pytest.mark.parametrize(
    ("type", "data", "field_name", "says"),
    [
        (TRANSACT, EMPTY_CONDITION * 2_500_000, "conditions", "4 elements"),
        (TRANSACT, EMPTY_OPERATION * 2_500_000, "then", "4 elements"),
        (TRANSACT, LONG_TAG * 100_000, "conditions", "4 elements"),
        (TRANSACT, field(3, SWITCHING * 1_250_000), "then", f"{FIELDS} fields each"),
        (TRANSACT, b"\x28\x01" * 2_500_000, "request", f"{FIELDS} fields"),
        (TRANSACT, b"\x2a\x00" * 2_500_000, "request", f"{FIELDS} fields"),
        (PIPELINE, b"\x2a\x00" * 2_500_000, "operations", f"{OPERATIONS} elements"),
        (PIPELINE, b"\x32\x00" * 2_500_000, "request", f"{FIELDS} fields"),
        (PIPELINE, pipeline(inside(EMPTY_CONDITION * 2_500_000)), "operations", f"{INSIDE} conditions"),
        (PIPELINE, pipeline(*[inside(EMPTY_CONDITION * 1000)] * 51), "operations", f"{INSIDE} conditions"),
        (PIPELINE, pipeline(inside(field(4, SWITCHING * 1_250_000))), "operations", f"{FIELDS} fields each"),
        (PIPELINE, pipeline(inside(b"") * 500_000), "operations", f"{FIELDS} fields each"),
        (c.CheckpointRequest.DESCRIPTOR, field(4, b"") * 2_500_000, "labels", "1000 elements"),
    ],
)
def test_too_much_is_refused_after_a_few_steps(
    monkeypatch: pytest.MonkeyPatch, type: Descriptor, data: bytes, field_name: str, says: str
) -> None:
    steps = 0
    walk = shape._walk

    def counted(*arguments: object) -> object:
        nonlocal steps
        for each in walk(*arguments):  # type: ignore[arg-type]
            steps += 1
            yield each

    monkeypatch.setattr(shape, "_walk", counted)
    with pytest.raises(InvalidRequest) as error:
        Shape(type, LIMITS).check(data)
    [(name, description)] = error.value.violations
    assert name == field_name
    assert description.startswith(f"must not have more than {says}")
    assert steps < 55_000


GROUPED = (
    b"\xa3\x06" + field(3, b"\xff") + field(12, b"\x1a\x05") + b"\xa4\x06"
)  # unknown, with what is no message inside


@given(st.binary(max_size=200), transactions)
@example(b"\x08\x00A\x00\x00", s.TransactRequest(namespace="aa", conditions=[s.Condition(key="", version=0)] * 6))
@example(GROUPED, s.TransactRequest(conditions=[s.Condition()] * 6))
def test_what_is_no_message_is_left_to_the_parser(noise: bytes, request: s.TransactRequest) -> None:
    """What has more than there may be is refused, or is no message either."""
    data = noise + request.SerializeToString()
    try:
        Shape(TRANSACT, LIMITS).check(data)
    except InvalidRequest:
        return
    try:
        parsed = s.TransactRequest.FromString(data)
    except DecodeError:
        return
    assert max(len(parsed.conditions), len(parsed.then), len(parsed.otherwise)) <= MOST


@pytest.mark.parametrize("data", [b"\x80" * 5_000_000, b"\x08" + b"\x80" * 5_000_000, b"\x12\xff\xff\xff\xff\x0f"])
def test_a_number_without_an_end_is_not_gone_through(data: bytes) -> None:
    assert Shape(TRANSACT, LIMITS).check(data) == 0
