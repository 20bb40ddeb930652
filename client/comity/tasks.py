"""What a task knows of its own cancellation."""

import asyncio

__all__ = ["is_task_cancelled"]


def is_task_cancelled() -> bool:
    """Whether a CancelledError is for the running task. Else its call was cancelled, as the end of a channel does."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
