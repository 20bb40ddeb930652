"""The entry point of the command `comity`, outside of the package `comity`: that one imports gRPC, which reads its
environment then and never again."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # What gRPC says of connections is no output of a command, which says it itself; the server logs by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR" if sys.argv[1:2] == ["serve"] else "NONE")
    from comity.cli import main as run

    run()
