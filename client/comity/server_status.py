"""How a server stands, and what it has done since it started. Rates are what two of these differ by."""

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass

from . import convert, model
from .v1 import checkpoint_pb2, lease_pb2, namespace_pb2, server_pb2, state_pb2

__all__ = ["Histogram", "MethodStats", "NamespaceStats", "ServerStatus", "from_message"]

LARGEST = 1e18
UNARY = frozenset(
    f"{service.full_name}/{method.name}"
    for file in (state_pb2, checkpoint_pb2, namespace_pb2, lease_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something measured was at most each of some bounds, and above the one before."""

    bounds: tuple[float, ...]  # in rising order
    counts: tuple[int, ...]  # one more than bounds: the last is of what was above all of them
    sum: float

    @property
    def count(self) -> int:
        """How often it was measured."""
        return sum(self.counts)

    def since(self, before: "Histogram") -> "Histogram":
        """What was measured after another one, of the same server, was read."""
        if before.bounds != self.bounds:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, counts, self.sum - before.sum)

    def quantile(self, part: float) -> float | None:
        """The bound that such a part of what was measured, from 0 to 1, did not pass: the last one also where it did.
        None: nothing was measured."""
        left = part * self.count
        if not self.count or not self.bounds:
            return None
        for bound, count in zip(self.bounds, self.counts, strict=False):
            left -= count
            if left <= 0:
                return bound
        return self.bounds[-1]


NOTHING = Histogram((), (0,), 0.0)


@dataclass(frozen=True, slots=True)
class MethodStats:
    """The calls of one method."""

    open: int  # in progress
    codes: Mapping[str, int]  # those that ended, by the names of their statuses
    durations: Histogram  # seconds; of streams, how long they lasted
    received_messages: int
    received_bytes: int
    sent_messages: int
    sent_bytes: int

    @property
    def ended(self) -> int:
        return sum(self.codes.values())

    @property
    def errors(self) -> int:
        """Those that ended with neither OK nor CANCELLED, which is how streams end that nobody wants any more."""
        return self.ended - self.codes.get("OK", 0) - self.codes.get("CANCELLED", 0)


@dataclass(frozen=True, slots=True)
class NamespaceStats:
    """One namespace."""

    namespace: model.Namespace
    lease_count: int  # leases that live there
    writes: int  # that this server had for it, however they ended


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server stands. Counts began with 0 at its start; sizes are in bytes, durations in seconds."""

    version: str
    instance: str  # random; another one at each start
    worker: int  # which of several processes on the same addresses, from 1; 0: there is one
    start_time: datetime.datetime  # UTC, by the server's clock
    time: datetime.datetime  # when this was so
    draining: bool  # it shuts down, and refuses further calls
    store: str  # its kind, as memory, sqlite, redis
    writable: bool  # whether the store can commit
    trouble: str  # why it cannot; empty: it can
    connections: int  # that have a call whose request or answer is on its way
    methods: Mapping[str, MethodStats]  # by SERVICE/METHOD, as comity.v1.StateService/Get
    errors: Mapping[str, int]  # by reason, of calls and of pipelined operations
    shed: Mapping[str, int]  # calls and pipelined operations that were too much, by the setting that bounds it
    operations: Mapping[str, int]  # pipelined ones, by kind: get, put, create, …
    message_durations: Histogram  # of pipelines: from when one was read until its last answer was off
    pending: int  # writes that wait for their group
    pending_bytes: int
    committed: int  # writes
    conflicts: int
    failed: int
    group_sizes: Histogram  # writes that were committed together
    group_durations: Histogram
    watch_streams: int
    watch_max_lag: int  # revisions that the last of them is behind the newest
    watch_lags: Histogram
    leases: int  # that live
    leases_expired: int  # by this server
    lease_keys_deleted: int
    compactions: int  # times that the retention was applied
    compaction_seconds: float
    compaction_failures: int
    revisions_compacted: int
    pid: int
    cpu_seconds: float
    resident_bytes: int  # 0: the system does not say
    loop_delays: Histogram  # by how much the event loop was late, which everything waits for
    namespace_count: int  # of at most 10,000 that are looked at, as in the sizes below
    namespaces: tuple[NamespaceStats, ...]  # up to 100
    key_count: int
    size_bytes: int
    commit_count: int
    history_size_bytes: int

    @property
    def uptime(self) -> float:
        """Seconds since its start."""
        return (self.time - self.start_time).total_seconds()

    @property
    def done(self) -> int:
        """Pipelined operations, and calls that ended and were neither streams nor about the server itself."""
        calls = (method.ended for name, method in self.methods.items() if name in UNARY)
        return sum(self.operations.values()) + sum(calls)


def from_message(message: server_pb2.ServerStatus) -> ServerStatus:
    """From the message of the wire contract."""
    commits, watches, leases, compaction = message.commits, message.watches, message.leases, message.compaction
    process, total = message.process, message.total
    return ServerStatus(
        version=message.version,
        instance=message.instance,
        worker=message.worker,
        start_time=convert.time(message.start_time),
        time=convert.time(message.time),
        draining=message.phase == server_pb2.SERVER_PHASE_DRAINING,
        store=message.store,
        writable=message.writable,
        trouble=message.trouble,
        connections=message.connections,
        methods={method.method: _method(method) for method in message.methods},
        errors={error.reason: error.count for error in message.errors},
        shed={shed.limit: shed.count for shed in message.shed},
        operations={_kind(operation.kind): operation.count for operation in message.pipelines.operations},
        message_durations=_histogram(message.pipelines.message_durations),
        pending=commits.pending,
        pending_bytes=commits.pending_bytes,
        committed=commits.committed,
        conflicts=commits.conflicts,
        failed=commits.failed,
        group_sizes=_histogram(commits.group_sizes),
        group_durations=_histogram(commits.group_durations),
        watch_streams=watches.streams,
        watch_max_lag=watches.max_lag,
        watch_lags=_histogram(watches.lags),
        leases=leases.live,
        leases_expired=leases.expired,
        lease_keys_deleted=leases.keys_deleted,
        compactions=compaction.runs,
        compaction_seconds=_number(compaction.seconds),
        compaction_failures=compaction.failures,
        revisions_compacted=compaction.revisions,
        pid=process.pid,
        cpu_seconds=_number(process.cpu_seconds),
        resident_bytes=process.resident_bytes,
        loop_delays=_histogram(process.loop_delays),
        namespace_count=message.namespace_count,
        namespaces=tuple(
            NamespaceStats(convert.namespace(stats.namespace), stats.lease_count, stats.writes)
            for stats in message.namespaces
        ),
        key_count=total.key_count,
        size_bytes=total.size_bytes,
        commit_count=total.commit_count,
        history_size_bytes=total.history_size_bytes,
    )


def _method(message: server_pb2.MethodStats) -> MethodStats:
    return MethodStats(
        open=message.open,
        codes={code.code: code.count for code in message.codes},
        durations=_histogram(message.durations),
        received_messages=message.received_messages,
        received_bytes=message.received_bytes,
        sent_messages=message.sent_messages,
        sent_bytes=message.sent_bytes,
    )


def _histogram(message: server_pb2.Histogram) -> Histogram:
    """As it is, if it is one."""
    bounds, counts = tuple(message.bounds), tuple(message.counts)
    if not all(abs(bound) <= LARGEST for bound in bounds) or len(counts) != len(bounds) + 1:
        return NOTHING
    return Histogram(bounds, counts, _number(message.sum))


def _number(said: float) -> float:
    """One that can be reckoned with, whatever a server says."""
    return min(max(said, 0.0), LARGEST) if math.isfinite(said) else 0.0


def _kind(kind: int) -> str:
    """In small letters; of a server that is newer than this client it may be a number."""
    if kind not in state_pb2.PipelineKind.values():
        return str(kind)
    return state_pb2.PipelineKind.Name(kind).removeprefix("PIPELINE_KIND_").lower()
