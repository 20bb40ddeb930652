"""Signs of life of a stream that is quiet: its client takes one that says nothing for dead."""

import random
from typing import Final

from comity.v1 import state_pb2
from comity_server.access.bounds import Meter

PER_SECOND: Final = 2000  # of the streams of one principal: each takes some 100 µs, and costs it nothing
SPREAD: Final = 0.1  # of the interval: streams that one commit woke do not all say how far they are at once


class Pulse:
    """Says how far a stream is as often as is asked for, unless its principal has so many that they would leave nothing
    for others; but never less often than is usual for that alone. What it says tells when the next comes, if that is
    later than was asked for.

    Args:
        asked: seconds between two signs that its client asked for.
        usual: those that it is given if it asks for none.
        meter: of its call.
    """

    def __init__(self, asked: float, usual: float, meter: Meter) -> None:
        self.quiet = asked
        """Seconds after what was said last in which something is to be said again."""
        self._asked = asked
        self._usual = usual
        self._meter = meter

    def say(self, revision: int) -> state_pb2.WatchResponse:
        """A message that has no commits."""
        interval = max(self._asked, min(self._usual, self._meter.open / PER_SECOND))
        self.quiet = interval * (1 - SPREAD * random.random())
        message = state_pb2.WatchResponse(revision=revision)
        if interval > self._asked:
            message.progress_interval.FromMicroseconds(int(interval * 1e6))
        return message

    def say_for_nothing(self, revision: int) -> bytes:
        """The same, serialised, of a stream that waits until nothing is owed."""
        message = self.say(revision).SerializeToString()
        self._meter.waive(len(message))
        return message
