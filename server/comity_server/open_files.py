"""How many files this process may have open, as the system counts them: each connection is one."""

import sys
from typing import Final

import structlog

if sys.platform != "win32":
    import resource

log = structlog.get_logger(__name__)

OTHERS: Final = 200  # what is open beside connections: the store's files or sockets, the log, the event loop's own


def allow(connections: int) -> None:
    """Have so many connections be possible, as far as this process may. If it may not, say so in the log: those that
    come beyond wait in the system until others end."""
    if sys.platform == "win32":  # which has no such limit
        return
    needed = connections + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # the system has a bound of its own
        most = soft
    if most < needed:
        log.warning("fewer files may be open than connections are allowed", open_files=most, needed=needed)
