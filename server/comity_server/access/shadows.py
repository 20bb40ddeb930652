"""Tables `[[limits]]` that never hold, since for each name of theirs one that comes first holds."""

from collections.abc import Container, Iterator, Sequence
from typing import Final, NamedTuple

from comity_server.access.limits import Table
from comity_server.access.patterns import WILDCARDS, Names, covering
from comity_server.names import ANONYMOUS

MOST_WORK: Final = 200_000_000  # about what a tenth of a second is enough for
OF_COMPARING: Final = (
    200  # of a pattern with a table, beside its characters times those of the table's wildcard patterns
)
OF_COMPILING: Final = 2000  # a character of a wildcard pattern


class Shadow(NamedTuple):
    """A figure of a table that never holds. Tables have their numbers in the file, from 1."""

    table: int
    figure: str
    """Of a rate and its burst: the rate."""
    by: list[int]
    """The tables that hold in its place."""


class _Before:
    """A table that comes before others."""

    def __init__(self, number: int, patterns: Sequence[str], figures: Container[str], *, has_anonymous: bool) -> None:
        self.number = number
        self.figures = figures
        self._patterns = patterns
        self._has_anonymous = has_anonymous
        self._size = sum(len(pattern) for pattern in patterns if any(wildcard in pattern for wildcard in WILDCARDS))
        self._names: Names | None = None

    def work(self, pattern: str) -> int:
        """How much it is to see whether the table covers a pattern."""
        compiling = OF_COMPILING * self._size if self._names is None else 0
        return compiling + OF_COMPARING + len(pattern) * self._size

    def covers(self, pattern: str) -> bool:
        """pattern: empty for those who are nobody."""
        if not pattern:
            return self._has_anonymous
        if self._names is None:
            self._names = covering(self._patterns)
        return pattern in self._names


def shadows(tables: Sequence[Table]) -> Iterator[Shadow]:
    """Those that are found: patterns are compared one by one, until that was much work."""
    left = MOST_WORK
    of_principals: list[_Before] = []
    of_namespaces: list[_Before] = []
    for number, table in enumerate(tables, 1):
        before, patterns = of_namespaces, table.namespaces or []
        if table.principals is not None:
            before, patterns = of_principals, ["" if each == ANONYMOUS else each for each in table.principals]
        figures = table.figures()
        for figure in figures:
            bare: list[str] = patterns
            by: list[int] = []
            for other in before:
                if figure not in other.figures:
                    continue
                lacking = []
                for pattern in bare:
                    left -= other.work(pattern)
                    if left < 0:
                        return
                    if not other.covers(pattern):
                        lacking.append(pattern)
                if len(lacking) < len(bare):
                    bare, by = lacking, [*by, other.number]
                if not bare:
                    yield Shadow(number, figure, by)
                    break
        named = [pattern for pattern in patterns if pattern]
        before.append(_Before(number, named, figures, has_anonymous=len(named) < len(patterns)))
