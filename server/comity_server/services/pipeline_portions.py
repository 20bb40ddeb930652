"""How a message of a pipeline is taken up that a rate holds back: its first operations as soon as they can be paid for.

So of a message that asks for more than there will be in its time, what there is time for is done.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from comity.v1 import state_pb2
from comity_server.access.bounds import Meter
from comity_server.errors import RateLimited
from comity_server.services.costs import operations

PORTION_SECONDS: Final = 0.1  # so much of a rate is paid for at a time


class Portion(NamedTuple):
    """Some operations of a message that follow each other."""

    operations: Sequence[state_pb2.PipelineOperation]
    cost: int
    """How many operations they are to a rate."""
    size: int
    """In bytes."""
    refusal: RateLimited | None = None
    """Why they cannot be paid for now, with those before them, and in how long; None: they can."""


def portions(request: state_pb2.PipelineRequest, size: int, meter: Meter, most: int) -> Sequence[Portion]:
    """A message of so many bytes in portions: in one, if all of it can be paid for now.

    most: of each list of a transaction.
    """
    if not meter.counts:  # then nothing is paid, and what it would cost need not be counted
        return [Portion(request.operations, 0, size)]
    cost = operations(request, most)
    refusal = meter.refusal(cost, size)
    if refusal is None or len(request.operations) <= 1:
        return [Portion(request.operations, cost, size, refusal)]
    most_cost, most_bytes = (PORTION_SECONDS * each for each in meter.per_second())
    found: list[Portion] = []
    taken: list[state_pb2.PipelineOperation] = []
    total = total_size = cost = taken_size = 0

    def end() -> None:
        found.append(Portion(taken, cost, taken_size, meter.refusal(total, total_size)))

    for operation in request.operations:
        inside = operations(operation.transact, most) if operation.kind == state_pb2.PIPELINE_KIND_TRANSACT else 1
        size_inside = operation.ByteSize()
        if taken and (cost + inside > most_cost or taken_size + size_inside > most_bytes):
            end()
            taken, cost, taken_size = [], 0, 0
        taken.append(operation)
        cost += inside
        taken_size += size_inside
        total += inside
        total_size += size_inside
    end()
    return found
