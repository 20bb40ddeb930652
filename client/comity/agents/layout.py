"""Names and keys: where agents keep what they share. docs/agents.md says the same for other languages."""

import re
from typing import NamedTuple

__all__ = [
    "AGENTS",
    "NAME",
    "Role",
    "check_name",
    "child",
    "children",
    "digests",
    "handoff",
    "handoffs",
    "inbox",
    "mapping",
    "memory",
    "presence",
    "supervisor",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

AGENTS = "agents/"


class Role(NamedTuple):
    """Whoever has this role, to send to: `agent.send(Role("writer"), …)` reaches one of the writers."""

    name: str


def check_name(what: str, name: str) -> str:
    """The name. Raises TypeError and ValueError, which say what it is the name of, for what cannot be one."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if NAME.fullmatch(name) is None:
        shown = name if len(name) <= 80 else name[:80] + "…"
        raise ValueError(f"{what} must be 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit, not {shown!r}")
    return name


def presence(name: str) -> str:
    """The key of an agent's presence, which lives by the agent's lease."""
    return f"{AGENTS}{name}"


def memory(name: str) -> str:
    """The prefix of an agent's private state."""
    return f"agent-state/{name}/"


def inbox(to: str | Role) -> str:
    """The name of the queue of an agent or of a role. Raises TypeError and ValueError for what is neither."""
    if isinstance(to, Role):
        return f"role:{check_name('the role', to.name)}"
    return f"agent:{check_name('the agent to send to', to)}"


def handoffs(sender: str) -> str:
    """The prefix of what becomes of an agent's handoffs."""
    return f"handoffs/{sender}/"


def handoff(sender: str, id: str) -> str:
    """The key of what becomes of a handoff."""
    return f"{handoffs(sender)}{id}"


def supervisor(name: str) -> str:
    """The key of a supervisor's presence, which lives by its lease."""
    return f"supervisors/{name}"


def children(name: str) -> str:
    """The prefix of what a supervisor knows of its children."""
    return f"supervisor-children/{name}/"


def child(supervisor: str, name: str) -> str:
    """The key of what a supervisor knows of a child."""
    return f"{children(supervisor)}{name}"


def mapping(id: str) -> str:
    """The prefix of a map: its size, the digests of its inputs, and its results."""
    return f"maps/{id}/"


def size(id: str) -> str:
    """The key of how many inputs a map has."""
    return f"{mapping(id)}size"


def digests(id: str) -> str:
    """The prefix of the digests of a map's inputs."""
    return f"{mapping(id)}digests/"


def results(id: str) -> str:
    """The prefix of what came of each input of a map."""
    return f"{mapping(id)}results/"


def inputs(id: str) -> str:
    """The name of the queue of a map's inputs."""
    return f"map:{id}"
