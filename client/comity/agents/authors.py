"""As whom agents and supervisors write."""

from comity.client import Client

__all__ = ["author_of"]


def author_of(state: Client, name: str) -> str:
    """The author of what one of this name writes: the name. A server that knows who calls takes only its own name for
    the caller, and what is below it: there it is below the client's author, or where that has none, left to the server.
    """
    if not state._access.is_authenticated:
        return name
    return f"{state.author}/{name}" if state.author else ""
