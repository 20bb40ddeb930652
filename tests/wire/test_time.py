"""Checkpoints, restores, forks, merges and blame, as a client of any language sees them."""

from typing import Any

import grpc
import pytest

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.wire.calls import Wire
from tests.wire.test_pages import fill, pages

TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MIB = 1024 * 1024


def named(client: str, sequence: int = 1, **fields: str) -> t.WriteOptions:
    return t.WriteOptions(request_id=t.RequestId(client=client, sequence=sequence), **fields)  # type: ignore[arg-type]


def newest_commit(wire: Wire, namespace: str) -> t.Commit:
    commit: t.Commit = wire.call(s.HistoryRequest(namespace=namespace, page_size=1)).commits[0]
    return commit


def state(wire: Wire, namespace: str, revision: int = 0) -> dict[str, bytes]:
    read = pages(wire, s.ListRequest(namespace=namespace, revision=revision))
    return {entry.key: entry.value for page in read for entry in page.entries}


def test_a_checkpoint_says_all_that_was_said_of_it(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "a", b"12")
    wire.put(namespace, "b", b"3")
    options = t.WriteOptions(author="ann", message="before the storm")
    request = c.CheckpointRequest(namespace=namespace, name="v1", revision=1, labels={"kind": "é"}, options=options)
    made = wire.call(request).checkpoint
    assert (made.name, made.revision, made.author, made.message) == ("v1", 1, "ann", "before the storm")
    assert (dict(made.labels), made.key_count, made.size_bytes) == ({"kind": "é"}, 1, 3)
    assert made.create_time.ToMicroseconds() >= newest_commit(wire, namespace).commit_time.ToMicroseconds()
    assert wire.call(c.GetCheckpointRequest(namespace=namespace, name="v1")).checkpoint == made
    assert list(wire.call(c.ListCheckpointsRequest(namespace=namespace)).checkpoints) == [made]
    assert wire.call(n.GetNamespaceRequest(namespace=namespace)).namespace.revision == 2  # it makes no revision


@pytest.mark.parametrize("size", [1, 2, 0])
def test_checkpoints_are_listed_by_name_and_labels(wire: Wire, namespace: str, size: int) -> None:
    wire.put(namespace, "k")
    for number in range(6):
        labels = {"even": str(number % 2 == 0), "number": str(number)}
        wire.call(c.CheckpointRequest(namespace=namespace, name=f"c{number}", labels=labels))

    def listed(**labels: str) -> list[str]:
        read = pages(wire, c.ListCheckpointsRequest(namespace=namespace, labels=labels, page_size=size))
        return [checkpoint.name for page in read for checkpoint in page.checkpoints]

    assert listed() == [f"c{number}" for number in range(6)]
    assert listed(even="True") == ["c0", "c2", "c4"]
    assert listed(even="True", number="2") == ["c2"]
    assert listed(even="True", number="3") == []


def test_what_is_there_or_not_there_is_said(wire: Wire, namespace: str) -> None:
    def refused(request: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        refusal = wire.refused(request)
        return refusal.code, refusal.reason, dict(refusal.metadata)

    missing, exists = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
    nowhere = {"namespace": namespace}
    without_namespace: list[Any] = [
        c.CheckpointRequest(namespace=namespace, name="v1"),
        c.GetCheckpointRequest(namespace=namespace, name="v1"),
        c.ListCheckpointsRequest(namespace=namespace),
        c.RestoreRequest(namespace=namespace, ref=t.Ref(revision=0)),
        c.DiffRequest(namespace=namespace, base=t.Ref(revision=0)),
        n.ForkRequest(namespace=namespace, fork=f"{namespace}-f"),
        n.MergeRequest(namespace=f"{namespace}-p", fork=namespace),
    ]
    for request in without_namespace:
        assert refused(request) == (missing, "NAMESPACE_NOT_FOUND", nowhere), request
    wire.put(namespace, "k")
    absent = {"namespace": namespace, "checkpoint": "v1"}
    ref = t.Ref(checkpoint="v1")
    without_checkpoint: list[Any] = [
        c.GetCheckpointRequest(namespace=namespace, name="v1"),
        c.DeleteCheckpointRequest(namespace=namespace, name="v1"),
        c.RestoreRequest(namespace=namespace, ref=ref),
        c.DiffRequest(namespace=namespace, base=ref),
        c.DiffRequest(namespace=namespace, base=t.Ref(revision=1), target=ref),
        n.ForkRequest(namespace=namespace, fork=f"{namespace}-f", ref=ref),
    ]
    for request in without_checkpoint:
        assert refused(request) == (missing, "CHECKPOINT_NOT_FOUND", absent), request
    wire.call(c.CheckpointRequest(namespace=namespace, name="v1"))
    taken = {"checkpoint": "v1", "revision": "1"}
    assert refused(c.CheckpointRequest(namespace=namespace, name="v1")) == (exists, "CHECKPOINT_EXISTS", taken)
    assert refused(n.ForkRequest(namespace=namespace, fork=namespace)) == (exists, "NAMESPACE_EXISTS", nowhere)
    wire.call(n.ForkRequest(namespace=namespace, fork=f"{namespace}-f"))
    merge = refused(n.MergeRequest(namespace=f"{namespace}-p", fork=f"{namespace}-f"))
    assert merge == (missing, "NAMESPACE_NOT_FOUND", {"namespace": f"{namespace}-p"})
    no_fork = {"namespace": namespace, "parent": namespace}
    merge = refused(n.MergeRequest(namespace=namespace, fork=namespace))
    assert merge == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_A_FORK", no_fork)


@pytest.mark.parametrize("beyond", [2, 2**63 - 1])
def test_revisions_that_cannot_be_read(wire: Wire, namespace: str, beyond: int) -> None:
    wire.put(namespace, "k")
    later = t.Ref(revision=beyond)
    for request in (
        c.CheckpointRequest(namespace=namespace, name="v1", revision=beyond),
        c.RestoreRequest(namespace=namespace, ref=later),
        c.DiffRequest(namespace=namespace, base=later),
        n.ForkRequest(namespace=namespace, fork=f"{namespace}-f", ref=later),
        s.BlameRequest(namespace=namespace, revision=beyond),
    ):
        refused = wire.refused(request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    wire.put(namespace, "k")
    wire.put(namespace, "k")
    wire.call(n.CompactRequest(namespace=namespace, revision=3))
    gone = t.Ref(revision=1)
    for request in (
        c.CheckpointRequest(namespace=namespace, name="v1", revision=1),
        c.RestoreRequest(namespace=namespace, ref=gone),
        c.DiffRequest(namespace=namespace, base=gone),
        n.ForkRequest(namespace=namespace, fork=f"{namespace}-f", ref=gone),
        s.BlameRequest(namespace=namespace, revision=1),
    ):
        refused = wire.refused(request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "COMPACTED")
        assert dict(refused.metadata) == {"floor": "3", "revision": "3"}


def test_a_restore_is_one_commit_of_ordinary_events_and_can_be_undone(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "draft/a", b"1")
    wire.put(namespace, "draft/b", b"2")
    wire.put(namespace, "other", b"3")
    wire.call(c.CheckpointRequest(namespace=namespace, name="mark"))
    wire.put(namespace, "draft/a", b"changed")
    wire.call(s.DeleteRequest(namespace=namespace, key="draft/b"))
    wire.put(namespace, "draft/c", b"new")
    wire.put(namespace, "other", b"changed")
    changed = state(wire, namespace)
    wire.call(n.CompactRequest(namespace=namespace))

    ref = t.Ref(checkpoint="mark")
    planned = wire.call(c.RestoreRequest(namespace=namespace, ref=ref, prefix="draft/", dry_run=True))
    assert (planned.revision, planned.put, planned.deleted) == (7, 2, 1)
    sides = [(one.key, one.before.version, one.after.version) for one in planned.differences]
    assert sides == [("draft/a", 2, 1), ("draft/b", 0, 1), ("draft/c", 1, 0)]
    assert state(wire, namespace) == changed

    options = t.WriteOptions(author="ann")
    done = wire.call(c.RestoreRequest(namespace=namespace, ref=ref, prefix="draft/", if_revision=7, options=options))
    assert (done.revision, done.put, done.deleted, list(done.differences)) == (8, 2, 1, [])
    assert state(wire, namespace) == {"draft/a": b"1", "draft/b": b"2", "other": b"changed"}
    commit = newest_commit(wire, namespace)
    assert (commit.revision, commit.author, commit.message) == (8, "ann", "restore 'draft/' to mark (revision 3)")
    events = [(event.type, event.entry.key, event.entry.version) for event in commit.events]
    put, delete = t.EVENT_TYPE_PUT, t.EVENT_TYPE_DELETE
    assert events == [(put, "draft/a", 3), (put, "draft/b", 1), (delete, "draft/c", 0)]

    wire.call(c.RestoreRequest(namespace=namespace, ref=t.Ref(revision=7)))
    assert state(wire, namespace) == changed
    again = wire.call(c.RestoreRequest(namespace=namespace, ref=t.Ref(revision=7)))
    assert (again.revision, again.put, again.deleted) == (9, 0, 0)
    late = wire.refused(c.RestoreRequest(namespace=namespace, ref=t.Ref(revision=7), if_revision=8))
    assert (late.code, late.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert dict(late.metadata) == {"namespace": namespace, "revision": "9"}


@pytest.mark.parametrize("size", [1, 3, 0])
def test_a_diff_shows_two_revisions_whatever_happens_between_its_pages(wire: Wire, namespace: str, size: int) -> None:
    fill(wire, namespace, 5)
    wire.put(namespace, "k001", b"other")
    wire.put(namespace, "k002", b"v")  # the same again is no difference
    wire.call(s.DeleteRequest(namespace=namespace, key="k003"))
    wire.put(namespace, "new", b"n")

    def diff(**fields: Any) -> list[tuple[str, bytes | None, bytes | None]]:
        request = c.DiffRequest(namespace=namespace, page_size=size, **fields)
        read = list(pages(wire, request, lambda: wire.put(namespace, "k000", b"later")))
        assert len({(page.base_revision, page.target_revision) for page in read}) == 1
        return [
            (
                one.key,
                one.before.value if one.HasField("before") else None,
                one.after.value if one.HasField("after") else None,
            )
            for page in read
            for one in page.differences
        ]

    expected = [("k001", b"v", b"other"), ("k003", b"v", None), ("new", None, b"n")]
    assert diff(base=t.Ref(revision=5)) == expected
    back = [(key, after, before) for key, before, after in expected]
    assert diff(base=t.Ref(revision=9), target=t.Ref(revision=5)) == back
    assert diff(base=t.Ref(revision=5), target=t.Ref(revision=9), prefix="k00") == expected[:2]
    assert diff(base=t.Ref(revision=0), target=t.Ref(revision=1)) == [("k000", None, b"v")]
    keys = wire.call(c.DiffRequest(namespace=namespace, base=t.Ref(revision=5), keys_only=True, prefix="k001"))
    (one,) = keys.differences
    assert (one.before.value, one.after.value, one.before.version, one.after.version) == (b"", b"", 1, 2)


def test_a_fork_says_where_it_is_from_and_goes_its_own_way(wire: Wire, namespace: str) -> None:
    fork = f"{namespace}-fork"
    wire.put(namespace, "k", b"1")
    wire.put(namespace, "k", b"2")
    request = n.ForkRequest(namespace=namespace, fork=fork, ref=t.Ref(revision=1), options=named("f", author="ann"))
    made = wire.call(request).namespace
    assert (made.name, made.parent, made.fork_revision, made.revision) == (fork, namespace, 1, 2)
    assert (made.key_count, made.size_bytes, made.floor, made.commit_count) == (1, 2, 1, 1)
    assert wire.call(request).namespace == made  # a repeat answers the same
    commit = newest_commit(wire, fork)
    assert (commit.author, commit.message, len(commit.events)) == ("ann", f"fork {namespace} (revision 1)", 0)
    assert state(wire, fork) == {"k": b"1"}
    wire.put(fork, "k", b"3")
    wire.put(fork, "own")
    assert state(wire, fork) == {"k": b"3", "own": b""}
    assert state(wire, namespace) == {"k": b"2"}


def test_a_merge_reports_what_both_sides_changed(wire: Wire, namespace: str) -> None:
    fork = f"{namespace}-fork"
    for key in ("both", "ours", "theirs", "gone"):
        wire.put(namespace, key, b"base")
    wire.call(n.ForkRequest(namespace=namespace, fork=fork))
    for key in ("both", "ours"):
        wire.put(namespace, key, b"ours")
    for key in ("both", "theirs", "new"):
        wire.put(fork, key, b"theirs")
    wire.call(s.DeleteRequest(namespace=fork, key="gone"))
    before = state(wire, namespace)

    failed = wire.call(n.MergeRequest(namespace=namespace, fork=fork))
    assert (failed.merged, failed.revision, failed.put, failed.deleted, failed.conflict_count) == (False, 6, 2, 1, 1)
    (conflict,) = failed.conflicts
    sides = (conflict.base.value, conflict.ours.value, conflict.theirs.value)
    assert (conflict.key, *sides) == ("both", b"base", b"ours", b"theirs")
    planned = wire.call(n.MergeRequest(namespace=namespace, fork=fork, strategy=n.MERGE_STRATEGY_THEIRS, dry_run=True))
    assert (planned.merged, planned.put, planned.deleted, planned.conflict_count) == (False, 3, 1, 1)
    assert state(wire, namespace) == before

    request = n.MergeRequest(
        namespace=namespace, fork=fork, strategy=n.MERGE_STRATEGY_OURS, options=named("m", message="the best of it")
    )
    done = wire.call(request)
    assert (done.merged, done.revision, done.put, done.deleted) == (True, 7, 2, 1)
    assert state(wire, namespace) == {"both": b"ours", "ours": b"ours", "theirs": b"theirs", "new": b"theirs"}
    assert newest_commit(wire, namespace).message == "the best of it"
    repeated = wire.call(request)
    assert (repeated.merged, repeated.revision, repeated.put) == (True, 7, 2)


def test_conflicts_with_large_values_are_answered_without_them(wire: Wire, namespace: str) -> None:
    fork = f"{namespace}-fork"
    wire.put(namespace, "k")
    wire.call(n.ForkRequest(namespace=namespace, fork=fork))
    for number in range(6):
        for side in (namespace, fork):
            wire.put(side, f"k{number}", side[-1].encode() * (MIB // 2 - 100))
    failed = wire.call(n.MergeRequest(namespace=namespace, fork=fork))
    assert failed.ByteSize() < 4 * MIB
    assert failed.conflict_count == 6
    assert [bool(conflict.ours.value) for conflict in failed.conflicts] == [True] + [False] * 5
    assert [conflict.values_omitted for conflict in failed.conflicts] == [False] + [True] * 5
    assert all(conflict.theirs.version == 1 for conflict in failed.conflicts)


def test_blame_tells_of_every_key_who_wrote_it_last(wire: Wire, namespace: str) -> None:
    def write(key: str, author: str, message: str = "") -> None:
        request = s.PutRequest(
            namespace=namespace, key=key, value=b"v", options=t.WriteOptions(author=author, message=message)
        )
        wire.call(request, metadata=(("traceparent", TRACE_PARENT),))

    write("a/1", "ann", "first")
    write("a/2", "ann")
    write("b", "bob")
    write("a/2", "bob", "second")
    wire.call(s.PutRequest(namespace=namespace, key="a/3"))

    def blame(**fields: Any) -> list[tuple[str, int, str, str]]:
        read = pages(wire, s.BlameRequest(namespace=namespace, **fields))
        found = [one for page in read for one in page.attributions]
        assert all(one.trace_parent == (TRACE_PARENT if one.author else "") for one in found)
        assert not any(one.entry.value for one in found)
        return [(one.entry.key, one.entry.mod_revision, one.author, one.message) for one in found]

    expected = [("a/1", 1, "ann", "first"), ("a/2", 4, "bob", "second"), ("a/3", 5, "", ""), ("b", 3, "bob", "")]
    assert blame() == blame(page_size=1) == expected
    assert blame(prefix="a/") == expected[:3]
    assert blame(prefix="a/2", revision=3) == [("a/2", 2, "ann", "")]
    wire.call(n.CompactRequest(namespace=namespace))
    assert blame() == expected
    fork = f"{namespace}-fork"
    wire.call(n.ForkRequest(namespace=namespace, fork=fork))
    of_fork = wire.call(s.BlameRequest(namespace=fork)).attributions
    assert [(one.entry.key, one.author) for one in of_fork] == [(key, author) for key, _, author, _ in expected]


def test_a_watch_of_a_name_that_becomes_a_fork_is_told_to_look(wire: Wire, namespace: str) -> None:
    """No commit shows what a fork begins with."""
    fork = f"{namespace}-fork"
    wire.put(namespace, "k")
    stream = wire.state.Watch(s.WatchRequest(namespace=fork, prefix=""), timeout=20)
    assert next(stream).created
    wire.call(n.ForkRequest(namespace=namespace, fork=fork))
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE


def test_repeats_of_actions_answer_the_same_and_do_nothing(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k", b"1")
    make = c.CheckpointRequest(namespace=namespace, name="v1", options=named("w", 1))
    made = wire.call(make).checkpoint
    wire.put(namespace, "k", b"2")
    restore = c.RestoreRequest(namespace=namespace, ref=t.Ref(checkpoint="v1"), options=named("w", 2))
    restored = wire.call(restore)
    wire.put(namespace, "k", b"3")
    drop = c.DeleteCheckpointRequest(namespace=namespace, name="v1", options=named("w", 3))
    wire.call(drop)
    assert wire.call(make).checkpoint == made
    assert wire.call(restore) == restored
    wire.call(drop)
    assert state(wire, namespace) == {"k": b"3"}
    assert not wire.call(c.ListCheckpointsRequest(namespace=namespace)).checkpoints
    other = c.CheckpointRequest(namespace=namespace, name="v2", options=named("w", 1))
    assert wire.refused(other).reason == "REQUEST_ID_REUSED"
