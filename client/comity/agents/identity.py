"""Telling a process from a later one that was given its number."""

from pathlib import Path

__all__ = ["identity"]

STARTED = 19  # its place in /proc/PID/stat, counted from the one after the name


def identity(pid: int) -> str:
    """What no other process of this machine is given: empty where that cannot be told (on Linux only it can), or where
    there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")  # a name is cut anywhere
    except OSError:
        return ""
    return f"{boot}/{pid}/{stat.rpartition(')')[2].split()[STARTED]}"
