"""The instruments of OpenTelemetry that the metrics are read by, or passed on to."""

from collections.abc import Callable, Iterable
from functools import partial

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from comity_server.observing.metrics import CODE, MEASURED, METHOD, OBSERVED, SYSTEM, Observed
from comity_server.observing.snapshot import Snapshot
from comity_server.telemetry.tally import Tally


class _Collecting:
    """What one collection is told: one look, however many instruments ask. An instrument that asks again is part of the
    next collection. The SDK lets one thread collect at a time."""

    def __init__(self, look: Callable[[], Snapshot]) -> None:
        self._look = look
        self._asked: set[str] = set()
        self._snapshot: Snapshot | None = None

    def snapshot(self, instrument: str) -> Snapshot:
        """What this instrument is to go by."""
        if self._snapshot is None or instrument in self._asked:
            self._asked.clear()
            self._snapshot = self._look()
        self._asked.add(instrument)
        return self._snapshot


def _record(instrument: Histogram, method: str, code: str, seconds: float) -> None:
    """A call has ended."""
    instrument.record(seconds, {**SYSTEM, METHOD: method, CODE: code})


def _observe(observed: Observed, tally: Tally, collecting: _Collecting, _: CallbackOptions) -> Iterable[Observation]:
    snapshot = collecting.snapshot(observed.name)
    return [Observation(value, attributes) for value, attributes in observed.read(tally, snapshot)]


def register(meter: Meter, tally: Tally, look: Callable[[], Snapshot], *, named: bool = True) -> None:
    """Make the instruments. `look` is called from any thread, once for each collection. Unless `named`, all namespaces
    are "other" together."""
    if not named:
        look = partial(_unnamed, look)
    for measured in MEASURED:
        instrument = meter.create_histogram(
            measured.name, measured.unit, measured.description, explicit_bucket_boundaries_advisory=measured.bounds
        )
        if measured.of is not None:
            measured.of(tally).passed_on = instrument.record
            continue
        for method in tally.methods.values():
            method.passed_on = partial(_record, instrument, method.full_name)
    collecting = _Collecting(look)
    for observed in OBSERVED:
        create = meter.create_observable_counter if observed.kind == "counter" else meter.create_observable_gauge
        create(observed.name, [partial(_observe, observed, tally, collecting)], observed.unit, observed.description)


def _unnamed(look: Callable[[], Snapshot]) -> Snapshot:
    snapshot = look()
    return snapshot._replace(named=False, namespaces=(), others=snapshot.everything)
