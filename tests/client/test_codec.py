"""Values to bytes and back."""

import dataclasses
import datetime
import enum
import uuid
from typing import Any

import pydantic
import pytest

import comity
from comity import codec


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Plan:
    step: int
    colour: Colour
    due: datetime.date


class Model(pydantic.BaseModel):
    step: int
    at: datetime.datetime


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_bytes_stay_as_they_are(value: object) -> None:
    assert codec.encode(value) == (b"\x00\xff", "application/octet-stream")


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("text", b'"text"'),
        ("Größe", '"Größe"'.encode()),
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        (Plan(1, Colour.RED, datetime.date(2026, 1, 2)), b'{"step":1,"colour":"red","due":"2026-01-02"}'),
        ([Plan(1, Colour.RED, datetime.date(2026, 1, 2))], b'[{"step":1,"colour":"red","due":"2026-01-02"}]'),
        (
            Model(step=1, at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)),
            b'{"step":1,"at":"2026-01-02T00:00:00Z"}',
        ),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    ],
)
def test_the_rest_is_json(value: object, data: bytes) -> None:
    assert codec.encode(value) == (data, "application/json")


@pytest.mark.parametrize(
    ("value", "content_type", "data"),
    [
        ("Größe", "text/plain", "Größe".encode()),
        ("<a/>", "application/xml", b"<a/>"),
        ("text", "application/ld+json; charset=utf-8", b'"text"'),
        (b"\x89PNG", "image/png", b"\x89PNG"),
        ({"a": 1}, "application/vnd.plan+json", b'{"a":1}'),
    ],
)
def test_a_content_type_that_is_given_is_kept(value: object, content_type: str, data: bytes) -> None:
    assert codec.encode(value, content_type) == (data, content_type)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], "\ud800"])
def test_what_json_has_no_words_for_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="the value"):
        codec.encode(value)


def test_what_is_nested_too_deeply_is_refused() -> None:
    value: object = None
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="the value cannot be written as JSON"):
        codec.encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": b"bytes"}, {(1, 2): 3}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        codec.encode(value)


@pytest.mark.parametrize(
    ("data", "content_type", "value"),
    [
        (b'{"a":1}', "application/json", {"a": 1}),
        (b"[1]", "Application/JSON; charset=utf-8", [1]),
        (b"1", "application/merge-patch+json", 1),
        ("Größe".encode(), "text/plain; charset=utf-8", "Größe"),
        (b"{", "application/octet-stream", b"{"),
        (b"{", "", b"{"),
    ],
)
def test_decoding_goes_by_the_content_type(data: bytes, content_type: str, value: Any) -> None:
    assert codec.decode(data, content_type, key="k") == value


@pytest.mark.parametrize(
    ("data", "content_type"), [(b"{", "application/json"), (b"\xff", "text/plain"), (b"", "a/b+json")]
)
def test_malformed_values_name_the_key(data: bytes, content_type: str) -> None:
    with pytest.raises(comity.DecodeError, match="'plans/7'") as caught:
        codec.decode(data, content_type, key="plans/7")
    assert caught.value.metadata == {"key": "plans/7"}
    assert isinstance(caught.value, ValueError)
