"""What clients asked for and were answered, what a watch saw of it, and whether the one fits the other.

Each write says its tag as the message of its commit, so that every commit tells which write made it.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t

SHORT = 64  # bytes: of a longer value its digest is kept
VALUES = "values/"
State = Mapping[str, t.Entry]


@dataclass
class Asked:
    """A write that a client sent, and goes on sending until it is answered."""

    tag: str
    namespace: str  # that it changes
    request: Any
    revision: int = 0  # that a restore returns to, or that a merged fork began at
    changes: Mapping[str, bytes | None] = field(default_factory=dict)  # of a merge: what its fork wrote
    answer: Any = None  # None: not yet, and maybe it was lost

    @property
    def commit(self) -> int:
        """The revision that it made, by its answer; 0: it changed no key."""
        answer = self.answer
        match answer:
            case s.PutResponse() | s.TransactResponse():
                return int(answer.revision)
            case s.DeleteResponse():
                return int(answer.revision) if answer.deleted else 0
            case c.RestoreResponse() | n.MergeResponse():
                return int(answer.revision) if answer.put + answer.deleted else 0
            case n.ForkResponse():
                return int(answer.namespace.fork_revision) + 1
        return 0

    @property
    def changed(self) -> bool:
        """Whether it did something, by its answer: then that is the answer of every repeat."""
        return bool(self.commit) or isinstance(self.answer, c.CheckpointResponse | c.DeleteCheckpointResponse)


class Ledger:
    """One namespace, from its first revision or from its fork on: every commit that was made, held against what was
    asked.

    Args:
        asked: all writes of all clients, by tag.
        base: what there was before the first commit, at the revision `begin`.
    """

    def __init__(self, name: str, asked: Mapping[str, Asked], base: State | None = None, begin: int = 0) -> None:
        self.name = name
        self.epoch = ""
        self.commits: list[t.Commit] = []
        self.made: dict[str, int] = {}  # which revision a write made, by its tag
        self._asked = asked
        self._begin = begin
        self._versions: dict[str, list[tuple[int, t.Entry]]] = {}
        for key, entry in (base or {}).items():
            self._versions[key] = [(begin, entry)]

    @property
    def revision(self) -> int:
        return self._begin + len(self.commits)

    def after(self, revision: int) -> Sequence[t.Commit]:
        """The commits after a revision."""
        return self.commits[max(revision - self._begin, 0) :]

    def state(self, revision: int) -> dict[str, t.Entry]:
        """What there was at a revision."""
        found = {}
        for key, versions in self._versions.items():
            place = bisect_right(versions, revision, key=lambda version: version[0])
            if place and versions[place - 1][1].version:
                found[key] = versions[place - 1][1]
        return found

    def see(self, commit: t.Commit) -> None:
        """Take the next commit: whole, made by one write that did not make another, and as that one asked for."""
        assert commit.revision == self.revision + 1, f"after {self.revision} comes {commit.revision}"
        asked = self._asked[commit.message]
        assert asked.namespace == self.name
        assert asked.tag not in self.made, f"{asked.tag} was applied twice"
        before = self.state(self.revision)
        events = {event.entry.key: event for event in commit.events}
        assert len(events) == len(commit.events)
        now = {key: event.entry.value if event.entry.version else None for key, event in events.items()}
        assert now == self._due(asked, before), asked.tag
        for key, event in events.items():
            entry, live = event.entry, before.get(key)
            assert entry.mod_revision == commit.revision
            if event.type == t.EVENT_TYPE_PUT:
                version, created = (live.version + 1, live.create_revision) if live else (1, commit.revision)
                assert (entry.version, entry.create_revision) == (version, created)
            self._versions.setdefault(key, []).append((commit.revision, entry))
        self.made[asked.tag] = commit.revision
        self.commits.append(commit)

    def _due(self, asked: Asked, before: State) -> dict[str, bytes | None]:
        """What a write has to put and (None) to delete."""
        due: dict[str, bytes | None] = {}
        match asked.request:
            case s.PutRequest(key=key, value=value):
                due[key] = short(value)
            case s.DeleteRequest(key=key):
                due[key] = None
            case s.TransactRequest(then=operations):
                for operation in operations:
                    if operation.HasField("put"):
                        due[operation.put.key] = short(operation.put.value)
                    else:
                        add = operation.increment
                        number = int(before[add.key].value) if add.key in before else 0
                        due[add.key] = b"%d" % (number + add.delta)
            case c.RestoreRequest(prefix=prefix):
                then = values(self.state(asked.revision), prefix)
                due = changed(values(before, prefix), then)
            case n.MergeRequest():
                base, ours = values(self.state(asked.revision)), values(before)
                theirs = {key: value for key, value in asked.changes.items() if value != base.get(key)}
                due = {key: value for key, value in theirs.items() if value != ours.get(key)}
        return due


def values(state: State, prefix: str = "") -> dict[str, bytes]:
    """The values under a prefix."""
    return {key: entry.value for key, entry in state.items() if key.startswith(prefix)}


def changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What leads from one to the other."""
    return {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def short(value: bytes) -> bytes:
    """A value, or where that is long, what tells it from others."""
    return value if len(value) <= SHORT else hashlib.sha256(value).digest()


class Parts:
    """Commits as they come from a stream or from pages, large ones in parts: whole, and with short values."""

    def __init__(self) -> None:
        self._whole: t.Commit | None = None

    def add(self, commits: Iterable[t.Commit]) -> Iterator[t.Commit]:
        for commit in commits:
            for event in commit.events:
                event.entry.value = short(event.entry.value)
            if self._whole is None:
                self._whole = commit
            else:
                assert commit.revision == self._whole.revision
                self._whole.events.extend(commit.events)
                self._whole.partial = commit.partial
            if not commit.partial:
                yield self._whole
                self._whole = None
