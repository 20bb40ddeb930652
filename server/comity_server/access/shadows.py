"""Tables `[[limits]]` that never hold, since for each name of theirs one that comes first holds."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from comity_server.access.limits import Table
from comity_server.access.patterns import Names, covering
from comity_server.names import ANONYMOUS

MOST_COMPARED: Final = 100_000  # of a pattern with a table's: what a tenth of a second is enough for


class Shadow(NamedTuple):
    """A figure of a table that never holds. Tables have their numbers in the file, from 1."""

    table: int
    figure: str
    """Of a rate and its burst: the rate."""
    by: list[int]
    """The tables that hold in its place."""


class _Before(NamedTuple):
    """A table that comes before others."""

    number: int
    names: Names
    anonymous: bool
    figures: frozenset[str]

    def covers(self, pattern: str) -> bool:
        return self.anonymous if pattern == ANONYMOUS else pattern in self.names


def shadows(tables: Sequence[Table]) -> Iterator[Shadow]:
    """Those that are found: patterns are compared one by one, and no more than so many of them."""
    left = MOST_COMPARED
    of_principals: list[_Before] = []
    of_namespaces: list[_Before] = []
    for number, table in enumerate(tables, 1):
        before, patterns = of_principals, table.principals
        if patterns is None:
            before, patterns = of_namespaces, table.namespaces or []
        figures = table.figures()
        for figure in figures:
            bare: list[str] = patterns
            by: list[int] = []
            for other in before:
                if figure not in other.figures:
                    continue
                left -= len(bare)
                if left < 0:
                    return
                lacking = [pattern for pattern in bare if not other.covers(pattern)]
                if len(lacking) < len(bare):
                    bare, by = lacking, [*by, other.number]
                if not bare:
                    yield Shadow(number, figure, by)
                    break
        names = covering(pattern for pattern in patterns if pattern != ANONYMOUS)
        before.append(_Before(number, names, ANONYMOUS in patterns, frozenset(figures)))
