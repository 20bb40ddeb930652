"""What comes of the inputs of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from comity.errors import ComityError
from comity.model import Entry

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
    def of(cls, index: int, entry: Entry) -> "Outcome":
        """What the store has of it. What is no outcome is one that failed, with the reason UNREADABLE."""
        try:
            record = entry.value
            error = record.get("error")
            failed = None if error is None else ItemFailed(str(error["message"]), reason=str(error["type"]))
            return cls(index, record.get("value"), failed, int(record.get("attempts", 0)), str(record.get("by", "")))
        except (AttributeError, LookupError, TypeError, ValueError):
            failed = ItemFailed(f"the value of {entry.key!r} is no outcome of a map", reason="UNREADABLE")
            return cls(index, None, failed, 0, "")


class MapError(ComityError):
    """Some items of a map failed. `results` are the outcomes of all, in the order of the inputs."""

    default_code = grpc.StatusCode.ABORTED

    def __init__(self, message: str = "", *, results: Sequence[Outcome] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)
