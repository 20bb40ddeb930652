"""The entry point of the command `comity`."""

import sys

from .needs import NEEDS, SERVER_NEEDS

__all__ = ["main"]

OF_SERVER = ("serve", "backup", "check", "copy", "policy")  # commands that are the server's own


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        if sys.argv[1:] == ["--version"]:
            from comity import __version__

            print(f"comity {__version__}")
            return
        of_server = sys.argv[1:2] and sys.argv[1] in OF_SERVER
        sys.exit(f"comity: {SERVER_NEEDS if of_server else NEEDS} ({error})")
    sys.exit(run())
