"""What to install for commands that need more than the client."""

__all__ = ["NEEDS", "SERVER_NEEDS"]

# No package index has Comity.
NEEDS = "the command line needs more than the client: pip install '.[cli]' in a clone of Comity"
SERVER_NEEDS = "the server needs more than the client: pip install '.[server]' in a clone of Comity"
