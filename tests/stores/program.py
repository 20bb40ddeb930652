"""Random programs for several stores: each step is one of all that can be done to a store, drawn by a seed of its own.

What a step does is settled by its seed and by what a model, a store in memory, holds at that time. So a program is a
list of seeds, and one that shows a defect is made small by leaving out some of them: see `shrunk`.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, cast

from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    DropCheckpoint,
    Fork,
    Get,
    Increment,
    List,
    MakeCheckpoint,
    Merge,
    Operation,
    Operator,
    Put,
    Ref,
    RequestId,
    Restore,
    Strategy,
    Test,
    Transaction,
    Write,
)
from comity_server.stores.memory.store import MemoryStore

NAMES: Final = ("a", "b", "c", "d", "e")
KEYS: Final = ("a", "a/", "a/b", "a/\U0010ffff", "b", "é", *(f"n/{number}" for number in range(6)))
PREFIXES: Final = ("", "a", "a/", "b", "é", "n/", "x")
VALUES: Final = (b"", b"1", b"-9007199254740991", b"9007199254740990", b"x", b"x\0")
MARKS: Final = ("one", "two", "three", "four")
CLIENTS: Final = ("c1", "awaits", "c3")
MANY: Final = 70  # keys of a large transaction
LARGE: Final = 3000  # bytes of a large value

# Small ones, so that what is refused for them is met too.
LIMITS: Final = Limits(
    commit_events=80,
    restore_events=90,
    result_bytes=4000,
    previous_bytes=600,
    namespace_keys=75,
    namespace_bytes=40_000,
    namespaces=4,
    checkpoints=3,
    fork_depth=2,
    request_clients=2,
    request_outcomes=6,
    request_bytes=6000,
)


class Dice(random.Random):
    """Draws what is asked of a store. Revisions lie around those of the model."""

    def __init__(self, seed: str, model: MemoryStore) -> None:
        super().__init__(seed)
        self._model = model

    def happens(self, chance: float) -> bool:
        return self.random() < chance

    def name(self) -> str:
        """Of a namespace: mostly of one that exists."""
        there = list(self._model.namespaces_by_name)
        return self.choice(there) if there and self.happens(0.9) else self.choice(NAMES)

    def revision(self, name: str) -> int:
        """Mostly one that can be read."""
        state = self._model.namespaces_by_name.get(name)
        newest = state.revision if state else 0
        if state is not None and state.checkpoints and self.happens(0.3):
            return self.choice(list(state.checkpoints.values())).revision
        if state is not None and self.happens(0.6):
            return self.randint(state.floor, newest)
        return max(0, newest - self.randint(-1, 12))

    def ref(self, name: str) -> Ref:
        return self.choice([None, self.mark(name), self.revision(name)])

    def mark(self, name: str) -> str:
        """The name of a checkpoint, mostly of one that exists."""
        state = self._model.namespaces_by_name.get(name)
        return self.choice(list(state.checkpoints) if state and state.checkpoints and self.happens(0.8) else MARKS)

    def fork(self) -> tuple[str, str]:
        """The name of a fork, and of what it was forked from; or else any two."""
        forks = [state for state in self._model.namespaces_by_name.values() if state.parent]
        if not forks or self.happens(0.1):
            return self.name(), self.name()
        state = self.choice(forks)
        return state.name, state.parent_name

    def condition(self, name: str) -> Condition:
        test = self.choice(list(Test))
        operator = self.choice(list(Operator))
        match test:
            case Test.UNCHANGED_SINCE if self.happens(0.5):
                return Condition(self.choice(PREFIXES), test, self.revision(name), is_prefix=True)
            case Test.UNCHANGED_SINCE:
                return Condition(self.choice(KEYS), test, self.revision(name))
            case Test.EXISTS:
                return Condition(self.choice(KEYS), test, self.randint(0, 1))
            case Test.LEASE_ID:
                return Condition(self.choice(KEYS), test, self.choice([0, 7]), self.choice(list(Operator)[:2]))
            case Test.VALUE:
                return Condition(self.choice(KEYS), test, self.choice(VALUES), operator)
            case Test.VERSION:
                return Condition(self.choice(KEYS), test, self.randint(0, 3), operator)
            case _:
                return Condition(self.choice(KEYS), test, self.revision(name), operator)

    def operations(self) -> list[Operation]:
        """Such as may stand in one transaction: no key is written twice."""
        if self.happens(0.05):
            return [Put(f"m/{number:03}", b"%d" % self.randint(0, 2)) for number in range(self.randint(1, MANY))]
        drawn: list[Operation] = []
        keys = self.sample(KEYS, self.randint(1, 4))
        for key in keys:
            match self.randint(0, 9):
                case 0 | 1 | 2 | 3:
                    value = bytes(self.randint(1000, LARGE)) if self.happens(0.1) else self.choice(VALUES)
                    lease = self.choice([0, 0, 7])
                    drawn.append(Put(key, value, self.choice(["", "text/plain"]), lease, self.happens(0.3)))
                case 4 | 5:
                    drawn.append(Increment(key, self.choice([0, 1, -1, 5, 2**53 - 1])))
                case 6:
                    drawn.append(Delete(key, self.happens(0.3)))
                case 7:
                    drawn.append(Get(key))
                case 8:
                    drawn.append(List(self.choice(PREFIXES), self.randint(1, 4), self.happens(0.3)))
                case _:
                    prefix = self.choice([*PREFIXES, "m/"])
                    if not any(other.startswith(prefix) for other in keys):
                        drawn.append(DeletePrefix(prefix, self.happens(0.5)))
        return drawn

    def transaction(self, name: str) -> Transaction:
        conditions = [self.condition(name) for _ in range(self.choice([0, 0, 1, 2]))]
        otherwise = self.operations() if conditions and self.happens(0.5) else []
        said = self.choice(["", "me"]), self.choice(["", "why"]), self.choice(["", "00-trace-01"])
        return Transaction(conditions, self.operations(), otherwise, None, *said)

    def write(self, name: str) -> Write:
        match self.choice("tttttttmmdrfgg"):
            case "t":
                return self.transaction(name)
            case "m":
                labels = self.choice([(), (("k", "v"),), (("k", "v"), ("l", ""))])
                revision = self.choice([0, self.revision(name)])
                return MakeCheckpoint(name=self.choice(MARKS), revision=revision, labels=labels, author="me")
            case "d":
                return DropCheckpoint(name=self.mark(name))
            case "r":
                if_revision = self.revision(name) if self.happens(0.2) else None
                prefix = self.choice(["", *PREFIXES])
                return Restore(ref=self.ref(name), prefix=prefix, dry_run=self.happens(0.2), if_revision=if_revision)
            case "f":
                parent = self.name()
                return Fork(parent=parent, ref=self.ref(parent), author=self.choice(["", "me"]))
            case _:
                fork, _ = self.fork()
                return Merge(fork=fork, strategy=self.choice(list(Strategy)), dry_run=self.happens(0.2))

    def last_awaited(self, name: str, sequence: int) -> Transaction:
        """A write that is applied for certain, of a client that forgets what came a while before it: a store need not
        remember what it was told by a write that changed nothing."""
        state = self._model.namespaces_by_name[name]
        key = next(iter(state.versions.candidates("")), "a")
        request = RequestId("awaits", sequence, max(1, sequence - self.randint(0, 3)))
        return Transaction(then=[Put(key, b"")], request_id=request)


def named(write: Write, request: RequestId) -> Write:
    if isinstance(write, Transaction):
        return write._replace(request_id=request)
    return cast(Write, replace(write, request_id=request))


async def shrunk(
    program: Sequence[str], fails: Callable[[Sequence[str]], Awaitable[object]], patient_until: float
) -> Sequence[str]:
    """A part of a program that fails as well, as small as is found until then, by the clock `time.monotonic`."""
    size = len(program) // 2
    while size:
        start = 0
        while start < len(program):
            if time.monotonic() > patient_until:
                return program
            shorter = [*program[:start], *program[start + size :]]
            if await fails(shorter):
                program = shorter
            else:
                start += size
        size //= 2
    return program
