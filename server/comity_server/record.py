"""Entries as the stores keep them: plain tuples, with names for their places.

A plain tuple is what the garbage collector stops tracking and what costs the least to make, and a store makes one with
every write. A deleted key leaves a tombstone, whose version is 0: "absent" and "deleted" compare alike, as in etcd.
"""

from typing import Final

# (key, value, content_type, version, create_revision, mod_revision, lease_id, update_time in µs since 1970)
Record = tuple[str, bytes, str, int, int, int, int, int]

KEY: Final = 0
VALUE: Final = 1
CONTENT_TYPE: Final = 2
VERSION: Final = 3
CREATE_REVISION: Final = 4
MOD_REVISION: Final = 5
LEASE_ID: Final = 6
UPDATE_TIME: Final = 7

LARGEST_INTEGER: Final = 2**53 - 1  # of the numbers that increments make: every JSON reader holds it exactly


def tombstone(key: str, revision: int, time: int) -> Record:
    return (key, b"", "", 0, 0, revision, 0, time)


def size(record: Record) -> int:
    """What an entry counts for in quotas, in bytes."""
    key = record[KEY]
    return (len(key) if key.isascii() else len(key.encode())) + len(record[VALUE]) + len(record[CONTENT_TYPE])


def shown_size(record: Record) -> int:
    """What an entry counts for in an answer: its size, and what the answer says beside it."""
    return size(record) + 48


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def without_value(record: Record) -> Record:
    return (record[KEY], b"", *record[CONTENT_TYPE:])


def same_content(one: Record | None, other: Record | None) -> bool:
    """Whether two entries of a key, or their absence, tell a reader the same."""
    if one is None or other is None:
        return one is other
    return one is other or (one[VALUE] == other[VALUE] and one[CONTENT_TYPE] == other[CONTENT_TYPE])
