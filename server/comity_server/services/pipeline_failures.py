"""The errors that operations of a pipeline are answered with: each is counted, and where calls that fail have a line of
the log, it has one too. To the log the pipeline itself did not fail."""

import asyncio
from typing import Final

from comity.v1 import state_pb2
from comity_server.errors import StateError
from comity_server.services import status
from comity_server.telemetry.tally import Tally
from comity_server.telemetry.trail import Trail

TOGETHER: Final = 40  # lines that are written in one go: about 3 ms
NAMES: Final = {number: name.removeprefix("PIPELINE_KIND_") for name, number in state_pb2.PipelineKind.items()}


class Failures:
    """Those of one stream.

    Args:
        tally: where they are counted.
        trail: that of the stream's call, which has the lines; None: there are none.
    """

    def __init__(self, tally: Tally, trail: Trail | None) -> None:
        self._errors = tally.errors
        self._trail = trail if trail is not None and trail.logs_failures else None
        self._unlogged: list[tuple[int, StateError]] = []

    def add(self, kind: int, error: StateError) -> None:
        """An operation of a kind, 0 if that is unknown, is answered with an error."""
        self._errors[error.reason] += 1
        if self._trail is not None:
            self._unlogged.append((kind, error))

    async def log(self) -> None:
        """Write the lines of what was added."""
        if self._trail is None or not self._unlogged:
            return
        failures, self._unlogged = self._unlogged, []
        for count, (kind, error) in enumerate(failures, 1):
            self._trail.log_operation(NAMES.get(kind, NAMES[0]), status.code(error).name, error.reason)
            if count % TOGETHER == 0:
                await asyncio.sleep(0)  # many must not hold up others
