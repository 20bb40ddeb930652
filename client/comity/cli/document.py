"""A transaction as a JSON document, with the names of the protos: from the text to conditions and operations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .values import from_json, strict_json

if TYPE_CHECKING:
    from comity.operations import Condition, Operation, Operator

__all__ = ["Document", "read"]

T = TypeVar("T")

NUMBERS = ("version", "mod_revision", "create_revision", "lease_id", "unchanged_since")
TESTS = ("exists", "value", *NUMBERS)
OPERATIONS = ("get", "list", "put", "delete", "increment")
SYMBOLS = {
    "==": "EQUAL",
    "!=": "NOT_EQUAL",
    "<": "LESS",
    "<=": "LESS_OR_EQUAL",
    ">": "GREATER",
    ">=": "GREATER_OR_EQUAL",
}


@dataclass(frozen=True, slots=True)
class Document:
    """What a document says, and its parts as they were said, to name them in what is shown."""

    conditions: "list[Condition]"
    then: "list[Operation]"
    otherwise: "list[Operation]"
    stated: list[dict[str, Any]]  # the conditions


def read(data: bytes) -> Document:
    """Parse a document. Raises ValueError, which names the place, if it is none."""
    root = Fields("", strict_json(data))
    stated: list[Any] = root.take("conditions", list, [])
    document = Document(
        [_condition(Fields(f"conditions[{place}]", part)) for place, part in enumerate(stated)],
        _operations("then", root.take("then", list, [])),
        _operations("otherwise", root.take("otherwise", list, [])),
        stated,
    )
    root.end()
    return document


def _condition(fields: "Fields") -> "Condition":
    from comity.operations import Condition, Operator, Test

    target = fields.one_of("key", "prefix")
    test = fields.one_of(*TESTS)
    right: bool | int | bytes
    if test == "exists":
        right = fields.take(test, bool)
    elif test == "value":
        right = fields.value(test)[0]
    else:
        right = fields.take(test, int)
    name = fields.take("operator", str, "EQUAL")
    made = Condition(fields.take(target, str), target == "prefix", Test(test), right, _operator(fields, name, Operator))
    fields.end()
    return made


def _operator(fields: "Fields", name: str, operators: "type[Operator]") -> "Operator":
    plain = SYMBOLS.get(name, name.removeprefix("OPERATOR_"))
    if plain not in operators.__members__:
        raise fields.wrong("operator", f"must be one of {', '.join([*SYMBOLS, *operators.__members__])}")
    return operators[plain]


def _operations(name: str, parts: list[Any]) -> "list[Operation]":
    made = []
    for place, part in enumerate(parts):
        fields = Fields(f"{name}[{place}]", part)
        kind = fields.one_of(*OPERATIONS)
        inner = Fields(f"{fields.path}.{kind}", fields.take(kind, dict))
        fields.end()
        made.append(_operation(kind, inner))
        inner.end()
    return made


def _operation(kind: str, fields: "Fields") -> "Operation":
    from comity import operations

    match kind:
        case "get":
            return operations.Get(fields.take("key", str))
        case "list":
            return operations.List(
                fields.take("prefix", str, ""), fields.take("limit", int, 0), fields.take("keys_only", bool, False)
            )
        case "put":
            key = fields.take("key", str)
            value, content_type = fields.value("value", fields.take("content_type", str, None))
            previous = fields.take("return_previous", bool, False)
            return operations.Put(key, value, content_type, previous, *fields.living())
        case "delete":
            target = fields.one_of("key", "prefix")
            return operations.Delete(
                **{target: fields.take(target, str)}, return_previous=fields.take("return_previous", bool, False)
            )
        case _:
            return operations.Increment(fields.take("key", str), fields.take("delta", int))


_REQUIRED: Any = object()


class Fields:
    """The fields of one object of a document, each to be taken once. Errors say where in the document it is."""

    def __init__(self, path: str, found: Any) -> None:
        self.path = path
        if not isinstance(found, dict):
            raise ValueError(f"{path or 'the document'} must be an object")  # noqa: TRY004 - wrong input, not a wrong call
        self._left = dict(found)

    def wrong(self, name: str, text: str) -> ValueError:
        return ValueError(f"{self.path}.{name}".removeprefix(".") + f" {text}")

    def take(self, name: str, kind: type[T], default: Any = _REQUIRED) -> T:
        """A field of the type `kind`."""
        found = self._left.pop(name, default)
        if found is _REQUIRED:
            raise self.wrong(name, "is missing")
        if found is default:
            return cast(T, found)
        if type(found) is not kind:  # exactly, since a bool is an int to Python
            names = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}
            raise self.wrong(name, f"must be {names[kind]}")
        if isinstance(found, int) and not -(2**63) <= found < 2**63:
            raise self.wrong(name, "must fit into 64 bits")
        return found

    def value(self, name: str, content_type: str | None = None) -> tuple[bytes, str]:
        """A field that is a value: its bytes and content type, as `put` stores them."""
        from comity.codec import encode

        if name not in self._left:
            raise self.wrong(name, "is missing")
        try:
            return encode(from_json(self._left.pop(name)), content_type)
        except ValueError as error:
            raise self.wrong(name, f"is wrong: {error}") from error

    def living(self) -> tuple[int | None, float | None]:
        """What a key is to live by: a lease, or a ttl in seconds."""
        from comity.leases.ttl import MOST_SECONDS, micros_of

        lease_id = None
        if "lease_id" in self._left:
            lease_id = self.take("lease_id", int)
            if lease_id < 1:
                raise self.wrong("lease_id", "must be above 0")
        if "ttl" not in self._left:
            return lease_id, None
        ttl: Any = self._left.pop("ttl")
        if lease_id is not None:
            raise self.wrong("ttl", "must not be there together with lease_id")
        try:
            micros_of(ttl)
        except TypeError as error:
            raise self.wrong("ttl", "must be a number of seconds above 0") from error
        except ValueError as error:
            raise self.wrong("ttl", f"must be a number of seconds above 0, and at most {MOST_SECONDS:.0f}") from error
        return None, ttl

    def one_of(self, *names: str) -> str:
        """The name of the field that is there, of several of which one must be."""
        found = [name for name in names if name in self._left]
        if len(found) != 1:
            raise ValueError(f"{self.path} must have one of {', '.join(names)}" + (", not more" if found else ""))
        return found[0]

    def end(self) -> None:
        """Refuse what nobody asked for: a slip of the pen must not become a transaction without that condition."""
        for name in self._left:
            raise self.wrong(name, "is not known here")
