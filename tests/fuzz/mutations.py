"""What can happen to a serialised message, as Hypothesis draws it: bits that flip, ends that are cut, parts that come
twice, fields that nobody knows, lengths that lie."""

from collections.abc import Callable

from hypothesis import strategies as st

Mutation = Callable[[bytes], bytes]

UNKNOWN = (
    b"\xf8\xff\xff\xff\x0f\x01",  # the highest field number there is, a varint
    b"\xf9\xff\xff\xff\x0f" + bytes(8),  # the same, of 64 bits
    b"\xfd\xff\xff\xff\x0f" + bytes(4),  # the same, of 32 bits
    b"\xc2\x3e\x03abc",  # field 1000, bytes
    b"\xc3\x3e" + b"\xc4\x3e",  # field 1000, an empty group
    b"\xc3\x3e" * 200 + b"\xc4\x3e" * 200,  # groups in groups
    b"\xc3\x3e",  # a group without an end
    b"\xc4\x3e",  # the end of no group
    b"\xc6\x3e\xc7\x3e",  # kinds of the wire that do not exist
    b"\x00\x00",  # field 0, which does not exist
    b"\x0a\xff\xff\xff\xff\x07",  # a length of 2 GiB, and nothing
    b"\x08" + b"\xff" * 10 + b"\x01",  # a varint that is too long
    b"\x0a\x02\xc3\x28",  # in field 1, text that is no UTF-8
    b"\x12\x03\xed\xa0\x80",  # in field 2, half of a surrogate pair
    b"\x0d\x01",  # a field of 32 bits that is cut
)


def flipped(position: int, bit: int) -> Mutation:
    def mutate(data: bytes) -> bytes:
        if not data:
            return data
        at = position % len(data)
        return data[:at] + bytes((data[at] ^ (1 << bit),)) + data[at + 1 :]

    return mutate


def cut(position: int) -> Mutation:
    return lambda data: data[: position % (len(data) + 1)]


def repeated(position: int, size: int) -> Mutation:
    def mutate(data: bytes) -> bytes:
        at = position % (len(data) + 1)
        return data[: at + size] + data[at:]

    return mutate


def twice(data: bytes) -> bytes:
    """Which is another valid message: the two are merged."""
    return data + data


def with_bytes(position: int, more: bytes) -> Mutation:
    def mutate(data: bytes) -> bytes:
        at = position % (len(data) + 1)
        return data[:at] + more + data[at:]

    return mutate


def followed_by(more: bytes) -> Mutation:
    return lambda data: data + more


_positions = st.integers(0, 500)
mutations = st.one_of(
    st.builds(flipped, _positions, st.integers(0, 7)),
    st.builds(cut, _positions),
    st.builds(repeated, _positions, st.integers(1, 30)),
    st.just(twice),
    st.builds(with_bytes, _positions, st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(UNKNOWN))),
    st.builds(followed_by, st.sampled_from(UNKNOWN)),
)


@st.composite
def mutated(draw: st.DrawFn, serialised: st.SearchStrategy[bytes]) -> bytes:
    """Most of them as they are, others with a few mutations."""
    data = draw(serialised)
    if draw(st.sampled_from(range(8))) < 6:
        return data
    for mutate in draw(st.lists(mutations, min_size=1, max_size=3)):
        data = mutate(data)
    return data
