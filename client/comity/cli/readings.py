"""What two answers of a server, one after the other, say of its rates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comity.server_status import Histogram, ServerStatus

__all__ = ["Reading", "millis"]


@dataclass(frozen=True)
class Reading:
    """A server between two answers, or why it gave none. Without an earlier one rates are those since its start."""

    address: str
    error: str = ""  # why there is no answer
    now: "ServerStatus | None" = None
    before: "ServerStatus | None" = None

    @property
    def state(self) -> str:
        """SERVING, DRAINING, NOT_WRITABLE or UNAVAILABLE."""
        if self.now is None:
            return "UNAVAILABLE"
        if self.now.draining:
            return "DRAINING"
        return "SERVING" if self.now.writable else "NOT_WRITABLE"

    @property
    def trouble(self) -> str:
        """What is wrong; empty: nothing."""
        return self.error or ("" if self.now is None else self.now.trouble)

    @property
    def seconds(self) -> float:
        """Between the answers."""
        if self.now is None:
            return 0.0
        since = self.now.start_time if self.before is None else self.before.time
        return max(1e-3, (self.now.time - since).total_seconds())

    def object(self) -> dict[str, Any]:
        """For JSON."""
        said: dict[str, Any] = {"address": self.address, "state": self.state}
        if self.now is None:
            return said | {"error": self.error}
        now = self.now
        figures = self.figures()
        return (
            said
            | {"trouble": now.trouble, "version": now.version, "store": now.store, "worker": now.worker, "pid": now.pid}
            | {"uptime_seconds": round(now.uptime, 3), "seconds": round(self.seconds, 3)}
            | {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
            | {"errors": dict(now.errors), "methods": self.methods(), "namespaces": self.namespaces()}
        )

    def figures(self) -> dict[str, float | int | None]:
        """One number each."""
        assert self.now is not None
        now, before = self.now, self.before
        ended = {name: method.ended for name, method in now.methods.items()}
        was_ended = {} if before is None else {name: method.ended for name, method in before.methods.items()}
        groups = _since(now.group_sizes, before and before.group_sizes)
        messages = _since(now.message_durations, before and before.message_durations)
        commits = _since(now.group_durations, before and before.group_durations)
        delays = _since(now.loop_delays, before and before.loop_delays)
        return {
            "calls_per_second": self._rate(sum(ended.values()), sum(was_ended.values())),
            "operations_per_second": self._rate(
                sum(now.operations.values()), before and sum(before.operations.values())
            ),
            "commits_per_second": self._rate(now.committed, before and before.committed),
            "conflicts_per_second": self._rate(now.conflicts, before and before.conflicts),
            "errors_per_second": self._rate(sum(now.errors.values()), before and sum(before.errors.values())),
            "message_p50_ms": millis(messages.quantile(0.5)),
            "message_p99_ms": millis(messages.quantile(0.99)),
            "pending": now.pending,
            "group_size": groups.sum / groups.count if groups.count else None,
            "group_p99_ms": millis(commits.quantile(0.99)),
            "watch_streams": now.watch_streams,
            "watch_max_lag": now.watch_max_lag,
            "leases": now.leases,
            "leases_expired": now.leases_expired,
            "connections": now.connections,
            "namespace_count": now.namespace_count,
            "key_count": now.key_count,
            "size_bytes": now.size_bytes,
            "history_size_bytes": now.history_size_bytes,
            "cpu_percent": 100 * self._rate(now.cpu_seconds, before and before.cpu_seconds),
            "resident_bytes": now.resident_bytes,
            "loop_p99_ms": millis(delays.quantile(0.99)),
        }

    def methods(self) -> Sequence[Mapping[str, Any]]:
        """Those that have been called, the busiest first."""
        assert self.now is not None
        shown = []
        for name, method in self.now.methods.items():
            was = None if self.before is None else self.before.methods.get(name)
            durations = _since(method.durations, was and was.durations)
            shown.append(
                {
                    "method": name,
                    "calls_per_second": round(self._rate(method.ended, was and was.ended), 3),
                    "errors_per_second": round(self._rate(method.errors, was and was.errors), 3),
                    "open": method.open,
                    "received_per_second": round(
                        self._rate(method.received_messages, was and was.received_messages), 3
                    ),
                    "sent_per_second": round(self._rate(method.sent_messages, was and was.sent_messages), 3),
                    "p50_ms": millis(durations.quantile(0.5)),
                    "p99_ms": millis(durations.quantile(0.99)),
                }
            )
        return _busiest(shown, "calls_per_second", "received_per_second", "sent_per_second")

    def namespaces(self) -> Sequence[Mapping[str, Any]]:
        """The busiest first."""
        assert self.now is not None
        known = {} if self.before is None else {stats.namespace.name: stats for stats in self.before.namespaces}
        shown = []
        for stats in self.now.namespaces:
            was, found = known.get(stats.namespace.name), stats.namespace
            if was is None and self.before is not None:  # it has begun meanwhile, or is shown only now
                was = stats
            shown.append(
                {
                    "namespace": found.name,
                    "revision": found.revision,
                    "revisions_per_second": round(self._rate(found.revision, was and was.namespace.revision), 3),
                    "writes_per_second": round(self._rate(stats.writes, was and was.writes), 3),
                    "key_count": found.key_count,
                    "size_bytes": found.size_bytes,
                    "floor": found.floor,
                    "commit_count": found.commit_count,
                    "history_size_bytes": found.history_size_bytes,
                    "lease_count": stats.lease_count,
                }
            )
        return _busiest(shown, "writes_per_second", "revisions_per_second")

    def _rate(self, now: float, before: float | None) -> float:
        """How much more there is in a second."""
        return max(0.0, now - (before or 0)) / self.seconds


def millis(seconds: float | None) -> float | None:
    """The same in ms."""
    return None if seconds is None else round(seconds * 1000, 3)


def _since(now: "Histogram", before: "Histogram | None") -> "Histogram":
    return now if before is None else now.since(before)


def _busiest(shown: Iterable[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    return sorted(shown, key=lambda one: sum(one[name] for name in by), reverse=True)
