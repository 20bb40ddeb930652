"""The process of an agent: forked from one that has imported what each needs, where that can be done.

Then a start takes a tenth of what it takes from nothing, and what was imported is in memory once.
"""

import atexit
import contextlib
import logging
import os
import signal
import sys
from multiprocessing import AuthenticationError
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

from .identity import identity

__all__ = ["AgentProcess"]

log = logging.getLogger("comity.agents")

# Before 3.11.1 a forkserver could be asked by every user of the machine (CVE-2022-42919).
CAN_FORK = sys.platform == "linux" and sys.version_info >= (3, 11, 1) and not getattr(sys, "frozen", False)

if CAN_FORK:
    try:
        from . import forkservers
    except (ImportError, AttributeError):  # what it uses of Python is private, and may go
        CAN_FORK = False

UNKNOWN = forkservers.UNKNOWN if CAN_FORK else None  # an exit code

_told = False  # that forking failed


class AgentProcess(SpawnProcess):
    """A process that may be left behind: at its end, Python joins those that it has started. It is forked where it can
    be, or else begins anew."""

    left = False
    identity = ""  # once it has started, where that can be told

    def start(self) -> None:
        super().start()
        self.identity = identity(self.pid or 0)

    def join(self, timeout: float | None = None) -> None:
        if not self.left:
            super().join(timeout)

    @property
    def exitcode(self) -> int | None:
        """None: it has not ended, or its code is not known."""
        code = super().exitcode
        return None if code == UNKNOWN else code

    def end(self) -> None:
        """Have it end if it has not: when that from which it was forked has ended, nobody sees what becomes of it."""
        if not self.left and self.identity and identity(self.pid or 0) == self.identity:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or 0, signal.SIGKILL)

    def _bootstrap(self, *arguments: Any, **named: Any) -> int:
        code: int = super()._bootstrap(*arguments, **named)  # type: ignore[misc]
        if CAN_FORK and forkservers.is_forked:  # such a process ends without the end of the interpreter
            atexit._run_exitfuncs()
            for file in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    file.flush()
        return code

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802 - as multiprocessing calls it
        if not CAN_FORK:
            return SpawnProcess._Popen(process_obj)
        try:
            if (forked := forkservers.fork(process_obj)) is not None:
                return forked
        except (OSError, EOFError, AuthenticationError, AttributeError, TypeError, ValueError) as error:
            spawned = SpawnProcess._Popen(process_obj)  # raises the same where the process itself is to blame
            _tell(error)
            return spawned
        return SpawnProcess._Popen(process_obj)


def _tell(error: Exception) -> None:
    """Forking failed, of what can be spawned. Said once; and not tried again with a Python that is another."""
    global CAN_FORK, _told
    if isinstance(error, (AttributeError, TypeError)):
        CAN_FORK = False
    if not _told:
        _told = True
        log.warning("an agent could not be forked, and was spawned, which takes longer: %r", error)
