"""What is done to both peers: steps that say nothing of how a peer is spoken to, and a seeded choice of them."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol

from comity_server.model import Operator

# Few keys, so that steps meet. The last three are in the order of their UTF-8 bytes, which is not that of UTF-16.
KEYS = ["a", "a/", "a/b", "a/c", "b", "é", "\uffff", "\U0001f600"]
PREFIXES = ["", "a", "a/", "b", "é", "x"]
VALUES = [b"", b"0", b"1", b"1\0", b"2", b"\xff"]


class Target(NamedTuple):
    name: str
    is_prefix: bool = False


class Compare(NamedTuple):
    key: str
    field: str  # version, create_revision, mod_revision or value
    operator: Operator
    operand: int | bytes


class PutStep(NamedTuple):
    key: str
    value: bytes
    previous: bool = False


class DeleteStep(NamedTuple):
    target: Target
    previous: bool = False


class ReadStep(NamedTuple):
    target: Target
    limit: int = 0  # 0: all; only inside a transaction
    keys_only: bool = False


Step = PutStep | DeleteStep | ReadStep


class Entry(NamedTuple):
    key: str
    value: bytes
    version: int
    create_revision: int
    mod_revision: int


class Seen(NamedTuple):
    """An event of a watch."""

    revision: int
    is_delete: bool
    entry: Entry
    previous: Entry | None


class Read(NamedTuple):
    entries: Sequence[Entry]
    more: bool


class Changed(NamedTuple):
    keys: int  # how many; 1 of a put
    previous: Sequence[Entry]


class Ended(NamedTuple):
    """How a transaction ended."""

    committed: bool
    revision: int
    results: Sequence[Read | Changed]


class Refused(Exception):
    """The peer answered with an error: the number of its gRPC code, on which the two agree."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Watch(Protocol):
    def until(self, revision: int) -> list[Seen]:
        """All events up to those of a revision that is known to have one; the watch ends. Raises Refused."""


class Peer(Protocol):
    """A key-value store. Revisions are told from the one at which the peer was begun with: that one is 0."""

    def transact(self, compares: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step]) -> Ended: ...

    def put(self, step: PutStep, if_field: str = "", if_number: int = 0) -> Ended:
        """A put by itself, on request only where the key's version or mod_revision is a number."""

    def delete(self, step: DeleteStep) -> Ended: ...

    def read(self, step: ReadStep, revision: int) -> Read: ...

    def watch(self, target: Target, from_revision: int, *, puts: bool, deletes: bool, previous: bool) -> Watch: ...

    def compact(self, revision: int) -> None: ...


class Choice:
    """Chooses steps. The same seed chooses the same ones, as long as the peers answer the same."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def key(self) -> str:
        return self.random.choice(KEYS)

    def target(self) -> Target:
        if self.random.random() < 0.6:
            return Target(self.key())
        return Target(self.random.choice(PREFIXES), is_prefix=True)

    def flag(self, chance: float = 0.5) -> bool:
        return self.random.random() < chance

    def put(self) -> PutStep:
        return PutStep(self.key(), self.random.choice(VALUES), self.flag())

    def delete(self) -> DeleteStep:
        return DeleteStep(self.target(), self.flag())

    def read(self, *, in_transaction: bool = False) -> ReadStep:
        target = self.target()
        limit = self.random.randint(1, 4) if in_transaction and target.is_prefix else 0
        return ReadStep(target, limit, target.is_prefix and self.flag(0.3))

    def branch(self) -> list[Step]:
        """May write a key twice: then both peers have to refuse it."""
        kinds = self.random.choices(("put", "delete", "read"), (5, 2, 4), k=self.random.randint(0, 4))
        return [self.step(kind) for kind in kinds]

    def step(self, kind: str) -> Step:
        match kind:
            case "put":
                return self.put()
            case "delete":
                return self.delete()
            case _:
                return self.read(in_transaction=True)

    def compare(self, newest: int) -> Compare:
        field = self.random.choice(("version", "create_revision", "mod_revision", "value"))
        operator = self.random.choice(list(Operator))
        if field == "value":
            if operator is Operator.GREATER_OR_EQUAL:  # etcd has no such one, and it cannot be said in another way
                operator = Operator.GREATER
            return Compare(self.key(), field, operator, self.random.choice(VALUES))
        largest = 3 if field == "version" else newest + 1
        smallest = 0 if field == "version" else max(0, newest - 12)
        operand = self.random.choice((0, self.random.randint(smallest, largest)))
        return Compare(self.key(), field, operator, operand)

    def compares(self, newest: int) -> list[Compare]:
        return [self.compare(newest) for _ in range(self.random.choices((0, 1, 2, 3), (2, 5, 2, 1))[0])]

    def revision(self, newest: int, floor: int) -> int:
        """Mostly one that can be read, also below the floor and in the future; 0 is the newest."""
        if self.flag(0.2):
            return 0
        return self.random.randint(max(1, floor - 3), newest + 1)
