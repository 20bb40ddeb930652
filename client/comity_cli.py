"""The entry point of the command `comity`, outside of the package `comity`: that one imports gRPC, which reads its
environment then and never again."""

import os

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # What gRPC says of connections is no output of a command; the server logs by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from comity.cli import main as run

    run()
