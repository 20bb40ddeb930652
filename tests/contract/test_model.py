"""A store beside the naive reference: whatever is done to both, in whatever order, they say the same.

It is done to a small family of namespaces, which fork each other and merge. A store that is durable is also closed and
opened again in between.
"""

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from comity_server.errors import Compacted, NamespaceNotFound, RevisionInFuture, StateError
from comity_server.limits import Limits
from comity_server.model import (
    Action,
    Condition,
    Delete,
    DeletePrefix,
    DropCheckpoint,
    Expire,
    Fork,
    Get,
    Grant,
    Guard,
    Increment,
    Lease,
    List,
    MakeCheckpoint,
    Merge,
    Operation,
    Operator,
    Outcome,
    Provenance,
    Put,
    PutResult,
    Ref,
    RequestId,
    Restore,
    Revoke,
    Strategy,
    Test,
    Transaction,
    Write,
)
from comity_server.record import MOD_REVISION
from comity_server.stores.url import open_store
from tests.contract.reference import BRIEF, Reference
from tests.contract.space import HOUR, LIMITS, Space, fresh_name, plain
from tests.waiting import until

T = TypeVar("T")

SOAK = os.environ.get("COMITY_SOAK") == "1"
SETTINGS = settings(
    max_examples=2000 if SOAK else 60,
    stateful_step_count=100 if SOAK else 50,
    derandomize=not SOAK,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
# A part of the examples where each step costs a round trip or more: these stores judge with the code of the first.
SHARE = {"sqlite": 2, "redis": 4, "redis+cluster": 10}

# Few keys, so that the same ones are written again and again.
KEYS = ["a", "a/", "a/b", "a/\U0010ffff", "b", "é"]
PREFIXES = ["", "a", "a/", "a/b", "b", "é", "x"]
keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(PREFIXES)
values = st.sampled_from([b"", b"1", b"-9007199254740991", b"9007199254740990", b"x", b"x\0"])
deltas = st.sampled_from([0, 1, -1, 5, 2**53 - 1])
back = st.integers(-1, 12)  # how far before the newest revision; -1 is in the future
clients = st.sampled_from(["c1", "c2"])

# Leases are given as how many were granted after them, and 1: `resolve` makes them ids.
slots = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3])
guards = st.sampled_from([None] * 5 + [Guard(1), Guard(1, 1), Guard(2), Guard(1, 2)])
ttls = st.sampled_from([0, 0, 0, 0, HOUR, HOUR, BRIEF])

operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, keys, values, st.sampled_from(["", "text/plain"]), slots, st.booleans(), ttls),
    st.builds(Increment, keys, deltas),
    st.builds(Delete, keys, st.booleans()),
    st.builds(DeletePrefix, prefixes, st.booleans()),
    st.builds(Get, keys),
    st.builds(List, prefixes, st.integers(1, 4), st.booleans()),
)


def _legal(steps: Sequence[Operation]) -> list[Operation]:
    """Without the operations that would write a key a second time, which no service lets through."""
    written: set[str] = set()
    deleted: list[str] = []  # prefixes, and keys with "\0" behind them
    legal = []
    for step in steps:
        match step:
            case Put() | Increment():
                if step.key in written or any(f"{step.key}\0".startswith(gone) for gone in deleted):
                    continue
                written.add(step.key)
            case Delete(key):
                if key in written:
                    continue
                deleted.append(f"{key}\0")
            case DeletePrefix(prefix):
                if any(key.startswith(prefix) for key in written):
                    continue
                deleted.append(prefix)
        legal.append(step)
    return legal


branches = st.lists(operations, max_size=5).map(_legal)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """Revisions are given as how far they lie back: `resolve` makes them revisions."""
    test = draw(st.sampled_from(Test))
    match test:
        case Test.UNCHANGED_SINCE:
            is_prefix = draw(st.booleans())
            return Condition(draw(prefixes if is_prefix else keys), test, draw(back), is_prefix=is_prefix)
        case Test.EXISTS:
            return Condition(draw(keys), test, draw(st.integers(0, 1)))
        case Test.LEASE_ID:
            equal_or_not = st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL])
            return Condition(draw(keys), test, draw(slots), draw(equal_or_not))
        case Test.VALUE:
            return Condition(draw(keys), test, draw(values), draw(st.sampled_from(Operator)))
        case Test.VERSION:
            return Condition(draw(keys), test, draw(st.integers(0, 3)), draw(st.sampled_from(Operator)))
        case _:
            return Condition(draw(keys), test, draw(back), draw(st.sampled_from(Operator)))


transactions = st.builds(
    Transaction,
    st.lists(conditions(), max_size=3),
    branches,
    branches,
    st.none(),
    st.sampled_from(["", "me"]),
    st.sampled_from(["", "why"]),
    st.just(""),
    guards,
    st.none(),
)


# Names of namespaces; of checkpoints; and what names a revision: how far it lies back, or zero.
NAMES = ["a", "b", "c", "d"]
namespaces = st.sampled_from(NAMES)
labels = st.sampled_from([(), (("k", "v"),), (("k", "v"), ("l", ""))])
marks = st.sampled_from(["one", "two", "three"])
ZERO = "0"
refs = st.one_of(back, marks, st.none(), st.just(ZERO))

actions: st.SearchStrategy[Write] = st.one_of(
    st.builds(
        MakeCheckpoint, name=marks, revision=back, labels=labels, author=st.sampled_from(["", "me"]), guard=guards
    ),
    st.builds(DropCheckpoint, name=marks, guard=guards),
    st.builds(Grant, ttl=st.sampled_from([HOUR, BRIEF]), author=st.sampled_from(["", "me"]), guard=guards),
    st.builds(Revoke, lease_id=slots, message=st.sampled_from(["", "why"]), guard=guards),
    st.builds(
        Restore,
        ref=refs,
        prefix=prefixes,
        dry_run=st.booleans(),
        if_revision=st.none() | st.none() | back,
        message=st.sampled_from(["", "why"]),
        guard=guards,
    ),
    st.builds(Fork, parent=namespaces, ref=refs, author=st.sampled_from(["", "me"])),
    st.builds(Merge, fork=namespaces, strategy=st.sampled_from(Strategy), dry_run=st.booleans(), guard=guards),
)


def granted(write: Write, answer: Outcome | StateError) -> int:
    """The lease that a write was answered to have granted, whose id no model can tell; 0: none."""
    if isinstance(answer, StateError):
        return 0
    operations: Sequence[object] = ()
    if isinstance(write, Transaction):
        operations = write.then if answer.committed else write.otherwise
    for operation, result in zip_longest(operations, answer.results):
        match operation, result:
            case _, Lease(id):
                return id
            case Put(lease_id=0, ttl=ttl), PutResult(lease_id=id) if ttl:
                return id
    return 0


class OpenStore:
    """The store under test, which may be closed and opened again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_durable = url.startswith("sqlite:")
        self.store = open_store(url, Limits())

    async def reopen(self) -> None:
        await self.store.close()
        self.store = open_store(self._url, Limits())
        await self.store.open()


class Machine(RuleBasedStateMachine):
    """Every rule does the same to both, and compares."""

    def __init__(self, runner: asyncio.Runner, opened: OpenStore) -> None:
        super().__init__()
        self.loop = runner.get_loop()
        self.opened = opened
        self.prefix = fresh_name()
        self.family: dict[str, Reference] = {}
        for name in NAMES:
            self.family[self.full(name)] = Reference(self.family, self.full(name))
        self.sequences = {"c1": itertools.count(1), "c2": itertools.count(1)}
        self.sent: list[tuple[str, Write]] = []  # those with a request id, and where they were sent

    def full(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def short(self, full: str) -> str:
        return full.removeprefix(f"{self.prefix}.")

    def space(self, name: str) -> Space:
        return Space(self.opened.store, self.full(name))

    def reference(self, name: str) -> Reference:
        return self.family[self.full(name)]

    def run(self, does: Coroutine[Any, Any, T]) -> T | type[StateError]:
        async def answer() -> T | type[StateError]:
            try:
                return await does
            except StateError as error:
                return type(error)

        return self.loop.run_until_complete(answer())

    @initialize()
    def begin(self) -> None:
        self.commit("a", Transaction(then=[Put("a", b"1"), Put("a/b", b"x"), Put("b", b"")], author="first"))

    def living(self, name: str) -> str:
        """The namespace, if it exists, or else one that always does."""
        return name if self.reference(name).exists else "a"

    def forks(self) -> list[tuple[str, str]]:
        """Those whose parents exist, and these."""
        pairs = [(name, self.reference(name).parent) for name in NAMES]
        return [(name, self.short(of[0].name)) for name, of in pairs if of and self.family[of[0].name] is of[0]]

    def good_refs(self, on: str) -> list[Ref]:
        """All by which something can be found."""
        reference = self.reference(on)
        return [None, *reference.readable(), *sorted(reference.checkpoints)]

    def ref(self, on: str, ref: Ref) -> Ref:
        """What is given as how far it lies back, as a revision."""
        if ref == ZERO:
            return 0
        return max(1, self.reference(on).revision - ref) if isinstance(ref, int) else ref

    def lease(self, on: str, slot: int) -> int:
        """The id of a lease that lives or has ended, given as how many were granted after it, and 1; 0: none."""
        granted = self.reference(on).granted
        return 0 if not slot else granted[-slot] if slot <= len(granted) else 10**6 + slot

    def condition(self, on: str, condition: Condition) -> Condition:
        """What is given as how far it lies back, as a revision; and as an id."""
        match condition:
            case Condition(test=Test.UNCHANGED_SINCE | Test.MOD_REVISION | Test.CREATE_REVISION, operand=int(back)):
                return condition._replace(operand=max(0, self.reference(on).revision - back))
            case Condition(test=Test.LEASE_ID, operand=int(slot)):
                return condition._replace(operand=self.lease(on, slot))
        return condition

    def operation(self, on: str, operation: Operation) -> Operation:
        """Likewise."""
        if isinstance(operation, Put):
            return operation._replace(lease_id=self.lease(on, operation.lease_id))
        return operation

    def guard(self, on: str, guard: Guard | None) -> Guard | None:
        """Likewise."""
        return guard and Guard(self.lease(on, guard.lease_id), self.lease(on, guard.fence))

    def resolve(self, on: str, write: Write) -> Write:
        """Likewise, in a write."""
        newest = self.reference(on).revision
        if isinstance(write, Action):
            write = cast(Write, replace(write, guard=self.guard(on, write.guard)))
        match write:
            case Transaction(conditions, then, otherwise):
                return write._replace(
                    conditions=[self.condition(on, condition) for condition in conditions],
                    then=[self.operation(on, operation) for operation in then],
                    otherwise=[self.operation(on, operation) for operation in otherwise],
                    guard=self.guard(on, write.guard),
                )
            case Revoke(lease_id=slot):
                return replace(write, lease_id=self.lease(on, slot))
            case MakeCheckpoint():
                return replace(write, revision=max(0, newest - write.revision))
            case Restore(if_revision=back):
                named = None if back is None else max(0, newest - back)
                return replace(write, ref=self.ref(on, write.ref), if_revision=named)
            case Fork():
                return replace(write, parent=self.full(write.parent), ref=self.ref(write.parent, write.ref))
            case Merge():
                return replace(write, fork=self.full(write.fork))
        return write

    def name_it(self, on: str, write: Write, request: RequestId) -> Write:
        named = (
            write._replace(request_id=request)
            if isinstance(write, Transaction)
            else cast(Write, replace(write, request_id=request))
        )
        self.sent.append((on, named))
        return named

    def commit(self, on: str, *group: Write) -> None:
        answered = self.run(self.space(on).group(*group))
        assert not isinstance(answered, type), answered
        expected = [self.reference(on).commit(*told) for told in zip(group, map(granted, group, answered), strict=True)]
        got = [type(answer) if isinstance(answer, StateError) else answer for answer in answered]
        assert timeless(got) == timeless(expected)

    @rule(on=namespaces, key=keys, value=values)
    def put(self, on: str, key: str, value: bytes) -> None:
        self.commit(self.living(on), Transaction(then=[Put(key, value)]))

    @rule(on=namespaces, key=keys)
    def delete(self, on: str, key: str) -> None:
        self.commit(self.living(on), Transaction(then=[Delete(key)]))

    @rule(on=namespaces, prefix=prefixes)
    def delete_prefix(self, on: str, prefix: str) -> None:
        self.commit(self.living(on), Transaction(then=[DeletePrefix(prefix, return_previous=True)]))

    @rule(on=namespaces, key=keys, delta=deltas)
    def increment(self, on: str, key: str, delta: int) -> None:
        self.commit(self.living(on), Transaction(then=[Increment(key, delta)]))

    @rule(on=namespaces, transaction=transactions)
    def transact(self, on: str, transaction: Transaction) -> None:
        on = self.living(on)
        self.commit(on, self.resolve(on, transaction))

    @rule(on=namespaces, action=actions)
    def act(self, on: str, action: Write) -> None:
        self.commit(on, self.resolve(on, action))

    # What is drawn for the rules above is refused more often than not. These here mostly succeed.

    @rule(on=namespaces, name=marks, data=st.data())
    def make_checkpoint(self, on: str, name: str, data: st.DataObject) -> None:
        on = self.living(on)
        revision = data.draw(st.sampled_from([0, *self.reference(on).readable()]))
        self.commit(on, MakeCheckpoint(name=name, revision=revision))

    @precondition(lambda self: any(of.checkpoints for of in self.family.values()))
    @rule(data=st.data())
    def drop_checkpoint(self, data: st.DataObject) -> None:
        on = data.draw(st.sampled_from([name for name in NAMES if self.reference(name).checkpoints]))
        self.commit(on, DropCheckpoint(name=data.draw(st.sampled_from(sorted(self.reference(on).checkpoints)))))

    @rule(on=namespaces, ttl=st.sampled_from([HOUR, BRIEF]), author=st.sampled_from(["", "me"]))
    def grant(self, on: str, ttl: int, author: str) -> None:
        self.commit(on, Grant(ttl=ttl, author=author))

    def living_leases(self, ttl: int) -> list[tuple[str, int]]:
        """Where they are, and their ids."""
        of = ((name, lease) for name in NAMES for lease in self.reference(name).leases.values())
        return [(name, lease.id) for name, lease in of if lease.ttl == ttl]

    @precondition(lambda self: self.living_leases(HOUR) + self.living_leases(BRIEF))
    @rule(data=st.data(), key=keys, value=values, guarded=st.booleans())
    def put_with_a_lease(self, data: st.DataObject, key: str, value: bytes, guarded: bool) -> None:
        on, id = data.draw(st.sampled_from(self.living_leases(HOUR) + self.living_leases(BRIEF)))
        guard = Guard(id, id) if guarded else None
        self.commit(on, Transaction(then=[Put(key, value, lease_id=id)], guard=guard))

    @rule(on=namespaces, some=st.lists(keys, min_size=1, max_size=3, unique=True), ttl=st.sampled_from([HOUR, BRIEF]))
    def put_with_a_ttl(self, on: str, some: Sequence[str], ttl: int) -> None:
        self.commit(on, Transaction(then=[Put(key, b"1", ttl=ttl) for key in some]))

    @precondition(lambda self: self.living_leases(HOUR))
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        on, id = data.draw(st.sampled_from(self.living_leases(HOUR)))
        self.commit(on, Revoke(lease_id=id, author="me"))

    @precondition(lambda self: self.living_leases(BRIEF))
    @rule(data=st.data(), all_of_them=st.booleans())
    def expire(self, data: st.DataObject, all_of_them: bool) -> None:
        """What has run out, beside what has not and what is none."""
        on, id = data.draw(st.sampled_from(self.living_leases(BRIEF)))
        ids = [lease for name, lease in self.living_leases(BRIEF) if name == on] if all_of_them else [id]

        async def out() -> bool:
            return not any([await self.space(on).remaining(id) for id in ids])

        self.run(until(out))
        others = [lease for name, lease in self.living_leases(HOUR) if name == on]
        self.commit(on, Expire(lease_ids=(*others, *ids, 10**6)))

    @rule(on=namespaces, some=st.lists(slots, max_size=4))
    def keep_alive(self, on: str, some: Sequence[int]) -> None:
        ids = [self.lease(on, slot) for slot in some]
        left = self.run(self.opened.store.keep_alive(self.full(on), ids))
        assert not isinstance(left, type), left
        living = self.reference(on).leases
        assert [number > 0 for number in left] == [id in living for id in ids]
        ended = self.run(self.opened.store.ended(self.full(on), ids))
        assert ended == [id for id in ids if id not in living]

    @rule(on=namespaces, prefix=prefixes, dry_run=st.booleans(), data=st.data())
    def restore(self, on: str, prefix: str, dry_run: bool, data: st.DataObject) -> None:
        on = self.living(on)
        ref = data.draw(st.sampled_from(self.good_refs(on)))
        self.commit(on, Restore(ref=ref, prefix=prefix, dry_run=dry_run))

    @precondition(lambda self: not all(of.exists for of in self.family.values()))
    @rule(parent=namespaces, data=st.data())
    def fork(self, parent: str, data: st.DataObject) -> None:
        on = data.draw(st.sampled_from([name for name in NAMES if not self.reference(name).exists]))
        parent = self.living(parent)
        ref = data.draw(st.sampled_from(self.good_refs(parent)))
        self.commit(on, Fork(parent=self.full(parent), ref=ref))

    @precondition(lambda self: self.forks())
    @rule(data=st.data(), strategy=st.sampled_from(Strategy), dry_run=st.booleans())
    def merge(self, data: st.DataObject, strategy: Strategy, dry_run: bool) -> None:
        fork, into = data.draw(st.sampled_from(self.forks()))
        self.commit(into, Merge(fork=self.full(fork), strategy=strategy, dry_run=dry_run))

    @precondition(lambda self: self.forks())
    @rule(data=st.data(), key=keys, value=values, theirs=st.booleans())
    def change_one_side(self, data: st.DataObject, key: str, value: bytes, theirs: bool) -> None:
        fork, into = data.draw(st.sampled_from(self.forks()))
        self.commit(fork if theirs else into, Transaction(then=[Put(key, value)]))

    @rule(
        on=namespaces,
        group=st.lists(st.tuples(transactions | actions, st.none() | clients), min_size=2, max_size=4),
    )
    def group(self, on: str, group: list[tuple[Write, str | None]]) -> None:
        sent = []
        for write, client in group:
            resolved = self.resolve(on, write)
            if client:
                resolved = self.name_it(on, resolved, RequestId(client, next(self.sequences[client])))
            sent.append(resolved)
        self.commit(on, *sent)

    @rule(on=namespaces, client=clients, write=transactions | actions)
    def named(self, on: str, client: str, write: Write) -> None:
        request = RequestId(client, next(self.sequences[client]))
        self.commit(on, self.name_it(on, self.resolve(on, write), request))

    @rule(on=namespaces, client=clients, key=keys, keep=st.integers(0, 3))
    def named_that_awaits_no_more(self, on: str, client: str, key: str, keep: int) -> None:
        on, sequence = self.living(on), next(self.sequences[client])
        request = RequestId(client, sequence, max(1, sequence - keep))
        self.commit(on, self.name_it(on, Transaction(then=[Put(key, b"1")]), request))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), times=st.integers(1, 2))
    def repeat(self, data: st.DataObject, times: int) -> None:
        on, write = data.draw(st.sampled_from(self.sent))
        self.commit(on, *[write] * times)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), key=keys)
    def reuse(self, data: st.DataObject, key: str) -> None:
        on, write = data.draw(st.sampled_from(self.sent))
        assert write.request_id is not None
        self.commit(on, self.name_it(on, Transaction(then=[Put(key, b"reused")]), write.request_id))

    @rule(on=namespaces, key=keys, back=back)
    def get(self, on: str, key: str, back: int) -> None:
        reference = self.reference(on)
        revision = max(1, reference.revision - back)
        expected = reference.unreadable(revision) or reference.state(revision).get(key)
        assert timeless(self.run(self.space(on).get(key, revision))) == timeless(expected)

    @rule(
        on=namespaces,
        prefix=prefixes,
        back=back,
        limit=st.integers(1, 3),
        max_bytes=st.sampled_from([1, 100, LIMITS.page_bytes]),
    )
    def list(self, on: str, prefix: str, back: int, limit: int, max_bytes: int) -> None:
        reference = self.reference(on)
        revision = max(1, reference.revision - back)
        pages = self.run(self.space(on).pages(prefix, limit=limit, max_bytes=max_bytes, revision=revision))
        if error := reference.unreadable(revision):
            assert pages is error
            return
        assert not isinstance(pages, type), pages
        entries = [entry for page in pages for entry in page.entries]
        assert timeless(entries) == timeless(reference.under(prefix, revision))

    @rule(on=namespaces, base=refs, other=refs, prefix=prefixes, limit=st.integers(1, 9))
    def diff(self, on: str, base: Ref, other: Ref, prefix: str, limit: int) -> None:
        reference = self.reference(on)
        base, other = self.ref(on, base), self.ref(on, other)
        pages = self.run(self.space(on).diff_pages(base, other, prefix, limit=limit))
        if not reference.exists:
            assert pages is NamespaceNotFound
            return
        before, after = reference.resolve(base), reference.resolve(other)
        if isinstance(before, type) or isinstance(after, type):
            assert pages is (before if isinstance(before, type) else after)
            return
        assert not isinstance(pages, type), pages
        differences = [difference for page in pages for difference in page.differences]
        assert timeless(differences) == timeless(reference.differences(before, after, prefix))
        assert (pages[0].base_revision, pages[0].target_revision) == (before, after)

    @rule(on=namespaces, wanted=labels)
    def checkpoints(self, on: str, wanted: tuple[tuple[str, str], ...]) -> None:
        reference = self.reference(on)
        found = self.run(self.space(on).store.checkpoints(self.full(on), dict(wanted), limit=10))
        if not reference.exists:
            assert found is NamespaceNotFound
            return
        known = [reference.checkpoints[name] for name in sorted(reference.checkpoints)]
        expected = [checkpoint for checkpoint in known if set(wanted) <= set(checkpoint.labels)]
        assert timeless(found) == timeless(expected)

    @rule(on=namespaces, back=back, span=st.integers(0, 20), limit=st.integers(1, 20), newest_first=st.booleans())
    def history(self, on: str, back: int, span: int, limit: int, newest_first: bool) -> None:
        reference = self.reference(on)
        first = max(1, reference.revision - back)
        last = first + span
        read = self.run(
            self.opened.store.commits(self.full(on), first=first, last=last, limit=limit, newest_first=newest_first)
        )
        if isinstance(read, type):
            assert first <= reference.floor, read
            return
        assert first > reference.floor
        expected = reference.commits(first, last)
        expected = (expected[::-1] if newest_first else expected)[:limit]
        assert timeless(read.commits) == timeless(expected)

    @rule(on=namespaces, back=back)
    def compact(self, on: str, back: int) -> None:
        reference = self.reference(on)
        revision = max(0, reference.revision - back)
        floor = self.run(self.space(on).compact(revision))
        if not reference.exists:
            assert floor is NamespaceNotFound
        elif revision > reference.revision:
            assert floor is RevisionInFuture
        else:
            reference.floor = max(reference.floor, revision or reference.revision)
            assert floor == reference.floor

    @rule(on=st.sampled_from(["b", "c", "d", "b", "c", "d", "a"]), again=values)
    def delete_namespace(self, on: str, again: bytes) -> None:
        reference = self.reference(on)
        done = self.run(self.opened.store.delete_namespace(self.full(on)))
        if not reference.exists:
            assert done is NamespaceNotFound
            return
        assert done is None
        self.family[self.full(on)] = reference.delete()
        if on == "a":
            self.commit(on, Transaction(then=[Put("a", again)]))

    @precondition(lambda self: self.opened.is_durable)
    @rule()
    def reopen(self) -> None:
        before = [self.run(self.space(name).position()) for name in NAMES]
        self.run(self.opened.reopen())
        assert [self.run(self.space(name).position()) for name in NAMES] == before
        self.everything_agrees()

    @invariant()
    def newest_states_agree(self) -> None:
        for name in NAMES:
            space, reference = self.space(name), self.reference(name)
            expected = reference.under("", reference.revision)
            assert timeless(self.run(space.entries())) == timeless(expected)
            info = self.run(space.info())
            if not reference.exists:
                assert info is NamespaceNotFound
                continue
            assert not isinstance(info, type), info
            leases = self.run(space.store.leases(space.name, limit=LIMITS.leases))
            assert not isinstance(leases, type), leases
            found = [(lease, keys) for lease, _, keys in leases]
            assert timeless(found) == timeless(
                [(lease, len(reference.leased(id))) for id, lease in sorted(reference.leases.items())]
            )
            figures = (info.revision, info.floor, info.key_count, info.size_bytes, info.commit_count)
            revision, floor = reference.revision, reference.floor
            assert figures == (revision, floor, len(expected), reference.size_bytes(), revision - floor)
            parent = (reference.parent[0].name, reference.parent[1]) if reference.parent else ("", 0)
            assert (info.parent, info.fork_revision) == parent

    def everything_agrees(self) -> None:
        """All that can still be read, at every revision, and who wrote it."""
        for name in NAMES:
            space, reference = self.space(name), self.reference(name)
            for revision in reference.readable():
                expected = reference.under("", revision)
                entries = self.run(space.entries(revision=revision))
                assert timeless(entries) == timeless(expected)
                held = reference.state(revision)
                for key in KEYS:
                    assert timeless(self.run(space.get(key, revision))) == timeless(held.get(key))
                written = {entry[MOD_REVISION] for entry in expected}
                found = self.run(self.opened.store.provenance(space.name, sorted(written)))
                assert not isinstance(found, type), found
                for number in written:
                    said = found.get(number, Provenance("", "", ""))
                    assert said == Provenance(*reference.origin(number)[2:5])
            for revision in set(range(1, reference.revision)) - set(reference.readable()):
                assert self.run(space.get("a", revision)) is Compacted
            if reference.exists:
                assert timeless(self.run(space.log())) == timeless(
                    reference.commits(reference.floor + 1, reference.revision)
                )

    def teardown(self) -> None:
        self.everything_agrees()
        self.nothing_is_kept_for_nobody()

    def nothing_is_kept_for_nobody(self) -> None:
        """What no checkpoint and no fork needs any more is dropped, whatever there was."""
        for name in NAMES:
            for checkpoint in self.reference(name).checkpoints:
                self.run(self.space(name).drop(checkpoint))
            if self.reference(name).parent:
                self.run(self.opened.store.delete_namespace(self.full(name)))
        for name in NAMES:
            if self.reference(name).exists and not self.reference(name).parent:
                assert self.run(self.space(name).settled()) == 0


def timeless(thing: object) -> object:
    """In a form that compares by content, without times."""
    return plain(thing, times=False)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)  # seconds that a failure may take to be made small; without one it takes a few
def test_store_does_what_the_reference_does(store_url: str, runner: asyncio.Runner) -> None:
    opened = OpenStore(store_url)
    runner.run(opened.store.open())
    try:
        run_state_machine_as_test(
            cast(type[Machine], lambda: Machine(runner, opened)),
            settings=settings(SETTINGS, max_examples=SETTINGS.max_examples // SHARE.get(urlsplit(store_url).scheme, 1)),
        )
    finally:
        runner.run(opened.store.close())
