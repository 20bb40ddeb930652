"""ServerService: how the server stands, for whoever runs it."""

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from comity.v1 import server_pb2, state_pb2
from comity_server.observing.snapshot import BEHIND, Observer, Snapshot
from comity_server.services import wire
from comity_server.services.call import Call
from comity_server.telemetry.tally import Histogram, Tally

MEMORY: Final = Path("/proc/self/statm")


class About(NamedTuple):
    """What does not change of a server."""

    version: str
    store: str  # its kind
    worker: int = 0


class ServerService:
    """Handlers of `comity.v1.ServerService`, for those who may administer the server."""

    def __init__(self, about: About, tally: Tally, observer: Observer) -> None:
        self._about = about
        self._tally = tally
        self._observer = observer
        self._instance = uuid.uuid4().hex
        self._started = time.time_ns() // 1000

    async def GetStatus(self, request: server_pb2.GetStatusRequest, call: Call) -> server_pb2.GetStatusResponse:
        call.caller.administer()
        snapshot = await self._observer.look()
        response = server_pb2.GetStatusResponse()
        status = response.status
        status.version, status.store, status.worker = self._about
        status.instance = self._instance
        wire.fill_time(status.start_time, self._started)
        wire.fill_time(status.time, time.time_ns() // 1000)
        status.phase = server_pb2.SERVER_PHASE_DRAINING if snapshot.draining else server_pb2.SERVER_PHASE_SERVING
        status.writable = not snapshot.trouble
        status.trouble = snapshot.trouble
        status.connections = snapshot.connections
        self._fill_calls(status)
        self._fill_commits(status.commits, snapshot)
        self._fill_watches(status.watches, snapshot)
        self._fill_namespaces(status, snapshot)
        self._fill_process(status.process)
        return response

    def _fill_calls(self, status: server_pb2.ServerStatus) -> None:
        for method in self._tally.called():
            stats = status.methods.add(
                method=method.full_name,
                open=method.open,
                received_messages=method.received_messages,
                received_bytes=method.received_bytes,
                sent_messages=method.sent_messages,
                sent_bytes=method.sent_bytes,
            )
            for code, count in method.codes.items():
                stats.codes.add(code=code, count=count)
            _fill(stats.durations, method.durations)
        for reason, count in self._tally.errors.items():
            status.errors.add(reason=reason, count=count)
        for limit, count in self._tally.shed.items():
            status.shed.add(limit=limit, count=count)
        for kind in state_pb2.PipelineKind.values():
            if self._tally.operations[kind]:
                status.pipelines.operations.add(kind=kind, count=self._tally.operations[kind])
        _fill(status.pipelines.message_durations, self._tally.messages)

    def _fill_commits(self, stats: server_pb2.CommitStats, snapshot: Snapshot) -> None:
        stats.pending = snapshot.pending
        stats.pending_bytes = snapshot.pending_bytes
        stats.committed = self._tally.commits
        stats.conflicts = self._tally.conflicts
        stats.failed = self._tally.failures
        _fill(stats.group_sizes, self._tally.group_sizes)
        _fill(stats.group_durations, self._tally.group_seconds)

    def _fill_watches(self, stats: server_pb2.WatchStats, snapshot: Snapshot) -> None:
        stats.streams = sum(snapshot.streams_behind)
        stats.max_lag = snapshot.lag
        stats.lags.bounds.extend(BEHIND)
        stats.lags.counts.extend(snapshot.streams_behind)
        stats.lags.sum = snapshot.lag_sum

    def _fill_namespaces(self, status: server_pb2.ServerStatus, snapshot: Snapshot) -> None:
        for info in snapshot.namespaces:
            stats = status.namespaces.add(lease_count=info.lease_count, writes=self._tally.namespaces[info.name])
            wire.fill_namespace(stats.namespace, info)
        everything = snapshot.everything
        status.namespace_count = everything.namespaces
        status.total.key_count = everything.keys
        status.total.size_bytes = everything.size
        status.total.commit_count = everything.commits
        status.total.history_size_bytes = everything.history_size
        status.leases.live = everything.leases
        status.leases.expired = self._tally.leases_expired
        status.leases.keys_deleted = self._tally.lease_keys_deleted
        status.compaction.runs = self._tally.compactions
        status.compaction.seconds = self._tally.compaction_seconds
        status.compaction.failures = self._tally.compaction_failures
        status.compaction.revisions = self._tally.revisions_compacted

    def _fill_process(self, stats: server_pb2.ProcessStats) -> None:
        stats.pid = os.getpid()
        stats.cpu_seconds = time.process_time()
        stats.resident_bytes = _resident_bytes()
        _fill(stats.loop_delays, self._tally.loop_delays)


def _fill(message: server_pb2.Histogram, histogram: Histogram) -> None:
    message.bounds.extend(histogram.bounds)
    message.counts.extend(histogram.counts)
    message.sum = histogram.sum


def _resident_bytes() -> int:
    """Memory that this process has; 0: it cannot be said."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
