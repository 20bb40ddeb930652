"""What runs in a child, and the program of one that is a process of its own."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Concatenate

from comity.access import Access
from comity.client import Client
from comity.connecting import connect_by
from comity.errors import DeadlineExceeded, LeaseLost, RateLimited, Unavailable

from .agent import Agent
from .interrupts import ignore_interrupts
from .text import described

__all__ = ["BEGUN", "Ended", "Start", "Work", "run_agent", "run_process"]

BEGUN = "begun"  # what a process says first

log = logging.getLogger("comity.agents")

Work = Callable[Concatenate[Agent, ...], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Start:
    """What is started: an agent, and the function that it runs."""

    name: str
    role: str
    ttl: float
    supervisor: str
    run: str  # another one each time
    wait: float  # seconds to wait for a former agent of the name to be gone
    restore: bool  # to its last checkpoint, if there is one
    function: Work
    args: tuple[Any, ...] = ()
    access: Access | None = None  # of a process; a token in it goes there by the pickle of this alone
    namespace: str = ""
    author: str = ""  # of whoever starts it
    timeout: float = 10.0
    tries: int = 5
    checkpoints: int = 10


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process says of its end."""

    why: str  # empty: its function returned


async def run_agent(state: Client, start: Start) -> None:
    """Be the agent, and run its function."""
    agent = Agent(
        state,
        start.name,
        role=start.role,
        ttl=start.ttl,
        wait=start.wait,
        tries=start.tries,
        checkpoints=start.checkpoints,
        supervisor=start.supervisor,
        run=start.run,
    )
    async with agent:
        if start.restore and await agent.last_checkpoint() is not None:
            await agent.restore()
        await start.function(agent, *start.args)


def run_process(start: Start, tell: Connection) -> None:
    """The whole life of a process. SIGTERM cancels the function; Ctrl-C is for the supervisor, which then ends this."""
    ignore_interrupts()
    with contextlib.suppress(OSError):  # the supervisor is gone
        tell.send(BEGUN)
    why = ""
    try:
        asyncio.run(_main(start))
    except asyncio.CancelledError:
        why = "cancelled"
    except (LeaseLost, Unavailable, DeadlineExceeded, RateLimited) as error:  # wherever in the program it was
        why = described(error)
        log.warning("agent %s failed: %s", start.name, why)
    except BaseException as error:
        why = described(error)
        log.exception("agent %s failed", start.name)
    with contextlib.suppress(OSError):  # the supervisor is gone
        tell.send(Ended(why))
    if why:
        sys.exit(1)


async def _main(start: Start) -> None:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # not on Windows, where terminating is killing
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    assert start.access is not None
    async with connect_by(start.access, namespace=start.namespace, author=start.author, timeout=start.timeout) as state:
        await run_agent(state, start)
