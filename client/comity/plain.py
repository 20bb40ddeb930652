"""From parsed JSON to values of a type. What it does depends on the type alone, not on what is installed."""

import dataclasses
import datetime
import enum
import inspect
import json
import sys
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Union

__all__ = ["Misfit", "reader"]

Reader = Callable[[Any], Any]


class Misfit(ValueError):
    """A value does not fit the type."""


def reader(kind: Any) -> Reader:
    """A function that makes a value of the type from parsed JSON, or raises Misfit.

    Knows bool, int, float, str, None, Any, list, tuple, dict with str keys, unions, Literal, Enum, datetime, date,
    UUID, dataclasses and pydantic models, within each other. Of a union it takes the first that fits. Raises TypeError
    for another type.
    """
    return _reader(kind, {})


def _reader(kind: Any, known: dict[type, Reader]) -> Reader:
    """`known`: the readers of the dataclasses around, which a dataclass may hold again."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return lambda value: value
    if kind is None or kind is type(None):
        return _exactly(None)
    if kind in (bool, int, float, str):
        return _scalar(kind)
    if origin in (Union, types.UnionType):
        # float comes last: it takes whole numbers too, which an int beside it means to keep.
        return _union([_reader(choice, known) for choice in sorted(inner, key=lambda choice: choice is float)])
    if origin is typing.Literal:
        return _exactly(*inner)
    if (origin or kind) is list:
        return _sequence(list, _reader(inner[0] if inner else Any, known))
    if (origin or kind) is tuple:
        if kind is tuple or inner[-1:] == (Ellipsis,):
            return _sequence(tuple, _reader(inner[0] if inner else Any, known))
        return _tuple([_reader(part, known) for part in inner])
    if (origin or kind) is dict and (not inner or inner[0] is str):
        return _dict(_reader(inner[1] if inner else Any, known))
    if inspect.isclass(kind) and origin is None:
        if _is_model(kind):
            return _model(kind)
        if dataclasses.is_dataclass(kind):
            return known[kind] if kind in known else _dataclass(kind, known)
        if issubclass(kind, enum.Enum):
            return _parsed(kind, lambda value: _member(kind, value))
        if kind is datetime.datetime:
            return _parsed(kind, _datetime)
        if kind is datetime.date:
            return _parsed(kind, lambda value: datetime.date.fromisoformat(_scalar(str)(value)))
        if kind is uuid.UUID:
            return _parsed(kind, lambda value: uuid.UUID(_scalar(str)(value)))
    raise TypeError(f"a cell cannot hold {kind!r}: put it into a pydantic model")


def _scalar(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if kind is float and type(value) is int:
            try:
                return float(value)
            except OverflowError as error:
                raise Misfit(f"{value!r} is too large for a float") from error
        if type(value) is not kind:
            raise Misfit(f"{value!r} is no {kind.__name__}")
        return value

    return read


def _exactly(*choices: Any) -> Reader:
    def read(value: Any) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return value
        raise Misfit(f"{value!r} is not {' or '.join(map(repr, choices))}")

    return read


def _union(readers: list[Reader]) -> Reader:
    def read(value: Any) -> Any:
        misfits = []
        for each in readers:
            try:
                return each(value)
            except Misfit as misfit:
                misfits.append(str(misfit))
        raise Misfit("; ".join(misfits))

    return read


def _sequence(kind: Callable[[Any], Any], item: Reader) -> Reader:
    return lambda value: kind(item(each) for each in _expect(list, value))


def _tuple(items: list[Reader]) -> Reader:
    def read(value: Any) -> Any:
        if len(_expect(list, value)) != len(items):
            raise Misfit(f"{value!r} has not {len(items)} items")
        return tuple(item(each) for item, each in zip(items, value, strict=True))

    return read


def _dict(item: Reader) -> Reader:
    return lambda value: {key: item(each) for key, each in _expect(dict, value).items()}


def _dataclass(kind: Any, known: dict[type, Reader]) -> Reader:
    fields = [field for field in dataclasses.fields(kind) if field.init]
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    readers: dict[str, Reader] = {}

    def read(value: Any) -> Any:
        given = _expect(dict, value)
        if missing := required - given.keys():
            raise Misfit(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        try:
            return kind(**{name: read_field(given[name]) for name, read_field in readers.items() if name in given})
        except ValueError as error:  # also of a __post_init__ that checks
            raise Misfit(f"{kind.__name__}: {error}") from error

    known[kind] = read
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        raise TypeError(f"a cell cannot hold {kind!r}: {error}") from error
    readers.update({field.name: _reader(hints[field.name], known) for field in fields})
    return read


def _is_model(kind: type) -> bool:
    # Whoever has a pydantic model has imported pydantic; the base install need not have it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _model(kind: Any) -> Reader:
    """What the model's own settings accept as JSON, where a strict one takes the text of a date too."""
    from pydantic import ValidationError

    def read(value: Any) -> Any:
        try:
            return kind.model_validate_json(json.dumps(value))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Misfit(f"{where}: {first['msg']}" if where else first["msg"]) from error

    return read


def _member(kind: type[enum.Enum], value: Any) -> enum.Enum:
    member = kind(value)
    if type(member.value) is not type(value):  # to Python, True is 1
        raise Misfit(f"{value!r} is no {kind.__name__}")
    return member


def _datetime(value: Any) -> datetime.datetime:
    text = _scalar(str)(value)
    if len(text) <= len("2026-01-02"):
        raise Misfit(f"{value!r} has no time")
    return datetime.datetime.fromisoformat(text)


def _parsed(kind: type, parse: Reader) -> Reader:
    def read(value: Any) -> Any:
        try:
            return parse(value)
        except (ValueError, TypeError) as error:
            raise Misfit(f"{value!r} is no {kind.__name__}") from error

    return read


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise Misfit(f"{value!r} is no {kind.__name__}")
    return value
