"""Values of one type: by pydantic and, where it is not installed, without."""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Callable
from typing import Any, Literal

import pydantic
import pytest

import comity
from comity import Entry
from comity.convert import EPOCH
from comity.typed import PlainTyped, PydanticTyped, RawBytes, Typed, typed


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Step:
    name: str
    cost: float = 0.0


@dataclasses.dataclass
class Plan:
    steps: list[Step]
    owner: str | None = None
    colour: Colour = Colour.RED
    due: datetime.datetime | None = None
    labels: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    next: "Plan | None" = None


class Budget(pydantic.BaseModel):
    left: int
    unit: str = pydantic.Field(default="EUR", alias="currency")


def entry(data: bytes, content_type: str = "application/json") -> Entry:
    return Entry("k", data, content_type, 1, 1, 1, 0, EPOCH)


both = pytest.mark.parametrize("make", [PydanticTyped, PlainTyped])
PLAN = Plan(
    [Step("a", 1.5), Step("b")],
    "me",
    due=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    labels={"x": [1, 2]},
    next=Plan([]),
)


@both
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 5),
        (float, 2.5),
        (str, "text"),
        (bool, True),
        (list, [1, "a", None]),
        (dict, {"a": [1]}),
        (list[int], [1, 2]),
        (dict[str, list[float]], {"a": [1.5]}),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (int | None, None),
        (Literal["on", "off"], "on"),
        (Colour, Colour.RED),
        (datetime.date, datetime.date(2026, 1, 2)),
        (uuid.UUID, uuid.UUID(int=7)),
        (Plan, PLAN),
        (list[Step], [Step("a", 1.0)]),
    ],
)
def test_values_come_back_as_they_were(make: Callable[[Any], Typed], kind: Any, value: Any) -> None:
    each = make(kind)
    data, content_type = each.encode(value)
    assert content_type == "application/json"
    back = each.decode(entry(data))
    assert back == value
    assert type(back) is type(value)


@both
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, b'"5"'),
        (int, b"true"),
        (int, b"1.5"),
        (int, b"{"),
        (str, b"5"),
        (bool, b"1"),
        (list[int], b'[1,"2"]'),
        (list[int], b"{}"),
        (dict[str, int], b'{"a":null}'),
        (tuple[int, str], b"[1]"),
        (int | None, b'"x"'),
        (Literal["on", "off"], b'"maybe"'),
        (Colour, b'"blue"'),
        (datetime.datetime, b'"yesterday"'),
        (Step, b"{}"),
        (Step, b'{"name":1}'),
        (Plan, b'{"steps":[{"name":"a","cost":"x"}]}'),
    ],
)
def test_what_does_not_fit_names_the_key(make: Callable[[Any], Typed], kind: Any, data: bytes) -> None:
    with pytest.raises(comity.DecodeError, match="'k'"):
        make(kind).decode(entry(data))


@both
@pytest.mark.parametrize(("kind", "value"), [(int, "5"), (list[int], [1, "a"]), (Step, Step(1)), (Step, None)])  # type: ignore[arg-type]
def test_what_does_not_fit_is_not_written(make: Callable[[Any], Typed], kind: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="does not fit"):
        make(kind).encode(value)


@both
def test_nan_is_not_written(make: Callable[[Any], Typed]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        make(float).encode(float("nan"))


@both
def test_numbers_of_other_languages_are_floats_too(make: Callable[[Any], Typed]) -> None:
    assert make(float).decode(entry(b"5")) == 5.0


@both
def test_text_is_a_str(make: Callable[[Any], Typed]) -> None:
    assert make(str).decode(entry(b"plain", "text/plain")) == "plain"


@both
def test_fields_that_came_later_are_ignored(make: Callable[[Any], Typed]) -> None:
    assert make(Step).decode(entry(b'{"name":"a","added":1}')) == Step("a")


@both
def test_a_type_that_cannot_be_held_is_refused(make: Callable[[Any], Typed]) -> None:
    class Handle:
        pass

    with pytest.raises(TypeError, match="Handle"):
        make(Handle)


def test_bytes_are_stored_as_they_are() -> None:
    each = typed(bytes)
    assert isinstance(each, RawBytes)
    assert each.encode(b"\xff") == (b"\xff", "application/octet-stream")
    assert each.decode(entry(b"\xff", "image/png")) == b"\xff"
    with pytest.raises(TypeError):
        each.encode("text")


def test_models_say_themselves_how_strict_they_are() -> None:
    each = typed(Budget)
    data, _ = each.encode(Budget(left=5, currency="USD"))
    assert data == b'{"left":5,"currency":"USD"}'
    assert each.decode(entry(data)) == Budget(left=5, currency="USD")
    assert each.decode(entry(b'{"left":"5"}')) == Budget(left=5)
    with pytest.raises(comity.DecodeError, match="left"):
        each.decode(entry(b'{"left":"x"}'))
