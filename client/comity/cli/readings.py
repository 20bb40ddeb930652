"""What two answers of a server, one after the other, say of its rates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from comity.server_status import Histogram, ServerStatus

__all__ = ["Reading", "millis"]

T = TypeVar("T")


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
            | {"errors": dict(now.errors), "shed": dict(now.shed)}
            | {"methods": self.methods(), "namespaces": self.namespaces()}
        )

    def figures(self) -> dict[str, float | int | None]:
        """One number each."""
        assert self.now is not None
        now, before = self.now, self.before
        groups = _since(lambda status: status.group_sizes, now, before)
        group_durations = _since(lambda status: status.group_durations, now, before)
        messages = _since(lambda status: status.message_durations, now, before)
        delays = _since(lambda status: status.loop_delays, now, before)
        return {
            "calls_per_second": self._rate(_calls, now, before),
            "operations_per_second": self._rate(lambda status: status.done, now, before),
            "commits_per_second": self._rate(lambda status: status.committed, now, before),
            "conflicts_per_second": self._rate(lambda status: status.conflicts, now, before),
            "errors_per_second": self._rate(lambda status: sum(status.errors.values()), now, before),
            "message_p50_ms": millis(messages.quantile(0.5)),
            "message_p99_ms": millis(messages.quantile(0.99)),
            "pending": now.pending,
            "group_size": groups.sum / groups.count if groups.count else None,
            "group_p99_ms": millis(group_durations.quantile(0.99)),
            "watch_streams": now.watch_streams,
            "watch_max_lag": now.watch_max_lag,
            "leases": now.leases,
            "leases_expired": now.leases_expired,
            "connections": now.connections,
            "namespace_count": now.namespace_count,
            "key_count": now.key_count,
            "size_bytes": now.size_bytes,
            "history_size_bytes": now.history_size_bytes,
            "cpu_percent": 100 * self._rate(lambda status: status.cpu_seconds, now, before),
            "resident_bytes": now.resident_bytes,
            "loop_p99_ms": millis(delays.quantile(0.99)),
        }

    def methods(self) -> Sequence[Mapping[str, Any]]:
        """Those that have been called, the busiest first."""
        assert self.now is not None
        known = {} if self.before is None else self.before.methods
        shown = []
        for name, method in self.now.methods.items():
            was = known.get(name)
            durations = _since(lambda stats: stats.durations, method, was)
            shown.append(
                {
                    "method": name,
                    "calls_per_second": self._rate(lambda stats: stats.ended, method, was),
                    "errors_per_second": self._rate(lambda stats: stats.errors, method, was),
                    "open": method.open,
                    "received_per_second": self._rate(lambda stats: stats.received_messages, method, was),
                    "sent_per_second": self._rate(lambda stats: stats.sent_messages, method, was),
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
                    "revisions_per_second": self._rate(lambda stats: stats.namespace.revision, stats, was),
                    "writes_per_second": self._rate(lambda stats: stats.writes, stats, was),
                    "key_count": found.key_count,
                    "size_bytes": found.size_bytes,
                    "floor": found.floor,
                    "commit_count": found.commit_count,
                    "history_size_bytes": found.history_size_bytes,
                    "lease_count": stats.lease_count,
                }
            )
        return _busiest(shown, "writes_per_second", "revisions_per_second")

    def _rate(self, of: Callable[[T], float], now: T, before: T | None) -> float:
        """How much more there is of something in a second."""
        return round(max(0.0, of(now) - (0 if before is None else of(before))) / self.seconds, 3)


def millis(seconds: float | None) -> float | None:
    """The same in ms."""
    return None if seconds is None else round(seconds * 1000, 3)


def _calls(status: "ServerStatus") -> int:
    return sum(method.ended for method in status.methods.values())


def _since(of: "Callable[[T], Histogram]", now: T, before: T | None) -> "Histogram":
    return of(now) if before is None else of(now).since(of(before))


def _busiest(shown: Iterable[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    return sorted(shown, key=lambda one: sum(one[name] for name in by), reverse=True)
