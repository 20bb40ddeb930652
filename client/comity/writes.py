"""The writes of a transaction function, folded so that a key is written once, and seen by its later reads. No I/O."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from . import codec
from .convert import EPOCH
from .errors import FailedPrecondition
from .model import Entry
from .operations import Delete, Increment, Operation, Put

__all__ = ["Writes", "under"]

WHOLE_NUMBER = re.compile(rb"-?(0|[1-9][0-9]{0,15})")
MAX_NUMBER = 2**53 - 1


def under(key: str, prefixes: Iterable[str]) -> bool:
    """Whether the key begins with one of the prefixes."""
    return any(key.startswith(prefix) for prefix in prefixes)


class Writes:
    """What a function has written up to now.

    A put or an increment of a key that a prefix delete took before cannot be sent as the two of them, since a
    transaction writes a key once: `overlapping` names such prefixes, to be deleted key by key.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Put | Delete | Increment] = {}
        self._prefixes: dict[str, None] = {}  # deleted; none begins with another

    def __bool__(self) -> bool:
        return bool(self._keys or self._prefixes)

    def put(
        self, key: str, value: object, content_type: str | None, lease_id: int = 0, ttl: float | None = None
    ) -> None:
        # Encoded now: the function may change the value later on, and should hear of an error where it made it.
        self._set(Put(key, *codec.encode(value, content_type), lease=lease_id or None, ttl=ttl))

    def delete(self, key: str) -> None:
        if under(key, self._prefixes):
            self._keys.pop(key, None)
        else:
            self._set(Delete(key))

    def delete_prefix(self, prefix: str) -> None:
        self._keys = {key: write for key, write in self._keys.items() if not key.startswith(prefix)}
        if not under(prefix, self._prefixes):
            self._prefixes = {known: None for known in self._prefixes if not known.startswith(prefix)}
            self._prefixes[prefix] = None

    def increment(self, key: str, by: int) -> None:
        match self._keys.get(key):
            case Increment(_, before):
                self._set(Increment(key, _sum(key, before, by)))
            case Put(_, bytes(data)) as put:
                self._set(replace(put, value=_digits(key, _whole(key, data), by), content_type=codec.JSON))
            case Delete():
                self._set(_number(key, by))
            case _:
                self._set(_number(key, by) if under(key, self._prefixes) else Increment(key, by))

    def _set(self, write: Put | Delete | Increment) -> None:
        assert write.key is not None
        self._keys.pop(write.key, None)  # so that it moves to the end: the events of a commit have this order
        self._keys[write.key] = write

    def decides(self, key: str) -> bool:
        """Whether the entry of the key depends on these writes alone, so that it need not be read."""
        write = self._keys.get(key)
        return under(key, self._prefixes) if write is None else not isinstance(write, Increment)

    def entry(self, key: str, stored: Entry | None) -> Entry | None:
        """The key's entry as these writes leave it. One that is written here has no version, revision and time: 0."""
        match self._keys.get(key):
            case Put(_, bytes(data), content_type, _, lease):
                return _pending(key, data, content_type or "", lease if isinstance(lease, int) else 0)
            case Increment(_, by):
                before, lease_id = (0, 0) if stored is None else (_whole(key, stored.data), stored.lease_id)
                return _pending(key, _digits(key, before, by), codec.JSON, lease_id)
            case Delete():
                return None
            case _:
                return None if under(key, self._prefixes) else stored

    def entries(self, prefix: str, stored: Iterable[Entry]) -> list[Entry]:
        """The entries under a prefix as these writes leave them, in the order of keys."""
        found: dict[str, Entry | None] = {entry.key: entry for entry in stored}
        keys = {*found, *(key for key in self._keys if key.startswith(prefix))}
        after = (self.entry(key, found.get(key)) for key in sorted(keys, key=str.encode))
        return [entry for entry in after if entry is not None]

    def overlapping(self) -> list[str]:
        """The deleted prefixes under which something was written afterwards."""
        return [prefix for prefix in self._prefixes if any(key.startswith(prefix) for key in self._keys)]

    def operations(self, stored: Iterable[Entry] = ()) -> Iterator[Operation]:
        """The writes as operations. `stored` are the entries under the overlapping prefixes."""
        overlapping = self.overlapping()
        for prefix in self._prefixes:
            if prefix not in overlapping:
                yield Delete(prefix=prefix)
        for key in sorted({entry.key for entry in stored} - self._keys.keys(), key=str.encode):
            yield Delete(key)
        yield from self._keys.values()


def _pending(key: str, data: bytes, content_type: str, lease_id: int) -> Entry:
    return Entry(key, data, content_type, 0, 0, 0, lease_id, EPOCH)


def _number(key: str, number: int) -> Put:
    return Put(key, _digits(key, number, 0), codec.JSON)


def _digits(key: str, number: int, by: int) -> bytes:
    return b"%d" % _sum(key, number, by)


def _whole(key: str, data: bytes) -> int:
    if WHOLE_NUMBER.fullmatch(data) is None:
        raise _not_a_number(key, "what it holds is no whole number")
    return _sum(key, int(data), 0)


def _sum(key: str, number: int, by: int) -> int:
    if abs(number + by) > MAX_NUMBER:
        raise _not_a_number(key, f"{number + by} is outside of -(2^53-1) to 2^53-1")
    return number + by


def _not_a_number(key: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"{key!r} cannot be incremented: {why}", reason="NOT_A_NUMBER", metadata={"key": key})
