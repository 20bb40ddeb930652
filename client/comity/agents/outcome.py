"""What comes of the inputs of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from comity.errors import ComityError

from .errors import ItemFailed

__all__ = ["MapError", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one input."""

    index: int  # its place among the inputs, from 0
    value: Any  # what the function returned; None if it failed
    error: ItemFailed | None
    attempts: int  # how often it was tried
    by: str  # the agent that did it last; empty: not known

    def result(self) -> Any:
        """The value. Raises the error if it failed."""
        if self.error is not None:
            raise self.error
        return self.value

    @classmethod
    def of(cls, index: int, record: dict[str, Any]) -> "Outcome":
        error = record.get("error")
        failed = None if error is None else ItemFailed(error["message"], reason=error["type"])
        return cls(index, record.get("value"), failed, int(record.get("attempts", 0)), str(record.get("by", "")))


class MapError(ComityError):
    """Some items of a map failed. `results` are the outcomes of all, in the order of the inputs."""

    default_code = grpc.StatusCode.ABORTED

    def __init__(self, message: str = "", *, results: Sequence[Outcome] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)
