"""What a run of a workflow keeps in the store: keys, and the records that they hold.

docs/workflows.md says it for other languages.
"""

from __future__ import annotations

from typing import Any

from comity.agents import layout
from comity.agents.text import storable, text_of
from comity.client import Client
from comity.errors import DecodeError
from comity.leases.living import Living
from comity.model import Commit, Entry, Resync

from .errors import StepFailure

__all__ = ["ROOT", "Layout", "Progress", "failure_of", "failure_record", "item_place"]

ROOT = "workflows/"
MESSAGE_CHARACTERS = 1_000


def item_place(step: str, index: int) -> str:
    """Where an item of an `each` stands among the places of steps."""
    return f"{step}/{index:06}"


class Layout:
    """The keys of one run. A place is a step's name, or that of an item of it."""

    def __init__(self, workflow: str, run_id: str) -> None:
        self.workflow = workflow
        self.run_id = layout.check_name("run_id", run_id)
        self.sender = f"workflow:{workflow}:{run_id}:"  # of handoffs; the place follows
        self.handoffs = layout.handoffs(self.sender).removesuffix("/")
        self.prefix = f"{ROOT}{workflow}/{run_id}/"
        self.run = f"{self.prefix}run"
        self.holder = f"{self.prefix}holder"
        self.attempts = f"{self.prefix}attempts/"
        self.outcomes = f"{self.prefix}outcomes/"
        self.decisions = f"{self.prefix}decisions/"
        self.items = f"{self.prefix}items/"
        self.state = f"{self.prefix}state/"

    @property
    def metadata(self) -> dict[str, str]:
        """What errors say of it."""
        return {"workflow": self.workflow, "run_id": self.run_id}

    def is_record(self, key: str) -> bool:
        """Whether the key holds a record of the run's progress."""
        return key in (self.run, self.holder) or key.startswith(
            (self.attempts, self.outcomes, self.decisions, self.items)
        )

    def __str__(self) -> str:
        return f"run {self.run_id!r} of workflow {self.workflow!r}"


class Progress:
    """What is known of a run: all of its entries but its own state, and what they hold."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.revision = 0  # that it shows
        self.holder: Entry | None = None  # that of whoever holds the run, as of the last `look`
        self._living: Living | None = None
        self._found: dict[str, tuple[Entry, dict[str, Any]]] = {}

    @classmethod
    async def read(cls, client: Client, layout: Layout) -> Progress:
        """What the store has now."""
        progress = cls(layout)
        listing = client.list(layout.prefix)
        async for entry in listing:
            if entry.key.startswith(layout.state):  # the last of its keys
                break
            progress._add(entry)
        progress.revision = listing.revision
        await progress.look(client)
        return progress

    async def look(self, client: Client, *, anew: bool = True) -> None:
        """Find out whether somebody holds the run. What a restore, a merge or a fork has left of a runner is nobody.

        anew: as of `Living.among`.
        """
        self._living = self._living or Living(client)
        entry = self.entry(self.layout.holder)
        found = [] if entry is None else await self._living.among([entry], anew=anew)
        self.holder = found[0] if found else None

    def apply(self, change: Commit | Resync) -> bool:
        """Take in what a watch of the run's prefix has seen. Returns whether that is news."""
        self.revision = change.revision
        if isinstance(change, Resync):
            self._found.clear()
            for entry in change.entries:
                self._add(entry)
            return True
        news = [event for event in change.events if self.layout.is_record(event.key)]
        for event in news:
            if event.is_put:
                self._add(event.entry)
            else:
                self._found.pop(event.key, None)
        return bool(news)

    def entry(self, key: str) -> Entry | None:
        """The entry of a key, if there is one."""
        found = self._found.get(key)
        return None if found is None else found[0]

    def record(self, key: str) -> dict[str, Any]:
        """The record of a key; empty if there is none."""
        found = self._found.get(key)
        return {} if found is None else found[1]

    def count(self, place: str) -> int:
        """How many attempts there were at a place, also of runners that were killed."""
        return int(self.record(self.layout.attempts + place).get("attempt", 0))

    def is_done(self, place: str) -> bool:
        """Whether what stands at a place is done, and so has a result."""
        return self.record(self.layout.outcomes + place).get("state") == "done"

    def result(self, place: str) -> Any:
        """The result at a place that is done."""
        return self.record(self.layout.outcomes + place).get("result")

    def items(self, step: str) -> list[Any] | None:
        """The items of an `each`, if they are known."""
        items = self.record(self.layout.items + step).get("items")
        return items if isinstance(items, list) else None

    def taken(self, name: str) -> bool | None:
        """How a `when` was decided, if it was."""
        taken = self.record(self.layout.decisions + name).get("taken")
        return taken if isinstance(taken, bool) else None

    def skipped(self) -> set[str]:
        """The steps that are left out, by what was decided."""
        return {
            str(name)
            for key, (_, record) in self._found.items()
            if key.startswith(self.layout.decisions)
            for name in record.get("skipped", ())
        }

    def _add(self, entry: Entry) -> None:
        if not self.layout.is_record(entry.key):
            return
        record = entry.value
        if not isinstance(record, dict):
            raise DecodeError(f"the value of {entry.key!r} is no record of a workflow", metadata={"key": entry.key})
        self._found[entry.key] = entry, record


def failure_of(error: BaseException) -> StepFailure:
    """What is kept of an exception: its text and its notes."""
    message = storable("; ".join([text_of(error), *map(str, getattr(error, "__notes__", ()))]))
    if len(message) > MESSAGE_CHARACTERS:
        message = message[: MESSAGE_CHARACTERS - 1] + "…"
    return StepFailure(type(error).__name__, message)


def failure_record(failure: StepFailure) -> dict[str, str]:
    return {"type": failure.type, "message": failure.message}
