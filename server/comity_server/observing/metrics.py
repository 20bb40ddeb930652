"""Every metric, once: its name, unit, description and attributes, and where its numbers come from.

Names and attributes follow the semantic conventions of OpenTelemetry where these have one (`rpc.server.call.duration`).
Nothing that clients choose freely is an attribute: no keys, authors, principals or addresses; and names of namespaces
only of so many (see `tally.NAMESPACES`), those of the others together as "other".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from comity.v1 import state_pb2
from comity_server.model import NamespaceInfo
from comity_server.observing.snapshot import BEHIND, Sizes, Snapshot
from comity_server.telemetry.tally import OTHER, SECONDS, SIZES, Histogram, Method, Tally

METHOD: Final = "rpc.method"
CODE: Final = "rpc.response.status_code"
NAMESPACE: Final = "comity.namespace"  # not `namespace`, which in Kubernetes every target has of its own
SYSTEM: Final = {"rpc.system.name": "grpc"}

Attributes = Mapping[str, str]
Kind = Literal["counter", "gauge"]
Read = Callable[[Tally, Snapshot], Iterable[tuple[float, Attributes]]]


class Measured(NamedTuple):
    """A histogram, to which each measurement is passed on."""

    name: str
    unit: str
    description: str
    attributes: Sequence[str]
    bounds: Sequence[float]
    of: Callable[[Tally], Histogram] | None  # None: of each method


class Observed(NamedTuple):
    """Numbers that are read when somebody asks."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: Sequence[str]
    read: Read


def _one(read: Callable[[Tally, Snapshot], float]) -> Read:
    return lambda tally, snapshot: [(read(tally, snapshot), {})]


def _by_method(read: Callable[[Method], float]) -> Read:
    return lambda tally, _: [(read(method), {METHOD: method.full_name}) for method in tally.called()]


def _by_namespace(read: Callable[[NamespaceInfo], float], of_others: Callable[[Sizes], float] | None = None) -> Read:
    def found(_: Tally, snapshot: Snapshot) -> Iterator[tuple[float, Attributes]]:
        for info in snapshot.namespaces:
            yield read(info), {NAMESPACE: info.name}
        if of_others is not None and snapshot.others.namespaces:
            yield of_others(snapshot.others), {NAMESPACE: OTHER}

    return found


def _errors(tally: Tally, _: Snapshot) -> Iterable[tuple[float, Attributes]]:
    return [(count, {"reason": reason}) for reason, count in tally.errors.copy().items()]


def _shed(tally: Tally, _: Snapshot) -> Iterable[tuple[float, Attributes]]:
    return [(count, {"limit": limit}) for limit, count in tally.shed.copy().items()]


def _operations(tally: Tally, _: Snapshot) -> Iterable[tuple[float, Attributes]]:
    kinds = state_pb2.PipelineKind
    return [(tally.operations[kind], {"kind": name_of(kind)}) for kind in kinds.values() if kind]


def name_of(kind: int) -> str:
    """A kind of pipelined operation in small letters: put, if_present, …"""
    return state_pb2.PipelineKind.Name(kind).removeprefix("PIPELINE_KIND_").lower()


def _writes(tally: Tally, _: Snapshot) -> Iterable[tuple[float, Attributes]]:
    ends = {"committed": tally.commits, "conflict": tally.conflicts, "failed": tally.failures}
    return [(count, {"outcome": end}) for end, count in ends.items()]


def _writes_by_namespace(tally: Tally, snapshot: Snapshot) -> Iterable[tuple[float, Attributes]]:
    counts = tally.namespaces.copy()
    if not snapshot.named:
        return [(sum(counts.values()), {NAMESPACE: OTHER})]
    return [(count, {NAMESPACE: name}) for name, count in counts.items()]


def _streams(_: Tally, snapshot: Snapshot) -> Iterable[tuple[float, Attributes]]:
    names = [*(f"<={most}" if most else "0" for most in BEHIND), f">{BEHIND[-1]}"]
    return [(count, {"behind": name}) for count, name in zip(snapshot.streams_behind, names, strict=True)]


MEASURED: Final = (
    Measured(
        "rpc.server.call.duration",
        "s",
        "How long calls took, from when they began to their end. Of a stream that is how long it lasted.",
        ("rpc.system.name", METHOD, CODE),
        SECONDS,
        None,
    ),
    Measured(
        "comity.pipeline.message.duration",
        "s",
        "How long messages of pipelines took, from when one was read until its last answer was off to the client.",
        (),
        SECONDS,
        lambda tally: tally.messages,
    ),
    Measured(
        "comity.commit.group.size",
        "{write}",
        "How many writes the groups had that were committed together.",
        (),
        SIZES,
        lambda tally: tally.group_sizes,
    ),
    Measured(
        "comity.commit.group.duration",
        "s",
        "How long the store took to commit a group.",
        (),
        SECONDS,
        lambda tally: tally.group_seconds,
    ),
    Measured(
        "comity.loop.delay",
        "s",
        "By how much the event loop was late, which everything waits for then. Measured four times a second.",
        (),
        SECONDS,
        lambda tally: tally.loop_delays,
    ),
)

OBSERVED: Final = (
    Observed(
        "comity.loop.answering",
        "gauge",
        "",
        "1 while the event loop comes to look at the server within 3 seconds, else 0: then gauges of connections, the "
        "store, watches, leases and namespaces are as they were before.",
        (),
        _one(lambda _, snapshot: int(snapshot.answering)),
    ),
    Observed(
        "comity.calls.open",
        "gauge",
        "{call}",
        "Calls in progress, streams among them.",
        (METHOD,),
        _by_method(lambda method: method.open),
    ),
    Observed(
        "comity.calls.received",
        "counter",
        "By",
        "Bytes of requests.",
        (METHOD,),
        _by_method(lambda method: method.received_bytes),
    ),
    Observed(
        "comity.calls.sent",
        "counter",
        "By",
        "Bytes of answers.",
        (METHOD,),
        _by_method(lambda method: method.sent_bytes),
    ),
    Observed(
        "comity.calls.messages.received",
        "counter",
        "{message}",
        "Messages of requests: one a call, or of a stream many.",
        (METHOD,),
        _by_method(lambda method: method.received_messages),
    ),
    Observed(
        "comity.calls.messages.sent",
        "counter",
        "{message}",
        "Messages of answers; of Watch those to watchers.",
        (METHOD,),
        _by_method(lambda method: method.sent_messages),
    ),
    Observed(
        "comity.connections.active",
        "gauge",
        "{connection}",
        "Connections that have a call of which the request or the answer is on its way, or a pipeline with work.",
        (),
        _one(lambda _, snapshot: snapshot.connections),
    ),
    Observed(
        "comity.errors",
        "counter",
        "{error}",
        "Errors that calls and pipelined operations were answered with, by the reason of their ErrorInfo.",
        ("reason",),
        _errors,
    ),
    Observed(
        "comity.calls.shed",
        "counter",
        "{call}",
        "Calls and pipelined operations that were turned away for being too much, by the setting that bounds it.",
        ("limit",),
        _shed,
    ),
    Observed(
        "comity.pipeline.operations",
        "counter",
        "{operation}",
        "Operations of pipelines, by their kind.",
        ("kind",),
        _operations,
    ),
    Observed(
        "comity.commit.writes",
        "counter",
        "{write}",
        "Writes by how they ended: committed, conflict (a condition did not hold), failed.",
        ("outcome",),
        _writes,
    ),
    Observed(
        "comity.commit.pending",
        "gauge",
        "{write}",
        "Writes that wait for their group. At max_pending others are refused.",
        (),
        _one(lambda _, snapshot: snapshot.pending),
    ),
    Observed(
        "comity.commit.pending.size",
        "gauge",
        "By",
        "About how much memory these take.",
        (),
        _one(lambda _, snapshot: snapshot.pending_bytes),
    ),
    Observed(
        "comity.watch.streams",
        "gauge",
        "{stream}",
        "Watch streams, by how many revisions they are behind the newest.",
        ("behind",),
        _streams,
    ),
    Observed(
        "comity.watch.lag.max",
        "gauge",
        "{revision}",
        "How many revisions the last of the watch streams is behind.",
        (),
        _one(lambda _, snapshot: snapshot.lag),
    ),
    Observed(
        "comity.lease.live",
        "gauge",
        "{lease}",
        "Leases that live.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.lease_count, lambda sizes: sizes.leases),
    ),
    Observed(
        "comity.lease.expired",
        "counter",
        "{lease}",
        "Leases that this server has ended since they ran out.",
        (),
        _one(lambda tally, _: tally.leases_expired),
    ),
    Observed(
        "comity.lease.keys_deleted",
        "counter",
        "{key}",
        "Keys that went with these.",
        (),
        _one(lambda tally, _: tally.lease_keys_deleted),
    ),
    Observed(
        "comity.store.writable",
        "gauge",
        "",
        "1 while commits can be expected to succeed, else 0. Why not, the log and GetStatus say.",
        (),
        _one(lambda _, snapshot: int(not snapshot.trouble)),
    ),
    Observed(
        "comity.server.draining",
        "gauge",
        "",
        "1 while the server shuts down, else 0.",
        (),
        _one(lambda _, snapshot: int(snapshot.draining)),
    ),
    Observed(
        "comity.namespaces",
        "gauge",
        "{namespace}",
        "Namespaces. At most 10,000 are looked at, for this and for what follows.",
        (),
        _one(lambda _, snapshot: snapshot.everything.namespaces),
    ),
    Observed(
        "comity.namespace.writes",
        "counter",
        "{write}",
        "Writes that this server had for a namespace, however they ended.",
        (NAMESPACE,),
        _writes_by_namespace,
    ),
    Observed(
        "comity.namespace.revision",
        "gauge",
        "{revision}",
        "The newest revision. By how much it grows in a second are the commits of all servers.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.revision),
    ),
    Observed(
        "comity.namespace.floor",
        "gauge",
        "{revision}",
        "The oldest revision that can be read.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.floor),
    ),
    Observed(
        "comity.namespace.keys",
        "gauge",
        "{key}",
        "Keys.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.key_count, lambda sizes: sizes.keys),
    ),
    Observed(
        "comity.namespace.size",
        "gauge",
        "By",
        "The newest state: keys, values and content types.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.size_bytes, lambda sizes: sizes.size),
    ),
    Observed(
        "comity.namespace.history.commits",
        "gauge",
        "{commit}",
        "Commits that are kept.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.commit_count, lambda sizes: sizes.commits),
    ),
    Observed(
        "comity.namespace.history.size",
        "gauge",
        "By",
        "What is kept beside the newest state.",
        (NAMESPACE,),
        _by_namespace(lambda info: info.history_size_bytes, lambda sizes: sizes.history_size),
    ),
    Observed(
        "comity.compaction.runs",
        "counter",
        "{run}",
        "How often the retention was applied to all namespaces.",
        (),
        _one(lambda tally, _: tally.compactions),
    ),
    Observed(
        "comity.compaction.duration",
        "counter",
        "s",
        "How long that took in all.",
        (),
        _one(lambda tally, _: tally.compaction_seconds),
    ),
    Observed(
        "comity.compaction.failures",
        "counter",
        "{failure}",
        "Failures of it.",
        (),
        _one(lambda tally, _: tally.compaction_failures),
    ),
    Observed(
        "comity.compaction.revisions",
        "counter",
        "{revision}",
        "Revisions by which it has raised floors.",
        (),
        _one(lambda tally, _: tally.revisions_compacted),
    ),
)
