"""Branching a namespace and merging the branch, by the client, against a real server."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, MergeStrategy, RequestId
from comity.requests import Ref
from tests.client.states import fill, value, values


async def test_a_fork_is_a_namespace_of_its_own(state: Client) -> None:
    revision = await fill(state, a=1, b=1)
    name = f"{state.namespace}-fork"
    fork = await state.fork(name, message="what if")
    assert (fork.namespace, fork.author, fork.timeout) == (name, state.author, state.timeout)
    info = await fork.namespace_info()
    assert (info.name, info.parent, info.fork_revision) == (name, state.namespace, revision)
    assert await values(fork) == {"a": 1, "b": 1}
    await fill(fork, a=2, c=2)
    await fill(state, b=3)
    assert await values(fork) == {"a": 2, "b": 1, "c": 2}
    assert await values(state) == {"a": 1, "b": 3}
    first = (await fork.history(newest_first=False).all())[0]
    assert (first.author, first.message, first.events) == ("ann", "what if", ())
    await state.delete_namespace()
    assert await values(fork) == {"a": 2, "b": 1, "c": 2}


async def test_a_fork_says_what_it_is_of(state: Client) -> None:
    await fill(state, a=1)
    fork = await state.fork(f"{state.namespace}-fork")
    assert state.namespace in (await fork.history().all())[-1].message


@pytest.mark.parametrize("how", ["checkpoint", "name", "revision"])
async def test_a_fork_of_an_earlier_revision(state: Client, how: str) -> None:
    await fill(state, a=1)
    mark = await state.checkpoint("mark")
    await fill(state, a=2)
    refs: dict[str, Ref] = {"checkpoint": mark, "name": mark.name, "revision": mark.revision}
    ref = refs[how]
    fork = await state.fork(f"{state.namespace}-fork", ref)
    assert await values(fork) == {"a": 1}
    assert (await fork.namespace_info()).fork_revision == mark.revision


async def test_a_repeated_fork_is_the_same_fork(state: Client) -> None:
    await fill(state, a=1)
    name = f"{state.namespace}-fork"
    fork = await state.fork(name, request_id=RequestId("job", 1))
    await fill(fork, a=2)
    await state.fork(name, request_id=RequestId("job", 1))
    assert await values(fork) == {"a": 2}
    with pytest.raises(comity.AlreadyExists):
        await state.fork(name)


async def test_a_merge_is_one_commit(state: Client) -> None:
    await fill(state, changed=1, deleted=1, kept=1)
    fork = await state.fork(f"{state.namespace}-fork")
    await fill(fork, changed=2, created=2)
    await fork.delete("deleted")
    before = await fill(state, kept=2)
    expected = (before + 1, 2, 1, (), 0)

    def outcome(result: comity.MergeResult) -> tuple[object, ...]:
        return result.revision, result.put, result.deleted, result.conflicts, result.conflict_count

    tried = await state.merge(fork, dry_run=True)
    assert not tried.merged
    assert outcome(tried)[1:] == expected[1:]
    assert (await state.namespace_info()).revision == before

    done = await state.merge(fork, message="the best of three")
    assert done.merged
    assert outcome(done) == expected
    assert await values(state) == {"changed": 2, "created": 2, "kept": 2}
    (commit,) = await state.history(from_revision=done.revision).all()
    assert (commit.author, commit.message) == ("ann", "the best of three")
    assert {event.key: event.is_put for event in commit.events} == {"changed": True, "created": True, "deleted": False}

    again = await state.merge(fork.namespace)
    assert (again.merged, again.revision, again.put, again.deleted) == (True, done.revision, 0, 0)


async def test_a_repeated_merge_is_applied_once(state: Client) -> None:
    await fill(state, a=1)
    fork = await state.fork(f"{state.namespace}-fork")
    await fill(fork, a=2)
    done = await state.merge(fork, request_id=RequestId("job", 1))
    await fill(state, a=3)
    assert (await state.merge(fork, request_id=RequestId("job", 1))).revision == done.revision
    assert await values(state) == {"a": 3}


async def conflict(state: Client) -> Client:
    """A fork that changed what its namespace changed too, and more."""
    await fill(state, both="base", gone="base", same="base")
    fork = await state.fork(f"{state.namespace}-fork")
    await fill(fork, both="theirs", same="new", mine="theirs")
    await fork.delete("gone")
    await fill(state, both="ours", same="new", gone="ours")
    return fork


@pytest.mark.parametrize("strategy", ["fail", MergeStrategy.FAIL])
async def test_conflicts_are_said_key_by_key(state: Client, strategy: MergeStrategy) -> None:
    fork = await conflict(state)
    before = await values(state)
    revision = (await state.namespace_info()).revision
    done = await state.merge(fork, strategy=strategy)
    assert (done.merged, done.revision, done.conflict_count) == (False, revision, 2)
    assert [(each.key, value(each.base), value(each.ours), value(each.theirs)) for each in done.conflicts] == [
        ("both", "base", "ours", "theirs"),
        ("gone", "base", "ours", None),
    ]
    assert await values(state) == before


@pytest.mark.parametrize(
    ("strategy", "merged"),
    [
        ("ours", {"both": "ours", "gone": "ours", "same": "new", "mine": "theirs"}),
        (MergeStrategy.THEIRS, {"both": "theirs", "same": "new", "mine": "theirs"}),
    ],
)
async def test_a_strategy_settles_conflicts(state: Client, strategy: MergeStrategy, merged: dict[str, object]) -> None:
    fork = await conflict(state)
    done = await state.merge(fork, strategy=strategy)
    assert (done.merged, done.conflict_count) == (True, 2)
    assert await values(state) == merged


Act = Callable[[Client, str], Awaitable[Any]]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda state, name: state.fork(""), comity.InvalidArgument),
        (lambda state, name: state.fork("Upper"), comity.InvalidArgument),
        (lambda state, name: state.fork("a" * 64), comity.InvalidArgument),
        (lambda state, name: state.fork(state.namespace), comity.AlreadyExists),
        (lambda state, name: state.fork(name, "none"), comity.NotFound),
        (lambda state, name: state.fork(name, 99), comity.OutOfRange),
        (lambda state, name: state.fork(name, -1), comity.InvalidArgument),
        (lambda state, name: state.fork(name, True), TypeError),
        (lambda state, name: state.with_options(namespace=name + "-none").fork(name), comity.NotFound),
        (lambda state, name: state.merge(name + "-none"), comity.NotFound),
        (lambda state, name: state.merge(state), comity.FailedPrecondition),
        (lambda state, name: state.merge(name, strategy="mine"), ValueError),
    ],
)
async def test_what_is_refused(state: Client, act: Act, error: type[Exception]) -> None:
    revision = await fill(state, a=1)
    name = f"{state.namespace}-fork"
    with pytest.raises(error):
        await act(state, name)
    assert (await state.namespace_info()).revision == revision
    assert [found.name async for found in state.namespaces(name)] == []


async def test_only_a_fork_can_be_merged(state: Client) -> None:
    await fill(state, a=1)
    fork = await state.fork(f"{state.namespace}-fork")
    with pytest.raises(comity.FailedPrecondition) as refused:
        await fork.merge(state)
    assert refused.value.reason == "NOT_A_FORK"
