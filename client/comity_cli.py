"""The entry point of the command `comity`, outside of the package `comity`: that one imports gRPC, which reads its
environment then and never again."""

import os

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # What gRPC says of connections is no output of a command. The server logs by itself, in a form of its own: even of
    # what gRPC calls errors, anybody who reaches its port could have it write without an end.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from comity.cli import main as run

    run()
