"""Messages made from their descriptors, as Hypothesis draws them: of every kind of field, plausible and hostile.

What a field is called decides what is plausible for it, so that many messages get past the first look at them. A field
of another name has values of its kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

# The namespaces of an example: as it begins, the first has keys, a checkpoint and a lease, the second is a fork of it.
NAMESPACE, FORK, NOTHING = "fuzz-a", "fuzz-b", "fuzz-c"
FORBIDDEN = "fuzz-d"  # where there are permissions; else it is another that is not there
KEYS = ("k", "k/1", "n", "leased", "k/")
CHECKPOINT = "mark"

DEPTH = 4
PLAUSIBLE: Mapping[str, Sequence[str]] = {
    "namespace": (NAMESPACE,) * 4 + (FORK, NOTHING, FORBIDDEN),
    "fork": (FORK, FORK, NOTHING, NAMESPACE, FORBIDDEN),
    "key": KEYS,
    "prefix": ("", "k", "k/", "l"),
    "name": (CHECKPOINT, "other"),
    "checkpoint": (CHECKPOINT, "other"),
    "content_type": ("", "application/json", "text/plain"),
    "author": ("", "ann"),
    "client": ("c", "d"),
    "page_token": ("",),
    "epoch": ("",),
    "service": ("", "comity.v1.StateService"),
    "file_containing_symbol": ("comity.v1.StateService", "comity.v1.PutRequest.key"),
    "file_by_filename": ("comity/v1/state.proto", "google/protobuf/duration.proto"),
}
VALUES = (b"", b"1", b'{"a": 1}', b"\xff" * 40)
WORDS = ("", "a", "some words")
LIKELY = {"namespace": 9, "key": 8, "name": 8, "fork": 8, "ref": 7, "ttl": 6, "lease_id": 6, "prefix": 5, "then": 7}
TENTHS = tuple(range(1, 11))
HOSTILE_TEXT = (
    "", " ", "\0", "a\0b", "\n", "\r\nx: y", "\x1b[2J", "\x7f", "\x9f", "\u202e", "\ufeff", "\uffff", "\U0010ffff",
    "é" * 600, "🙂" * 300, "a" * 64, "k" * 1_025, "../../etc/passwd", "%s%n%x", "{0.__class__}", "${jndi:ldap://x}",
    "'; DROP TABLE entries; --", "*", "[", "]", "}{", "{fuzz-a}", "-1", "1", "None", "__class__", "9" * 30,
)  # fmt: skip
EXTREMES = (-1, -2, 2**31 - 1, -(2**31), 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**62), 10**14, 10**18)
SMALL = (0, 1, 1, 1, 2, 2, 3, 5, 1000)
FLOATS = (0.0, -0.0, 1.5, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))

BITS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}

texts = st.one_of(st.sampled_from(HOSTILE_TEXT), st.text(max_size=20))
blobs = st.one_of(st.sampled_from((b"", b"\0", b"\xff" * 1_000, b"1", b"9" * 400)), st.binary(max_size=20))


def messages(descriptor: Descriptor, depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Messages of a type, of which most are plausible but for a field or two, and some are wild altogether. Of more
    than `depth` levels, the deepest are empty."""
    return st.sampled_from((0, 0, 0, 1, 1, 3)).flatmap(lambda wildness: _messages(descriptor, wildness, depth))


def _messages(descriptor: Descriptor, wildness: int, depth: int) -> st.SearchStrategy[Message]:
    made = GetMessageClass(descriptor)
    fields = [field for field in descriptor.fields if depth or field.message_type is None]
    if descriptor.full_name == "google.protobuf.Duration" and not wildness:
        return st.sampled_from([made(seconds=1), made(seconds=60), made(seconds=5, nanos=500_000_000)])
    return _message(made, fields, wildness, depth)


@st.composite
def _message(
    draw: st.DrawFn, made: type[Message], fields: Sequence[FieldDescriptor], wildness: int, depth: int
) -> Message:
    message = made()
    for field in fields:
        likely = LIKELY.get(field.name, 4 if field.message_type else 2)
        if draw(st.sampled_from(TENTHS)) <= likely:
            _fill(draw, message, field, wildness, depth)
    return message


def _fill(draw: st.DrawFn, message: Message, field: FieldDescriptor, wildness: int, depth: int) -> None:
    wild = draw(st.sampled_from(TENTHS)) < wildness
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        held = getattr(message, field.name)
        for _ in range(draw(st.integers(0, 3))):
            if value.message_type is None:
                held[draw(_scalars(key, wild))] = draw(_scalars(value, wild))
            else:
                held[draw(_scalars(key, wild))].CopyFrom(draw(_messages(value.message_type, wildness, depth - 1)))
    elif field.message_type is not None:
        several = _messages(field.message_type, wildness, depth - 1)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(several, max_size=3)))
        else:
            getattr(message, field.name).CopyFrom(draw(several))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalars(field, wild), max_size=4)))
    else:
        setattr(message, field.name, draw(_scalars(field, wild)))


def _scalars(field: FieldDescriptor, wild: bool) -> st.SearchStrategy[Any]:
    return _KINDS[field.cpp_type](field, wild)


def _numbers(field: FieldDescriptor, wild: bool) -> st.SearchStrategy[int]:
    if not wild:
        known = [value.number for value in field.enum_type.values] if field.enum_type is not None else SMALL
        return st.sampled_from(known)
    least, most = BITS[field.cpp_type]
    return st.one_of(
        st.sampled_from([number for number in EXTREMES if least <= number <= most]), st.integers(least, most)
    )


def _words(field: FieldDescriptor, wild: bool) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return blobs if wild else st.sampled_from(VALUES)
    return texts if wild else st.sampled_from(PLAUSIBLE.get(field.name, WORDS))


def _booleans(field: FieldDescriptor, wild: bool) -> st.SearchStrategy[bool]:
    return st.booleans()


def _fractions(field: FieldDescriptor, wild: bool) -> st.SearchStrategy[float]:
    return st.sampled_from(FLOATS if wild else FLOATS[:3])


_KINDS: Mapping[int, Callable[[FieldDescriptor, bool], st.SearchStrategy[Any]]] = {
    **dict.fromkeys(BITS, _numbers),
    FieldDescriptor.CPPTYPE_BOOL: _booleans,
    FieldDescriptor.CPPTYPE_FLOAT: _fractions,
    FieldDescriptor.CPPTYPE_DOUBLE: _fractions,
    FieldDescriptor.CPPTYPE_STRING: _words,
}
