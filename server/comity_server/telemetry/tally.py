"""What a server has done since it began, as plain numbers.

Each number is added to where the thing happens, from the event loop alone, and may be read from any thread. It costs a
tenth of a microsecond, where the SDK of OpenTelemetry takes five: so this is what is always there, for `GetStatus`, and
only where somebody exports metrics are measurements of calls, messages and groups passed on to the SDK as well.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
NAMESPACES: Final = 100  # that are counted by their names; what is of others is of OTHER
OTHER: Final = "other"


class Histogram:
    """How often a measurement was at most each of some bounds (and above the one before).

    Args:
        bounds: in rising order. There is one count more, of what is above the last.
    """

    __slots__ = ("bounds", "counts", "passed_on", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.passed_on: Callable[[float], None] | None = None  # told each measurement, if somebody exports them

    def add(self, measured: float) -> None:
        self.counts[bisect_left(self.bounds, measured)] += 1
        self.sum += measured
        if self.passed_on is not None:
            self.passed_on(measured)


class Method:
    """The calls of one method, given its full name in the contract: `comity.v1.StateService.Get`."""

    __slots__ = (
        "codes",
        "durations",
        "full_name",
        "open",
        "passed_on",
        "received_bytes",
        "received_messages",
        "sent_bytes",
        "sent_messages",
    )

    def __init__(self, full_name: str) -> None:
        service, _, method = full_name.rpartition(".")
        self.full_name = f"{service}/{method}"
        self.open = 0
        self.codes: Counter[str] = Counter()  # of those that ended
        self.durations = Histogram(SECONDS)
        self.received_messages = 0
        self.received_bytes = 0
        self.sent_messages = 0
        self.sent_bytes = 0
        self.passed_on: Callable[[str, float], None] | None = None

    def ended(self, code: str, seconds: float) -> None:
        """A call has ended with a status, so many seconds after it began."""
        self.codes[code] += 1
        self.durations.add(seconds)
        if self.passed_on is not None:
            self.passed_on(code, seconds)


class Tally:
    """All numbers of a server."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.errors: Counter[str] = Counter()  # by reason, of calls and of pipelined operations

        self.shed: Counter[str] = Counter()  # of them, what was too much, by the name of the setting that bounds it

        self.operations = [0] * 16  # of pipelines, by their PipelineKind
        self.messages = Histogram(SECONDS)  # of pipelines: from when one is read until its last answer is off

        self.group_sizes = Histogram(SIZES)  # writes of a group
        self.group_seconds = Histogram(SECONDS)  # that the store had it
        self.commits = 0
        self.conflicts = 0  # writes whose conditions did not hold
        self.failures = 0  # writes that ended with another error
        self.namespaces: Counter[str] = Counter()  # writes of each that the committer was given

        self.leases_expired = 0
        self.lease_keys_deleted = 0

        self.loop_delays = Histogram(SECONDS)  # by how much the event loop was late, which all calls wait for then

        self.compactions = 0  # of all namespaces
        self.compaction_failures = 0
        self.compaction_seconds = 0.0
        self.revisions_compacted = 0  # by which floors were raised

    def failed(self, reason: str, limit: str | None) -> None:
        """A call, or an operation of a pipeline, was answered with an error; with the setting that it was too much for,
        if that is why."""
        self.errors[reason] += 1
        if limit is not None:
            self.shed[limit] += 1

    def method(self, full_name: str) -> Method:
        """The numbers of a method, from 0 where there are none. Only what is registered is asked for."""
        found = self.methods.get(full_name)
        if found is None:
            found = self.methods[full_name] = Method(full_name)
        return found

    def called(self) -> Sequence[Method]:
        """The methods that have been called."""
        return [method for method in self.methods.values() if method.open or method.codes]

    def wrote(self, namespace: str, writes: int, seconds: float, commits: int, conflicts: int) -> None:
        """The store has answered for a group of writes."""
        self.group_sizes.add(writes)
        self.group_seconds.add(seconds)
        self.commits += commits
        self.conflicts += conflicts
        self.failures += writes - commits - conflicts
        if commits or namespace in self.namespaces:  # else there need not be such a namespace
            known = namespace in self.namespaces or len(self.namespaces.keys() - {OTHER}) < NAMESPACES
            self.namespaces[namespace if known else OTHER] += writes

    def forget(self, existing: Mapping[str, object]) -> None:
        """Of names that are no namespaces any more make room for others."""
        for name in self.namespaces.keys() - existing.keys() - {OTHER}:
            del self.namespaces[name]
