"""What Linux tells of a process: which one it is, unlike a later one of the same number, and whether it has ended."""

from pathlib import Path

__all__ = ["has_ended", "identity"]

STATE, STARTED = 0, 19  # their places in /proc/PID/stat, counted from the one after the name


def identity(pid: int) -> str:
    """What no other process of this machine is given: empty where that cannot be told (on Linux only it can), or where
    there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{pid}/{_stat(pid)[STARTED]}"
    except OSError:
        return ""


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it until it is waited for. On Linux only."""
    try:
        return _stat(pid)[STATE] in "ZX"
    except OSError:
        return True


def _stat(pid: int) -> list[str]:
    stat = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")  # a name is cut anywhere
    return stat.rpartition(")")[2].split()
