"""Values of one type: the same whether pydantic is installed or not."""

import dataclasses
import datetime
import decimal
import enum
import sys
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pydantic
import pytest

import comity
from comity import Entry
from comity.convert import EPOCH
from comity.typed import RawBytes, typed


class Colour(enum.Enum):
    RED = "red"


class Level(enum.Enum):
    LOW = 1


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


class Point(NamedTuple):
    x: int


class Options(TypedDict):
    depth: int


class Budget(pydantic.BaseModel):
    left: int
    unit: str = pydantic.Field(default="EUR", alias="currency")


def entry(data: bytes, content_type: str = "application/json") -> Entry:
    return Entry("k", data, content_type, 1, 1, 1, 0, EPOCH)


@pytest.fixture(params=["with pydantic", "without"])
def importable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: the second time as if pydantic were not installed."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "pydantic", None)


both = pytest.mark.usefixtures("importable")
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
def test_values_come_back_as_they_were(kind: Any, value: Any) -> None:
    each = typed(kind)
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
        (Literal[1], b"true"),
        (Level, b"true"),
        (Level, b"1.0"),
        (float, b"1" + b"0" * 400),
        (datetime.datetime, b'"2024-01-01"'),
        (datetime.date, b'"2024-01-01T00:00:00"'),
        (Plan, b'{"steps":[],"due":"2024-01-01"}'),
        (Colour, b'"blue"'),
        (datetime.datetime, b'"yesterday"'),
        (Step, b"{}"),
        (Step, b'{"name":1}'),
        (Plan, b'{"steps":[{"name":"a","cost":"x"}]}'),
    ],
)
def test_what_does_not_fit_names_the_key(kind: Any, data: bytes) -> None:
    with pytest.raises(comity.DecodeError, match="'k'"):
        typed(kind).decode(entry(data))


@both
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "5"),
        (int, True),
        (list[int], [1, "a"]),
        (Step, Step(1)),  # type: ignore[arg-type]
        (Step, None),
    ],
)
def test_what_does_not_fit_is_not_written(kind: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="does not fit"):
        typed(kind).encode(value)


@both
def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        typed(float).encode(float("nan"))


@both
@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (float, b"5", 5.0),  # other languages write whole floats so
        (Step, b'{"name":"a","cost":2}', Step("a", 2.0)),
        (float | int, b"5", 5),
        (int | float, b"5", 5),
        (int | float, b"5.0", 5.0),
        (float | None, b"5", 5.0),
        (str | Colour, b'"red"', "red"),
        (Colour | str, b'"red"', Colour.RED),
        (datetime.datetime | datetime.date, b'"2024-01-01"', datetime.date(2024, 1, 1)),
        (Any, b"[1,2.0]", [1, 2.0]),
    ],
)
def test_the_type_says_how_it_is_read(kind: Any, data: bytes, value: Any) -> None:
    assert repr(typed(kind).decode(entry(data))) == repr(value)


@both
@pytest.mark.parametrize(("kind", "value", "data"), [(float, 2, b"2"), (Step, Step("a", 2), b'{"name":"a","cost":2}')])
def test_what_is_written_is_what_was_given(kind: Any, value: Any, data: bytes) -> None:
    assert typed(kind).encode(value)[0] == data


@both
def test_text_is_a_str() -> None:
    assert typed(str).decode(entry(b"plain", "text/plain")) == "plain"


@both
def test_fields_that_came_later_are_ignored() -> None:
    assert typed(Step).decode(entry(b'{"name":"a","added":1}')) == Step("a")


@dataclasses.dataclass
class Holder:
    tags: set[str]


class Handle:
    pass


@both
@pytest.mark.parametrize(
    "kind",
    [
        Handle,
        Holder,
        Options,
        Point,
        decimal.Decimal,
        datetime.time,
        set[str],
        dict[int, str],
        list[bytes],
        Annotated[int, "above 0"],
    ],
)
def test_a_type_that_cannot_be_held_is_refused_at_once(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"a cell cannot hold .* pydantic model"):
        typed(kind)


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


class Strict(pydantic.BaseModel, strict=True):
    at: datetime.datetime


@dataclasses.dataclass
class Shelf:
    budgets: dict[str, Budget]
    since: datetime.date


def test_models_within_other_types() -> None:
    each = typed(Shelf | None)
    shelf = Shelf({"a": Budget(left=5, currency="USD")}, datetime.date(2026, 1, 2))
    data, _ = each.encode(shelf)
    assert data == b'{"budgets":{"a":{"left":5,"currency":"USD"}},"since":"2026-01-02"}'
    assert each.decode(entry(data)) == shelf
    with pytest.raises(comity.DecodeError, match="Shelf: left: Input should be"):
        each.decode(entry(b'{"budgets":{"a":{"left":"x"}},"since":"2026-01-02"}'))
    with pytest.raises(TypeError, match="does not fit"):
        typed(Budget).encode(None)


def test_a_strict_model_reads_what_it_wrote() -> None:
    each = typed(list[Strict])
    value = [Strict(at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))]
    assert each.decode(entry(each.encode(value)[0])) == value
