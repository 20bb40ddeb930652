"""The errors that operations of a pipeline are answered with: each is counted, and where calls that fail have a line of
the log, they have them too, one for all of a message that fail alike. To the log the pipeline itself did not fail."""

from collections import Counter
from typing import Final

from comity.v1 import state_pb2
from comity_server.errors import StateError
from comity_server.services import status
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import Trail

NAMES: Final = {number: name.removeprefix("PIPELINE_KIND_") for name, number in state_pb2.PipelineKind.items()}


class Failures:
    """Those of one stream.

    Args:
        tally: where they are counted.
        trail: that of the stream's call, which has the lines; None: there are none.
    """

    def __init__(self, tally: Tally, trail: Trail | None) -> None:
        self._tally = tally
        self._trail = trail if trail is not None and trail.logs_failures else None
        self._unlogged: Counter[tuple[str, str, str]] = Counter()

    def add(self, kind: int, error: StateError) -> None:
        """An operation of a kind, 0 if that is unknown, is answered with an error."""
        self._tally.failed(error.reason, status.limit(error))
        if self._trail is not None:
            self._unlogged[NAMES.get(kind, NAMES[0]), status.code(error).name, error.reason] += 1

    def log(self) -> None:
        """Write the lines of what was added: one for each kind, code and reason, of which there are few."""
        if self._trail is None or not self._unlogged:
            return
        for (kind, code, reason), count in self._unlogged.items():
            self._trail.log_operation(kind, code, reason, count)
        self._unlogged.clear()
