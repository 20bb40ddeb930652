"""The TypeScript client: its types, its own tests against real servers, and the package that it is published as."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comity_server.access.tokens import line_of, new_token
from tests.authority import Authority
from tests.polyglot.control import controlled
from tests.polyglot.install import HERE, find_node, install, npm
from tests.servers import Server, environment, start

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
        assert npm(PACKAGE, "run", "generate") == 0
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


@contextmanager
def asking_who_calls(folder: Path) -> Iterator[Server]:
    """A server with TLS that takes client certificates and tokens. Its clients need the files ca, cert, key, token."""
    authority = Authority()
    authority.write(folder, "ca")
    serving = authority.server("127.0.0.1").write(folder, "server")
    shown = authority.client("node")
    (folder / "cert").write_bytes(shown.cert)
    (folder / "key").write_bytes(shown.key)
    token = new_token()
    (folder / "token").write_text(token)
    (folder / "tokens").write_text(line_of("planner", token))
    arguments = {"tls-cert": serving.cert.name, "tls-key": serving.key.name, "tls-client-ca": "ca", "tokens": "tokens"}
    with start(*(f"--{name}={folder / value}" for name, value in arguments.items())) as server:
        yield server


def test_the_package_is_what_its_pages_say(node: str, server: Server, namespace: str, tmp_path: Path) -> None:
    """Built, and used by the first programs of README.md and docs/languages.md as any other package."""
    assert npm(PACKAGE, "run", "--silent", "build") == 0
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "comity").symlink_to(PACKAGE)
    said = []
    for page in (PACKAGE / "README.md", PACKAGE.parent.parent / "docs" / "languages.md"):
        program = page.read_text().partition("```ts\n")[2].partition("```")[0]
        (tmp_path / "program.mts").write_text(program.replace("'research'", f"'{namespace}'"))
        said.append(run(node, "program.mts", server.address, folder=tmp_path, COMITY_ADDRESS=server.address))
    assert said[0].splitlines()[-1] == "2 entries at 4n"
    assert said[1].splitlines()[:2] == ["somebody was faster", "plan: { step: 2 } version 2n"]
    assert said[1].splitlines()[-2:] == ["revision 5: put plan", "revision 5: put steps"]


def test_its_tests_pass(node: str, server: Server, tmp_path: Path) -> None:
    tests = sorted(str(path) for path in (PACKAGE / "test").glob("*.test.ts"))
    with (
        controlled(f"sqlite:{tmp_path / 'state.db'}", tmp_path / "server.log") as url,
        asking_who_calls(tmp_path) as secure,
        start("--rate-principal=2") as limited,
    ):
        said = run(
            node,
            "--test",
            "--test-isolation=none",
            "--test-reporter=tap",
            *tests,
            COMITY_ADDRESS=server.address,
            COMITY_TEST_CONTROL=url,
            COMITY_TEST_SECURE=secure.address,
            COMITY_TEST_FILES=str(tmp_path),
            COMITY_TEST_LIMITED=limited.address,
        )
    assert "# fail 0" in said
    assert "# skipped 0" in said
