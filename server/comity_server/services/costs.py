"""What requests are to a rate: how many operations."""

from math import inf
from typing import Any

from comity.v1 import state_pb2


def operations(request: Any, most: float = inf) -> int:
    """How many operations a request is: a transaction as many as it has conditions and operations, and another one.

    A transaction with more than `most` of either is refused for that, and costs no more than what is refused otherwise.
    """
    if isinstance(request, state_pb2.TransactRequest):
        counts = len(request.conditions), len(request.then), len(request.otherwise)
        return 1 if max(counts) > most else max(sum(counts), 1)
    if isinstance(request, state_pb2.PipelineRequest):
        count = sum(
            operations(each.transact, most) if each.kind == state_pb2.PIPELINE_KIND_TRANSACT else 1
            for each in request.operations
        )
        return max(count, 1)
    return 1
