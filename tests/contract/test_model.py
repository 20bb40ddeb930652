"""A store beside the naive reference: whatever is done to both, in whatever order, they say the same."""

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from comity_server.errors import NamespaceNotFound, StateError
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    Get,
    Increment,
    List,
    Operation,
    Operator,
    Put,
    RequestId,
    Test,
    Transaction,
)
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from tests.contract.reference import Reference
from tests.contract.space import LIMITS, Space, fresh_name, plain

T = TypeVar("T")

SOAK = os.environ.get("COMITY_SOAK") == "1"
SETTINGS = settings(
    max_examples=2000 if SOAK else 100,
    stateful_step_count=100 if SOAK else 50,
    derandomize=not SOAK,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

# Few keys, so that the same ones are written again and again.
KEYS = ["a", "a/", "a/b", "a/\U0010ffff", "b", "é"]
PREFIXES = ["", "a", "a/", "a/b", "b", "é", "x"]
keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(PREFIXES)
values = st.sampled_from([b"", b"1", b"-9007199254740991", b"9007199254740990", b"x", b"x\0"])
deltas = st.sampled_from([0, 1, -1, 5, 2**53 - 1])
back = st.integers(-1, 12)  # how far before the newest revision; -1 is in the future
clients = st.sampled_from(["c1", "c2"])

operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, keys, values, st.sampled_from(["", "text/plain"]), st.just(0), st.booleans()),
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
            return Condition(draw(keys), test, draw(st.integers(0, 1)), draw(equal_or_not))
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
)


class Machine(RuleBasedStateMachine):
    """Every rule does the same to both, and compares."""

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        super().__init__()
        self.loop = runner.get_loop()
        self.space = Space(store, fresh_name())
        self.reference = Reference()
        self.sequences = {"c1": itertools.count(1), "c2": itertools.count(1)}
        self.sent: list[Transaction] = []  # those with a request id

    def run(self, does: Coroutine[Any, Any, T]) -> T | type[StateError]:
        async def answer() -> T | type[StateError]:
            try:
                return await does
            except StateError as error:
                return type(error)

        return self.loop.run_until_complete(answer())

    def resolve(self, transaction: Transaction) -> Transaction:
        newest = self.reference.revision
        relative = {Test.UNCHANGED_SINCE, Test.MOD_REVISION, Test.CREATE_REVISION}
        resolved = [
            condition._replace(operand=max(0, newest - int(condition.operand)))
            if condition.test in relative
            else condition
            for condition in transaction.conditions
        ]
        return transaction._replace(conditions=resolved)

    def commit(self, *group: Transaction) -> None:
        answered = self.run(self.space.group(*group))
        assert not isinstance(answered, type), answered
        expected = [self.reference.commit(transaction) for transaction in group]
        got = [type(answer) if isinstance(answer, StateError) else answer for answer in answered]
        assert plain(got, times=False) == plain(expected, times=False)

    @rule(key=keys, value=values)
    def put(self, key: str, value: bytes) -> None:
        self.commit(Transaction(then=[Put(key, value)]))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.commit(Transaction(then=[Delete(key)]))

    @rule(prefix=prefixes)
    def delete_prefix(self, prefix: str) -> None:
        self.commit(Transaction(then=[DeletePrefix(prefix, return_previous=True)]))

    @rule(key=keys, delta=deltas)
    def increment(self, key: str, delta: int) -> None:
        self.commit(Transaction(then=[Increment(key, delta)]))

    @rule(transaction=transactions)
    def transact(self, transaction: Transaction) -> None:
        self.commit(self.resolve(transaction))

    @rule(group=st.lists(st.tuples(transactions, st.none() | clients), min_size=2, max_size=4))
    def group(self, group: list[tuple[Transaction, str | None]]) -> None:
        sent = []
        for transaction, client in group:
            request = RequestId(client, next(self.sequences[client])) if client else None
            sent.append(self.resolve(transaction)._replace(request_id=request))
        self.sent += (transaction for transaction in sent if transaction.request_id)
        self.commit(*sent)

    @rule(client=clients, transaction=transactions)
    def named(self, client: str, transaction: Transaction) -> None:
        request = RequestId(client, next(self.sequences[client]))
        self.sent.append(self.resolve(transaction)._replace(request_id=request))
        self.commit(self.sent[-1])

    @rule(client=clients, key=keys, keep=st.integers(0, 3))
    def named_that_awaits_no_more(self, client: str, key: str, keep: int) -> None:
        sequence = next(self.sequences[client])
        request = RequestId(client, sequence, max(1, sequence - keep))
        self.sent.append(Transaction(then=[Put(key, b"1")], request_id=request))
        self.commit(self.sent[-1])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), times=st.integers(1, 2))
    def repeat(self, data: st.DataObject, times: int) -> None:
        self.commit(*[data.draw(st.sampled_from(self.sent))] * times)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), key=keys)
    def reuse(self, data: st.DataObject, key: str) -> None:
        request = data.draw(st.sampled_from(self.sent)).request_id
        self.sent.append(Transaction(then=[Put(key, b"reused")], request_id=request))
        self.commit(self.sent[-1])

    @rule(key=keys, back=back)
    def get(self, key: str, back: int) -> None:
        revision = max(1, self.reference.revision - back)
        expected = self.reference.unreadable(revision) or self.reference.states[revision].get(key)
        assert plain(self.run(self.space.get(key, revision)), times=False) == plain(expected, times=False)

    @rule(prefix=prefixes, back=back, limit=st.integers(1, 3), max_bytes=st.sampled_from([1, 100, LIMITS.page_bytes]))
    def list(self, prefix: str, back: int, limit: int, max_bytes: int) -> None:
        revision = max(1, self.reference.revision - back)
        pages = self.run(self.space.pages(prefix, limit=limit, max_bytes=max_bytes, revision=revision))
        if error := self.reference.unreadable(revision):
            assert pages is error
            return
        assert not isinstance(pages, type), pages
        entries = [entry for page in pages for entry in page.entries]
        assert plain(entries, times=False) == plain(self.reference.under(prefix, revision), times=False)

    @rule(back=back, span=st.integers(0, 20), limit=st.integers(1, 20), newest_first=st.booleans())
    def history(self, back: int, span: int, limit: int, newest_first: bool) -> None:
        first = max(1, self.reference.revision - back)
        read = self.run(
            self.space.store.commits(
                self.space.name, first=first, last=first + span, limit=limit, newest_first=newest_first
            )
        )
        if isinstance(read, type):
            assert first <= self.reference.floor, read
            return
        assert first > self.reference.floor
        expected = self.reference.log[first - 1 : first + span]
        expected = (expected[::-1] if newest_first else expected)[:limit]
        assert plain(read.commits, times=False) == plain(expected, times=False)

    @rule(back=back)
    def compact(self, back: int) -> None:
        revision = max(0, self.reference.revision - back)
        floor = self.run(self.space.store.compact(self.space.name, revision))
        if not self.reference.log:
            assert floor is NamespaceNotFound
        elif revision > self.reference.revision:
            assert floor is self.reference.unreadable(revision)
        else:
            self.reference.floor = max(self.reference.floor, revision or self.reference.revision)
            assert floor == self.reference.floor

    @invariant()
    def newest_state_agrees(self) -> None:
        expected = self.reference.under("", self.reference.revision)
        assert plain(self.run(self.space.entries()), times=False) == plain(expected, times=False)
        if self.reference.log:
            info = self.run(self.space.store.namespace(self.space.name))
            assert not isinstance(info, type), info
            figures = (info.revision, info.floor, info.key_count, info.size_bytes, info.commit_count)
            revision, floor = self.reference.revision, self.reference.floor
            assert figures == (revision, floor, len(expected), self.reference.size_bytes(), revision - floor)

    def teardown(self) -> None:
        """All that can still be read, at every revision."""
        for revision in range(max(1, self.reference.floor), self.reference.revision + 1):
            expected = self.reference.under("", revision)
            assert plain(self.run(self.space.entries(revision=revision)), times=False) == plain(expected, times=False)
            held = self.reference.states[revision]
            for key in KEYS:
                record = self.run(self.space.get(key, revision))
                assert plain(record, times=False) == plain(held.get(key), times=False)
        log = self.run(self.space.log())
        assert plain(log, times=False) == plain(self.reference.log[self.reference.floor :], times=False)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.soak
@pytest.mark.timeout(600)  # seconds that a failure may take to be made small; without one it takes a few
def test_store_does_what_the_reference_does(store_url: str, runner: asyncio.Runner) -> None:
    store = open_store(store_url, Limits())
    runner.run(store.open())
    try:
        run_state_machine_as_test(cast(type[Machine], lambda: Machine(runner, store)), settings=SETTINGS)
    finally:
        runner.run(store.close())
