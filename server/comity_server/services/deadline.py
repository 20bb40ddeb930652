"""What has to be done by a time of the loop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

from comity_server.errors import DeadlinePassed

_NONE: Final = nullcontext()


def until(deadline: float | None) -> AbstractAsyncContextManager[None]:
    """Raises DeadlinePassed if the time of the loop is, or comes, past the deadline."""
    return _NONE if deadline is None else _bounded(deadline)


@asynccontextmanager
async def _bounded(deadline: float) -> AsyncGenerator[None]:
    if asyncio.get_running_loop().time() >= deadline:
        raise DeadlinePassed
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise DeadlinePassed from None
