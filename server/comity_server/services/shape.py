"""How much there is in a message, found out before it is parsed.

An element of a few bytes takes up a hundred when it is parsed, so that a message of no more than the bytes that there
may be can take up a hundred times as many, and hold up all others for a second. So the elements are counted first, by
walking over them as they stand on the wire, and no further than the bounds go.
"""

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import Descriptor

from comity.v1 import state_pb2
from comity_server.errors import InvalidRequest, Violation
from comity_server.limits import Limits

OPERATIONS: Final = 1000  # of one message of a pipeline
INSIDE: Final = 50_000  # conditions and operations of all transactions of one message of a pipeline
OTHERS: Final = 1000  # elements of any other field that may be repeated
FIELDS: Final = 64  # of one message, beside the elements of what may be repeated
ELEMENT_BYTES: Final = 200  # about what an element takes up when it is parsed, beside its own bytes
SMALL: Final = 512  # bytes of an operation of a pipeline that cannot have very much inside

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # kinds of fields; groups have no length
_FIXED: Final = {FIXED64: 8, FIXED32: 4}

_TRANSACT: Final = state_pb2.PipelineOperation.TRANSACT_FIELD_NUMBER
_OPERATIONS: Final = state_pb2.PipelineRequest.OPERATIONS_FIELD_NUMBER
_BRANCHES: Final = frozenset(
    (state_pb2.TransactRequest.THEN_FIELD_NUMBER, state_pb2.TransactRequest.OTHERWISE_FIELD_NUMBER)
)

Field = tuple[int, int, int]
"""A field's number, and where what it holds begins and ends."""


class Shape:
    """What a message of one type may have.

    Args:
        type: of the message.
        limits: for what a transaction may have.
    """

    def __init__(self, type: Descriptor, limits: Limits) -> None:
        self._is_pipeline = type is state_pb2.PipelineRequest.DESCRIPTOR
        self._is_transact = type is state_pb2.TransactRequest.DESCRIPTOR
        self._operations = limits.transaction_operations
        bounds = {_OPERATIONS: OPERATIONS} if self._is_pipeline else {}
        self._most = {
            field.number: (field.name, self._operations if self._is_transact else bounds.get(field.number, OTHERS))
            for field in type.fields
            if field.is_repeated
        }
        self._fields = FIELDS + sum(most for _, most in self._most.values())
        self._harmless = 2 * min((most for _, most in self._most.values()), default=0)  # bytes: an element has two

    def check(self, data: bytes) -> int:
        """About how many bytes the message takes up when it is parsed, beside its own.

        Raises InvalidRequest if it has too much. Whether it is one at all is left to the parser, which comes no further
        than this.
        """
        if not self._most or len(data) <= self._harmless:
            return 0
        counts = dict.fromkeys(self._most, 0)
        inside = 0
        for passed, (number, start, end) in enumerate(_walk(data, 0, len(data))):
            if passed >= self._fields:
                raise InvalidRequest(Violation("request", f"must not have more than {FIELDS} fields"))
            if number not in counts:
                continue
            name, most = self._most[number]
            counts[number] += 1
            if counts[number] > most:
                raise InvalidRequest(Violation(name, f"must not have more than {most} elements"))
            if self._is_pipeline:
                if end - start > SMALL:
                    inside += self._inside(data, start, end, INSIDE - inside)
            elif self._is_transact and number in _BRANCHES:
                _one(data, start, end, name)
        return (sum(counts.values()) + inside) * ELEMENT_BYTES

    def _inside(self, data: bytes, start: int, end: int, most: int) -> int:
        """How many conditions and operations there are in the transaction of an operation, if it is one."""
        count = 0
        for passed, (number, at, stop) in enumerate(_walk(data, start, end)):
            if passed >= FIELDS:
                raise InvalidRequest(Violation("operations", f"must not have more than {FIELDS} fields each"))
            if number == _TRANSACT:
                for part, first, last in _walk(data, at, stop):
                    count += 1
                    if count > most:
                        what = f"must not have more than {INSIDE} conditions and operations in all transactions"
                        raise InvalidRequest(Violation("operations", what))
                    if part in _BRANCHES:
                        _one(data, first, last, "operations")
        return count


def _one(data: bytes, start: int, end: int, name: str) -> None:
    """An operation of a transaction is one field, of which each further one would be parsed anew."""
    if end - start > 2 and data[start + 1] == end - start - 2:  # as nearly all are
        return
    for passed, _ in enumerate(_walk(data, start, end)):
        if passed >= FIELDS:
            raise InvalidRequest(Violation(name, f"must not have more than {FIELDS} fields each"))


def _walk(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of a message up to where it is none any more, those within groups too. What is no message, nor text,
    has the number 0."""
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1, end)
        kind = tag & 7
        number = 0
        start = at
        if kind == LENGTH:
            number = tag >> 3
            length, start = _varint(data, at, end)
            at = start + length
        elif kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind in _FIXED:
            at += _FIXED[kind]
        if at > end:
            return
        yield number, start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends: beyond the end if there is none."""
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        if byte < 128:
            return number | byte << shift, at
        number |= (byte & 127) << shift
        shift += 7
    return 0, end + 1
