"""Many rows in few statements.

For each statement SQLite is left alone and Python's lock has to be got back afterwards, which takes some ms where the
event loop is busy. A row a statement would take thousands of times that for a large commit.
"""

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice
from typing import Any, Final

_SIZES: Final = (200, 20, 1)  # rows a statement; SQLite takes 32,766 values in one


def insert(connection: sqlite3.Connection, into: str, columns: int, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows of so many columns. `into`: how the statement begins, as `INSERT INTO versions`."""
    left = iter(rows)
    while chunk := list(islice(left, _SIZES[0])):
        for size in _SIZES:
            while len(chunk) >= size:
                some, chunk = chunk[:size], chunk[size:]
                connection.execute(_statement(into, columns, size), list(chain.from_iterable(some)))


@cache
def _statement(into: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{into} VALUES {', '.join([row] * rows)}"
