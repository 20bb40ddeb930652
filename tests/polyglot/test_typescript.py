"""The TypeScript client: its types, its own tests against real servers, and the package that it is published as."""

import subprocess
from pathlib import Path

import pytest

from tests.polyglot.control import controlled
from tests.polyglot.install import HERE, find_node, install, npm
from tests.servers import Server, environment

PACKAGE = HERE.parent.parent / "client" / "typescript"


@pytest.fixture(scope="module")
def node() -> str:
    """Node.js, with the packages and the generated code that the client imports."""
    try:
        found = find_node().node
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not (PACKAGE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        install(PACKAGE)
    if not (PACKAGE / "src" / "gen").is_dir():
        npm(PACKAGE, "run", "generate")
    return found


def run(node: str, *arguments: str, folder: Path = PACKAGE, **variables: str) -> str:
    """What a program in Node.js printed. It ends well, or the test fails with all that it said."""
    done = subprocess.run(
        [node, *arguments],
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_pass(node: str, server: Server, tmp_path: Path) -> None:
    tests = sorted(str(path) for path in (PACKAGE / "test").glob("*.test.ts"))
    with controlled(f"sqlite:{tmp_path / 'state.db'}", tmp_path / "server.log") as url:
        said = run(
            node,
            "--test",
            "--test-isolation=none",
            "--test-reporter=tap",
            *tests,
            COMITY_ADDRESS=server.address,
            COMITY_TEST_CONTROL=url,
        )
    assert "# fail 0" in said
    assert "# skipped 0" in said
