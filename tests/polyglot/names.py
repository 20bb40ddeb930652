"""The names that generators of stubs make of the contract, and whether a program uses others."""

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

from comity.v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, types_pb2

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR for module in (checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2, types_pb2)
]
MESSAGES: dict[str, Descriptor] = {name: each for file in FILES for name, each in file.message_types_by_name.items()}
ENUMS: dict[str, EnumDescriptor] = {name: each for file in FILES for name, each in file.enum_types_by_name.items()}
SERVICES: dict[str, ServiceDescriptor] = {name: each for file in FILES for name, each in file.services_by_name.items()}
METHODS = {name for service in SERVICES.values() for name in service.methods_by_name}


def camel(name: str) -> str:
    """`IfVersion` of if_version."""
    return "".join(part.capitalize() for part in name.split("_"))


def snake(name: str) -> str:
    """`state_service` of StateService."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def fields(message: Descriptor) -> list[FieldDescriptor]:
    return list(message.fields)


def oneofs(message: Descriptor) -> dict[str, list[FieldDescriptor]]:
    """The real ones; an optional field is one of its own to descriptors."""
    return {
        each.name: list(each.fields)
        for each in message.oneofs
        if not (len(each.fields) == 1 and each.name == f"_{each.fields[0].name}")
    }


def literals(program: str, opening: re.Pattern[str]) -> Iterator[tuple[str, list[str]]]:
    """Each literal `Name{Field: …}` of a program, with the fields that it names, and not those of literals inside.

    opening: what such a literal begins with, up to its brace: its `name`, and whether it is a list of `many`.
    """
    for found in opening.finditer(program):
        body = _inside(program, found.end())
        elements = [body]
        if found["many"]:  # which leave out their type
            elements = [_inside(body, place + 1) for place in _top(body, "{")]
        for element in elements:
            yield found["name"], re.findall(r"(?:^|,|\n)\s*(\w+):(?!:)", _flat(element))


def _inside(program: str, start: int) -> str:
    """What is between the bracket before `start` and its match."""
    for end, depth in _depths(program[start:]):
        if depth < 0:
            return program[start : start + end]
    raise ValueError("a bracket is not closed")


def _top(text: str, bracket: str) -> list[int]:
    """Where such brackets open that are in no other one."""
    return [place for place, depth in _depths(text) if depth == 1 and text[place] == bracket]


def _flat(text: str) -> str:
    """The text without what is in brackets, and without comments."""
    flat = "".join(text[place] for place, depth in _depths(text) if depth == 0)
    return re.sub(r"//.*", "", flat)


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Each place, with how deep in brackets it is: an opening one is inside already, a closing one no more."""
    depth, quote = 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in '"`':
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        yield place, depth
