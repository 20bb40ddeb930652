"""The texts of the policy file that stand for many: patterns of principals and namespaces, and prefixes of keys.

In a pattern `*` stands for any characters and `?` for one. In patterns of namespaces and in prefixes `{principal}`
stands for the name of who calls, in which nothing is special: it is no pattern, whatever its characters. A brace of a
key is written twice.

A name must not get to what is another's. Where more may follow `{principal}`, a name is not put there that has the
character in it which ends names there: with `agents/{principal}/` all of a principal `a/b` would be within what is a's.
"""

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Final

from comity_server.names import NAMESPACE_LENGTH

PLACEHOLDER: Final = "{principal}"
WILDCARDS: Final = ("*", "?")

_TOKEN: Final = re.compile(r"\{principal\}|\{\{|\}\}|[{}]")
_SPECIAL: Final = re.compile(r"[*?[]")
_NOT_FIRST: Final = (".", "_", "-")
_OF_NAMESPACES: Final = re.compile(r"[a-z0-9._*?-]*")


class Names:
    """All names that some patterns stand for. In them `[` is special, too: see `without_classes`."""

    __slots__ = ("_exact", "_pattern", "are_all")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        special = [pattern for pattern in patterns if _SPECIAL.search(pattern)]
        self._exact = frozenset(patterns).difference(special)
        self._pattern = re.compile("|".join(map(translate, special))) if special else None
        self.are_all = "*" in special
        """Whether one of the patterns stands for every name."""

    def __contains__(self, name: str) -> bool:
        return name in self._exact or (self._pattern is not None and self._pattern.match(name) is not None)


class Heads:
    """Which of many, each of which has some heads, have one that a name begins with: found out in about the same time
    for any number of them.

    Args:
        several: the heads of each.
    """

    __slots__ = ("_bits", "_lengths")

    def __init__(self, several: Iterable[Iterable[str]]) -> None:
        self._bits: dict[str, int] = {}
        for place, heads in enumerate(several):
            for head in heads:
                self._bits[head] = self._bits.get(head, 0) | 1 << place
        self._lengths = sorted({len(head) for head in self._bits})

    def of(self, name: str) -> int:
        """A bit for each that has."""
        found = 0
        for length in self._lengths:
            found |= self._bits.get(name[:length], 0)
        return found


class Prefix:
    """The beginning of keys, with places for a name. Raises ValueError with what is wrong with it."""

    __slots__ = ("_ends", "_parts")

    def __init__(self, text: str) -> None:
        self._parts = _split(text)
        if "\0" in text:
            raise ValueError("must not have a NUL in it: no key has one")
        if "" in self._parts[1:]:
            raise ValueError(f"must have a character after {PLACEHOLDER}, as '/': else a has what is ab's")
        self._ends = {part[0] for part in self._parts[1:]}

    @property
    def has_places(self) -> bool:
        """Whether there are places for a name in it."""
        return len(self._parts) > 1

    def of(self, name: str) -> str | None:
        """The prefix of one principal, if it may have one."""
        return name.join(self._parts) if self._ends.isdisjoint(name) else None


class NamespacePattern:
    """A pattern of namespaces, with places for a name. Raises ValueError with what is wrong with it."""

    __slots__ = ("_ends", "_parts")

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("must not be empty: '*' matches every namespace")
        parts = self._parts = _split(text)
        if not all(map(_OF_NAMESPACES.fullmatch, parts)):
            raise ValueError("matches no namespace: they are made of a-z, 0-9, '.', '_' and '-'")
        if parts[0][:1] in _NOT_FIRST:
            raise ValueError("matches no namespace: they begin with one of a-z and 0-9")
        if sum(len(part) - part.count("*") for part in parts) > NAMESPACE_LENGTH:
            raise ValueError(f"matches no namespace: they have {NAMESPACE_LENGTH} characters at the most")
        self._ends: set[str] = set()
        if self.has_places and _SPECIAL.search(text):
            # What stands beside the name tells it from what the wildcards stand for.
            self._ends = {part[0] for part in parts[1:] if part} | {part[-1] for part in parts[:-1] if part}
            if self._ends.intersection(WILDCARDS) or "" in parts[1:-1]:
                raise ValueError(f"must have another character between {PLACEHOLDER} and '*' or '?'")

    @property
    def has_places(self) -> bool:
        """Whether there are places for a name in it."""
        return len(self._parts) > 1

    @property
    def head(self) -> str:
        """What all that it stands for begins with, whoever calls."""
        return _SPECIAL.split(self._parts[0], maxsplit=1)[0]

    def of(self, name: str) -> str | None:
        """The pattern of one principal, for `Names`, if it may have one."""
        return _literal(name).join(self._parts) if self._ends.isdisjoint(name) else None


def covering(patterns: Iterable[str]) -> Names:
    """Of patterns without classes: those of the same kind of which each name is one of theirs are in it. It may lack
    some that are written in another way: `?*` is not seen to be `*?`."""
    # As a text, a pattern has `*` where any characters may be: that is no single one, for which there is `?`.
    return Names(without_classes(pattern).replace("?", "[!*]") for pattern in patterns)


def without_classes(pattern: str) -> str:
    """The pattern for `Names` in which nothing but `*` and `?` is special."""
    return pattern.replace("[", "[[]")


def _literal(name: str) -> str:
    """The pattern that a name alone matches."""
    return _SPECIAL.sub(r"[\g<0>]", name)


def _split(text: str) -> tuple[str, ...]:
    """The parts between the places for a name."""
    parts = [""]
    end = 0
    for token in _TOKEN.finditer(text):
        parts[-1] += text[end : token.start()]
        end = token.end()
        if token[0] == PLACEHOLDER:
            parts.append("")
        elif len(token[0]) == 2:
            parts[-1] += token[0][0]
        else:
            raise ValueError(f"has a brace in it that is not of {PLACEHOLDER}: one of a key is written twice")
    parts[-1] += text[end:]
    return tuple(parts)
