"""Messages of what a caller says. Where it does not fit, the error names the argument, and what it should be.

What goes into a message is not looked at beforehand: what is wrong is found out once protobuf has refused it, which
says little.
"""

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["built", "each_made", "expect", "shown"]

P = ParamSpec("P")
M = TypeVar("M", bound=Message)
Stated = TypeVar("Stated")
Made = TypeVar("Made")

Refusal = TypeError | ValueError

# Fields that an argument has another name for.
NAMES = {
    "comity.v1.ForkRequest.fork": "name",
    "comity.v1.IncrementOperation.delta": "by",
    "comity.v1.RequestId.client": "request_id.client",
    "comity.v1.RequestId.sequence": "request_id.sequence",
    "comity.v1.RequestId.awaited": "request_id.awaited",
}
KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "a str",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
}


def built(kind: Callable[P, M], *args: P.args, **fields: P.kwargs) -> M:
    """The message of that kind with these fields. Raises TypeError or ValueError, which names the one at fault."""
    try:
        return kind(*args, **fields)
    except (TypeError, ValueError) as error:
        raise _named(kind, fields, error) from error


def each_made(name: str, make: Callable[[Stated], Made], stated: Iterable[Stated]) -> list[Made]:
    """What `make` makes of each. Raises TypeError or ValueError, which names the place of the one at fault."""
    made: list[Made] = []
    try:
        for each in stated:
            made.append(make(each))  # noqa: PERF401 - how many there are says where it failed
    except (TypeError, ValueError) as error:
        if not hasattr(stated, "__iter__"):
            raise TypeError(f"{name} must be a list, not {type(stated).__name__}") from error
        raise _same(error, f"{name}[{len(made)}]: {error}") from error
    return made


def expect(name: str, kind: type, value: object) -> None:
    """Raise TypeError, which names the argument, unless the value is of this kind: for what no message is built of."""
    if not isinstance(value, kind):
        wanted = {str: "a str", int: "a whole number"}.get(kind, kind.__name__)
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def _same(error: Refusal, text: str) -> Refusal:
    return TypeError(text) if isinstance(error, TypeError) else ValueError(text)


def _named(kind: Callable[..., Message], fields: dict[str, object], error: Refusal) -> Refusal:
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError) as found:
            field = kind().DESCRIPTOR.fields_by_name[name]
            shown = NAMES.get(field.full_name, name)
            if isinstance(found, UnicodeError):
                return ValueError(f"{shown} must be Unicode: {found}")
            wanted = KINDS.get(field.cpp_type, "")
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                wanted = "a mapping of str to str"
            if not wanted:
                break
            given = type(value).__name__ if isinstance(found, TypeError) else repr(value)
            return _same(found, f"{shown} must be {wanted}, not {given}")
    return error


def shown(number: float) -> str:
    """The number for a message: a long one rounded, and one of hundreds of digits by what it is."""
    try:
        return f"{number}" if abs(number) < 1e20 else f"{number:.3g}"
    except OverflowError:
        return f"a {'negative ' if number < 0 else ''}number of more than 308 digits"
