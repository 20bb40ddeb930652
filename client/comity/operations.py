"""What a transaction is made of: conditions on keys and prefixes, and operations.

await state.transact(
    conditions=[Key("budget").version == 3, Prefix("agents/").unchanged_since(17)],
    then=[Put("budget", 90), Increment("spent", 10)],
    otherwise=[Get("budget")],
)
"""

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from . import codec
from .leases.guard import OfLease
from .leases.ttl import not_both

__all__ = [
    "Comparable",
    "Condition",
    "Delete",
    "Get",
    "Increment",
    "Key",
    "List",
    "Operation",
    "Operator",
    "Prefix",
    "Put",
    "Test",
]

T = TypeVar("T")


class Operator(enum.Enum):
    """How a condition compares what is with what it names. The values are the numbers of the wire contract."""

    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    LESS_OR_EQUAL = 4
    GREATER = 5
    GREATER_OR_EQUAL = 6


class Test(enum.Enum):
    """What a condition is about. The values are the names of the wire contract's fields."""

    __test__ = False  # no test of pytest's

    EXISTS = "exists"
    VERSION = "version"
    MOD_REVISION = "mod_revision"
    CREATE_REVISION = "create_revision"
    VALUE = "value"
    LEASE_ID = "lease_id"
    UNCHANGED_SINCE = "unchanged_since"


@dataclass(frozen=True, slots=True)
class Condition:
    """A statement about the state just before the transaction. Made by Key and Prefix, not by hand."""

    target: str
    is_prefix: bool
    test: Test
    right: bool | int | bytes
    operator: Operator = Operator.EQUAL

    def __bool__(self) -> bool:
        raise TypeError("a condition is judged by the server: pass it to transact(conditions=[...]), several as a list")


class Comparable(Generic[T]):
    """A property of a key. Compared by ==, !=, <, <=, >, >= it makes a Condition."""

    __slots__ = ("_key", "_test")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, key: str, test: Test) -> None:
        self._key = key
        self._test = test

    def _compare(self, operator: Operator, right: object) -> Condition:
        if self._test is Test.VALUE:
            return Condition(self._key, False, self._test, codec.encode(right)[0], operator)
        if isinstance(right, bool) or not isinstance(right, int):
            raise TypeError(f"{self._test.value} is compared with an int, not with {type(right).__name__}")
        return Condition(self._key, False, self._test, right, operator)

    def __eq__(self, right: T) -> Condition:  # type: ignore[override]
        return self._compare(Operator.EQUAL, right)

    def __ne__(self, right: T) -> Condition:  # type: ignore[override]
        return self._compare(Operator.NOT_EQUAL, right)

    def __lt__(self, right: T) -> Condition:
        return self._compare(Operator.LESS, right)

    def __le__(self, right: T) -> Condition:
        return self._compare(Operator.LESS_OR_EQUAL, right)

    def __gt__(self, right: T) -> Condition:
        return self._compare(Operator.GREATER, right)

    def __ge__(self, right: T) -> Condition:
        return self._compare(Operator.GREATER_OR_EQUAL, right)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, to say conditions on: `Key("budget").version == 3`, `Key("budget").exists()`.

    The numbers of an absent key are all 0; a condition on the value of an absent key is false.
    """

    key: str

    def exists(self) -> Condition:
        """The key exists."""
        return Condition(self.key, False, Test.EXISTS, True)

    def absent(self) -> Condition:
        """The key does not exist."""
        return Condition(self.key, False, Test.EXISTS, False)

    def unchanged_since(self, revision: int) -> Condition:
        """Nothing was put or deleted at the key after this revision.

        `transact` raises Compacted if the revision is below the floor, OutOfRange if it is above the newest.
        """
        return Condition(self.key, False, Test.UNCHANGED_SINCE, revision)

    @property
    def version(self) -> Comparable[int]:
        """The key's version: 1 at creation, one more with each overwrite."""
        return Comparable(self.key, Test.VERSION)

    @property
    def mod_revision(self) -> Comparable[int]:
        """The revision of the key's last write."""
        return Comparable(self.key, Test.MOD_REVISION)

    @property
    def create_revision(self) -> Comparable[int]:
        """The revision of the key's creation."""
        return Comparable(self.key, Test.CREATE_REVISION)

    @property
    def value(self) -> Comparable[object]:
        """The key's value, encoded as `put` would and compared by bytes."""
        return Comparable(self.key, Test.VALUE)

    @property
    def lease_id(self) -> Comparable[int]:
        """The lease that the key lives by; 0: none. Compares by == and != only."""
        return Comparable(self.key, Test.LEASE_ID)


@dataclass(frozen=True, slots=True)
class Prefix:
    """All keys that begin with this, to say a condition on: `Prefix("agents/").unchanged_since(17)`."""

    prefix: str

    def unchanged_since(self, revision: int) -> Condition:
        """Nothing was put or deleted under the prefix after this revision.

        `transact` raises Compacted if the revision is below the floor, OutOfRange if it is above the newest.
        """
        return Condition(self.prefix, True, Test.UNCHANGED_SINCE, revision)


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key. Sees the writes before it. Answered by a GetResult."""

    key: str


@dataclass(frozen=True, slots=True)
class List:
    """Read the entries under a prefix. Sees the writes before it. Answered by a ListResult.

    limit: the most entries to answer with; 0 is the server's limit, 1,000. ListResult.more says if there are others.
    keys_only: leave the values out.
    """

    prefix: str = ""
    limit: int = 0
    keys_only: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key. Answered by a PutResult.

    value, content_type: as of `Client.put`.
    return_previous: answer with the entry that was overwritten.
    lease, ttl: as of `Client.put`. Keys that one transaction puts with a ttl share one lease, and must have the same.

    Raises TypeError for a lease and a ttl at once.
    """

    key: str
    value: object
    content_type: str | None = None
    return_previous: bool = False
    lease: OfLease | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        not_both(self.lease, self.ttl)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or all under a prefix: `Delete("key")`, `Delete(prefix="agents/")`. Answered by a DeleteResult.

    return_previous: answer with the entries that were deleted, up to 1 MiB of them.

    Raises TypeError unless given either a key or a prefix.
    """

    key: str | None = None
    prefix: str | None = None
    return_previous: bool = False

    def __post_init__(self) -> None:
        if (self.key is None) == (self.prefix is None):
            raise TypeError("a delete takes either a key or a prefix")


@dataclass(frozen=True, slots=True)
class Increment:
    """Add `by`, which may be negative, to a whole number; an absent key counts as 0. Answered by an IncrementResult."""

    key: str
    by: int = 1


Operation = Get | List | Put | Delete | Increment
