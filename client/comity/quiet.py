"""Imports gRPC so that it does not write to the standard error of a program that has not asked for it.

gRPC reads GRPC_VERBOSITY when it is imported, and never again. Unset, it writes a line for each handshake that fails,
which errors tell anyway. What the program says of it holds, as does what gRPC was imported with before.
"""

import os
import sys

__all__: list[str] = []

if "grpc" not in sys.modules and "GRPC_VERBOSITY" not in os.environ:
    os.environ["GRPC_VERBOSITY"] = "ERROR"
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ["GRPC_VERBOSITY"]  # which is for the program, and the processes that it starts, to set
