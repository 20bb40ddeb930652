"""The TypeScript client: its types, its own tests against real servers, and the package that it is published as."""

import json
import re
import shutil
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
    """A server with TLS that takes client certificates and tokens. Its clients need the files ca, cert, key, token;
    those of strange-cert and strange-key it does not know."""
    authority = Authority()
    authority.write(folder, "ca")
    serving = authority.server("127.0.0.1").write(folder, "server")
    shown = authority.client("node")
    strange = Authority("stranger").client("node")
    for name, pair in (("", shown), ("strange-", strange)):
        (folder / f"{name}cert").write_bytes(pair.cert)
        (folder / f"{name}key").write_bytes(pair.key)
    token = new_token()
    (folder / "token").write_text(token)
    (folder / "tokens").write_text(line_of("planner", token))
    arguments = {"tls-cert": serving.cert.name, "tls-key": serving.key.name, "tls-client-ca": "ca", "tokens": "tokens"}
    with start(*(f"--{name}={folder / value}" for name, value in arguments.items())) as server:
        yield server


@pytest.fixture(scope="module")
def app(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program that has installed the package, as it would be published, and the compiler."""
    source, folder = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("app")
    for name in ("package.json", "README.md", "tsconfig.json", "tsconfig.build.json"):
        shutil.copy(PACKAGE / name, source)
    shutil.copytree(PACKAGE / "src", source / "src")
    (source / "node_modules").symlink_to(PACKAGE / "node_modules")
    assert npm(source, "run", "--silent", "build") == 0
    assert npm(source, "pack", "--silent") == 0
    (packed,) = source.glob("comity-*.tgz")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    locked = json.loads((PACKAGE / "package-lock.json").read_text())["packages"]
    compiler = f"typescript@{locked['node_modules/typescript']['version']}"
    quiet = ("--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    assert npm(folder, "install", *quiet, str(packed), compiler) == 0
    return folder


def samples(page: Path) -> list[str]:
    return re.findall(r"^```ts\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_package_is_what_its_pages_say(node: str, app: Path, server: Server, namespace: str) -> None:
    """Each sample of README.md, and the program of docs/languages.md: their types, and what they do.

    The namespace is fresh for each, but for the last, which goes on where the first one ended.
    """
    whole, reached, conditions, leases = samples(PACKAGE / "README.md")
    reached = reached.replace("'comity.example.com:7171'", "process.argv[2]!")
    begin = "import { connect } from 'comity';\nusing state = connect(process.argv[2], { namespace: 'research' });\n"
    shown = "{ caFile: 'ca.pem', certFile: 'cert', keyFile: 'key' }"
    programs = {
        "whole": whole,
        "reached": reached.replace("{ caFile: 'ca.pem' }", shown)
        + "for await (const { author } of state.history()) console.log(author);\n",
        "conditions": begin + conditions + "console.log(committed, results.length, failed.length);\n",
        "leases": begin
        + leases.replace("https://example.com", "data:,")
        + "console.log(await state.get('agents/a'), (await state.get('report'))?.value);\n",
        "languages": samples(PACKAGE.parent.parent / "docs" / "languages.md")[0],
    }
    for name, program in programs.items():
        own = namespace if name in ("whole", "languages") else f"{namespace}-{name}"
        (app / f"{name}.mts").write_text(program.replace("'research'", f"'{own}'"))
    strict = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit")
    tsc = (str(app / "node_modules" / "typescript" / "bin" / "tsc"), *strict, "--module", "nodenext")
    run(node, *tsc, "--lib", "ES2024,ESNext.Disposable", *(f"{name}.mts" for name in programs), folder=app)

    with asking_who_calls(app) as secure:
        (app / "ca").rename(app / "ca.pem")
        assert run(node, "reached.mts", secure.address, folder=app) == "planner\n"
    said = {
        name: run(node, f"{name}.mts", server.address, folder=app, COMITY_ADDRESS=server.address).splitlines()
        for name in programs
        if name != "reached"
    }
    assert said["whole"][-1] == "2 entries at 4n"
    assert said["conditions"] == ["true 2 0"]
    assert said["leases"] == ["undefined all is well"]
    assert said["languages"][:2] == ["somebody was faster", "plan: { step: 2 } version 2n"]
    assert said["languages"][-2:] == ["revision 5: put plan", "revision 5: put steps"]


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
