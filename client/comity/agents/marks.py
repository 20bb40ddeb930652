"""The checkpoints of an agent: names for revisions, by which its private state can be returned to."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

from comity.client import Client
from comity.errors import NotFound
from comity.leases.lease import Lease
from comity.model import Checkpoint, RestoreResult

from . import layout

__all__ = ["Marks"]

AGENT: Final = "agent"  # the label that says whose a checkpoint is
LABEL: Final = "label"  # the label that has what the agent called it


class Marks:
    """The checkpoints of one agent.

    keep: how many of them are kept; with each further one the oldest is deleted.
    """

    def __init__(self, state: Client, name: str, prefix: str, keep: int, lease: Callable[[], Lease]) -> None:
        self._state = state
        self._name = name
        self._prefix = prefix
        self._keep = keep
        self._lease = lease

    async def make(self, label: str, message: str) -> Checkpoint:
        """Name the newest revision. The same label may be given again."""
        layout.check_name("the label", label)
        made = await self._state.checkpoint(
            f"{self._name}.{label}"[:110] + f".{uuid.uuid4().hex[:12]}",
            labels={AGENT: self._name, LABEL: label},
            message=message,
            guard=self._lease(),
        )
        marks = [mark async for mark in self.all()]
        for mark in sorted(marks, key=_age)[: -self._keep]:
            with contextlib.suppress(NotFound):  # somebody else tidies up too
                await self._state.delete_checkpoint(mark.name)
        return made

    async def all(self, label: str | None = None) -> AsyncIterator[Checkpoint]:
        """Its checkpoints, of all labels or of one, in no order."""
        labels = {AGENT: self._name} if label is None else {AGENT: self._name, LABEL: label}
        async for mark in self._state.checkpoints(labels):
            yield mark

    async def last(self, label: str | None = None) -> Checkpoint | None:
        """The newest one, of all or of a label; None if there is none."""
        return max([mark async for mark in self.all(label)], key=_age, default=None)

    async def restore(self, ref: Checkpoint | int | str | None, message: str) -> RestoreResult:
        """Make the private state what it was. `Agent.restore` says the rest."""
        found: Checkpoint | int | None
        if ref is None or isinstance(ref, str):
            found = await self.last(ref)
            if found is None:
                which = "" if ref is None else f" with the label {ref!r}"
                raise NotFound(f"{self._name} has no checkpoint{which}", metadata={"agent": self._name})
        else:
            found = ref
        return await self._state.restore(found, self._prefix, message=message, guard=self._lease())


def _age(mark: Checkpoint) -> tuple[int, float]:
    return mark.revision, mark.create_time.timestamp()
