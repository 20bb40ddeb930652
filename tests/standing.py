"""Where each task of an event loop waits, for a test that finds some of them standing still."""

import asyncio
from collections.abc import Iterator
from typing import Any


def where_tasks_wait() -> str:
    """The tasks of this event loop, each with what it awaits, the innermost last."""
    return "\n".join(line for task in asyncio.all_tasks() for line in (task.get_name(), *_awaited(task.get_coro())))


def _awaited(awaitable: Any) -> Iterator[str]:
    while awaitable is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaitable, f"{kind}_frame")), None)
        frame = getattr(awaitable, f"{kind}_frame", None)
        if frame is None:
            yield f"    {awaitable!r}"
            return
        yield f"    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
