"""From parsed JSON to values of plain types and dataclasses, for where pydantic is not installed."""

import dataclasses
import datetime
import enum
import inspect
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

    Knows bool, int, float, str, None, Any, list, tuple, dict with str keys, unions, Literal, Enum,
    datetime, date, UUID and dataclasses, within each other. Raises TypeError for another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return lambda value: value
    if kind is None or kind is type(None):
        return _exactly(None)
    if kind in (bool, int, float, str):
        return _scalar(kind)
    if origin in (Union, types.UnionType):
        return _union([reader(choice) for choice in inner])
    if origin is typing.Literal:
        return _exactly(*inner)
    if (origin or kind) is list:
        return _sequence(list, reader(inner[0] if inner else Any))
    if (origin or kind) is tuple:
        if not inner or inner[-1] is Ellipsis:
            return _sequence(tuple, reader(inner[0] if inner else Any))
        return _tuple([reader(part) for part in inner])
    if (origin or kind) is dict and (not inner or inner[0] is str):
        return _dict(reader(inner[1] if inner else Any))
    if inspect.isclass(kind):
        if dataclasses.is_dataclass(kind):
            return _dataclass(kind)
        if issubclass(kind, enum.Enum):
            return _parsed(kind, kind)
        if kind in (datetime.datetime, datetime.date):
            return _parsed(kind, lambda value: kind.fromisoformat(_scalar(str)(value)))
        if kind is uuid.UUID:
            return _parsed(kind, lambda value: uuid.UUID(_scalar(str)(value)))
    raise TypeError(f"a cell of {kind!r} needs pydantic: install comity[pydantic]")


def _scalar(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if kind is float and type(value) is int:
            return float(value)
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


def _dataclass(kind: Any) -> Reader:
    fields = [field for field in dataclasses.fields(kind) if field.init]
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    # Resolved with the first value: a dataclass may hold itself.
    readers: dict[str, Reader] = {}

    def read(value: Any) -> Any:
        if not readers:
            hints = typing.get_type_hints(kind)
            readers.update({field.name: reader(hints[field.name]) for field in fields})
        given = _expect(dict, value)
        if missing := required - given.keys():
            raise Misfit(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        try:
            return kind(**{name: read_field(given[name]) for name, read_field in readers.items() if name in given})
        except ValueError as error:  # also of a __post_init__ that checks
            raise Misfit(f"{kind.__name__}: {error}") from error

    return read


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
