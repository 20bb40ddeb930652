"""How a message of a pipeline is taken up that a rate holds back: its first operations as soon as they can be paid for.

So of a message that asks for more than there will be in its time, what there is time for is done.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from comity.v1 import state_pb2
from comity_server.access.bounds import Meter, operations

PORTION_SECONDS: Final = 0.1  # so much of a rate is paid for at a time


class Portion(NamedTuple):
    """Some operations of a message that follow each other."""

    operations: Sequence[state_pb2.PipelineOperation]
    cost: int
    """How many operations they are to a rate."""
    size: int
    """In bytes."""
    is_last: bool


def portions(request: state_pb2.PipelineRequest, size: int, meter: Meter, most: int) -> Iterator[Portion]:
    """A message of so many bytes in portions: in one, if all of it can be paid for now.

    most: of each list of a transaction.
    """
    cost = operations(request, most)
    if not meter.counts or meter.refusal(cost, size) is None:
        yield Portion(request.operations, cost, size, is_last=True)
        return
    most_cost, most_bytes = (PORTION_SECONDS * each for each in meter.per_second())
    taken: list[state_pb2.PipelineOperation] = []
    cost = taken_bytes = 0
    left = size
    for operation in request.operations:
        inside = operations(operation.transact, most) if operation.kind == state_pb2.PIPELINE_KIND_TRANSACT else 1
        bytes_inside = operation.ByteSize()
        if taken and (cost + inside > most_cost or taken_bytes + bytes_inside > most_bytes):
            yield Portion(taken, cost, taken_bytes, is_last=False)
            left = max(left - taken_bytes, 0)
            taken, cost, taken_bytes = [], 0, 0
        taken.append(operation)
        cost += inside
        taken_bytes += bytes_inside
    yield Portion(taken, max(cost, 1), left, is_last=True)
