"""Writes what is long a step at a time: as many rows, and bytes, as one script call writes without holding Redis for
long."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from comity_server.stores.redis.codec import Row

PIECE: Final = 1024 * 1024  # bytes; an entry of the log that is longer is staged in such pieces
ROWS: Final = 200  # that one script call moves; of large ones it moves no more than a PIECE


def few(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    """As many at a time as one script call writes: so few rows, and bytes, that none holds Redis for long."""
    some: list[Row] = []
    size = 0
    for row in rows:
        length = sum(map(len, row))
        if some and (len(some) == ROWS or size + length > PIECE):
            yield some
            some, size = [], 0
        some.append(row)
        size += length
    if some:
        yield some


def steps(sets: Iterable[Row], gone: Sequence[bytes]) -> Iterator[tuple[Sequence[Row], Sequence[bytes]]]:
    """What one script call after the other sets and drops."""
    last: Sequence[Row] = ()
    for some in few(sets):
        if last:
            yield last, ()
        last = some
    room = ROWS - len(last)
    if last or gone:
        yield last, gone[:room]
    for start in range(room, len(gone), ROWS):
        yield (), gone[start : start + ROWS]
