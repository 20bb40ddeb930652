"""Help, usage errors, and an installation without the extras."""

import contextlib
import socket
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest
from click.testing import CliRunner

import comity as package
from comity.cli.app import app
from tests.cli.processes import Comity
from tests.forked import command

COMMANDS = [
    *("get", "put", "delete", "list", "watch", "transact"),
    *("log", "diff", "blame", "checkpoint", "checkpoints", "restore", "fork", "merge"),
    *("status", "namespaces", "compact", "health"),
]
OF_SERVER = {
    "serve": "comity_server.serve",
    "backup": "comity_server.maintenance",
    "check": "comity_server.maintenance",
    "policy": "comity_server.access.checking",
}


def test_help_names_every_command(comity: Comity) -> None:
    text = comity("--help").text
    for name in [*COMMANDS, *OF_SERVER]:
        assert f"\n  {name} " in text
    assert "Exit codes" in text
    assert comity().text == text
    assert comity("--version").text == f"comity {version('comity')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_and_the_common_options(name: str) -> None:
    text = CliRunner().invoke(app, [name, "--help"], prog_name="comity").output
    assert "Examples:\n" in text
    assert f"    comity {name}" in text
    for option in ("--address", "--namespace", "--author", "--json", "--timeout", "COMITY_ADDRESS"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none"], "No such command 'none'"),
        (["get"], "Missing argument 'KEY'"),
        (["get", "a", "b"], "unexpected extra argument"),
        (["get", "a", "--revision", "x"], "'x' is not a whole number"),
        (["get", "a", "--revision", "-1"], "revisions begin with 1"),
        (["get", "a", "--revision", "0"], "revisions begin with 1"),
        (["list", "--revision", "0"], "revisions begin with 1"),
        (["blame", "--revision", "0"], "revisions begin with 1"),
        (["checkpoint", "mark", "--revision", "0"], "revisions begin with 1"),
        (["log", "--to", "0"], "revisions begin with 1"),
        (["log", "--from", "0"], "revisions begin with 1"),
        (["watch", "a", "--from", "0"], "revisions begin with 1"),
        (["get", "a", "--revision", str(2**63)], "is not from 1 to 2^63-1"),
        (["put", "a", "1", "--if-version", "-1"], "-1 is not from 0 to 2^63-1"),
        (["get", "a", "--timeout", "0"], "above 0"),
        (["get", "a", "--timeout", "nan"], "above 0"),
        (["get", "a", "--address", "host:port"], "no address"),
        (["get", b"\xff"], "not UTF-8"),
        (["put", "a"], "Missing argument 'VALUE'"),
        (["put", "a", "--bites"], "No such option"),
        (["list", "--prefix", "a"], "No such option '--prefix': it is an argument, comity list PREFIX (see"),
        (["put", "a", "1", "--request-id", "job:0"], "from 1"),
        (["put", "a", "1", "--request-id", ":1"], "has no name"),
        (["list", "--limit", "0"], "not from 1"),
        (["checkpoint"], "Missing argument 'NAME'"),
        (["checkpoint", "a", "--label", "kind"], "'kind' is not KEY=VALUE"),
        (["checkpoint", "a", "--label", "=x"], "'=x' is not KEY=VALUE"),
        (["checkpoint", "a", "--label", "k=1", "--label", "k=2"], "a key is given twice"),
        (["checkpoint", "a", "--label", b"k=\xff"], "not UTF-8"),
        (["checkpoints", "--label", "kind"], "'kind' is not KEY=VALUE"),
        (["checkpoints", "--label", "k=1", "--delete", "a", "--yes"], "either --label or --delete"),
        (["checkpoints", "--delete", "a"], "--delete needs --yes"),
        (["restore"], "Missing argument 'REF'"),
        (["restore", ""], "it is empty"),
        (["restore", str(2**63)], "is not from 0 to 2^63-1"),
        (["restore", "1", "--if-revision", "x"], "'x' is not a whole number"),
        (["diff"], "Missing argument 'REF'"),
        (["diff", "1", "2", "3"], "unexpected extra argument"),
        (["diff", b"\xff"], "not UTF-8"),
        (["fork"], "Missing argument 'NEW'"),
        (["merge"], "Missing argument 'FORK'"),
        (["merge", "a", "--strategy", "mine"], "'mine' is not one of"),
    ],
    ids=lambda value: (
        b" ".join(text.encode() if isinstance(text, str) else text for text in value).hex()[:8]
        if isinstance(value, list)
        else value
    ),
)
def test_usage_errors_are_one_line(comity: Comity, arguments: list[str | bytes], complaint: str) -> None:
    refused = comity(*arguments, code=2)
    assert refused.data == b""
    assert complaint in refused.errors
    assert "--help" in refused.errors


def test_a_usage_error_as_json(comity: Comity) -> None:
    error = comity("get", "--json", code=2).error
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["reason"] == "USAGE"
    assert error["metadata"] == {}


def without(module: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.modules[{module!r}] = None; from comity.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_version_needs_nothing_but_the_client() -> None:
    done = without("click", ["--version"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"comity {version('comity')}\n", "")
    assert package.__version__ == version("comity")
    with pytest.raises(AttributeError, match="has no attribute 'version'"):
        package.version  # type: ignore[attr-defined]  # noqa: B018


def test_without_click() -> None:
    done = without("click", ["get", "key"])
    assert done.returncode == 1
    assert "pip install '.[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1
    for name in OF_SERVER:
        done = without("click", [name])
        assert done.returncode == 1
        assert "pip install '.[server]'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_without_what_a_command_needs_beside() -> None:
    done = without("grpc_health.v1", ["health"])
    assert done.returncode == 1
    assert "pip install '.[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "module"), OF_SERVER.items(), ids=OF_SERVER)
def test_without_the_server(name: str, module: str) -> None:
    done = without(module, [name])
    assert done.returncode == 1
    assert "pip install '.[server]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_traceback_for_who_asks(comity: Comity) -> None:
    arguments = [*command(), "get", "key", "--address", "::::bad"]
    done = subprocess.run(
        arguments,
        env=comity.environment | {"COMITY_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert "ValueError: '::::bad' is no address" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("comity: '::::bad' is no address")


def test_grpc_keeps_to_itself_unless_told(comity: Comity) -> None:
    """A server whose first word is HTTP/2's GOAWAY, with an error: gRPC writes a line about it."""
    goaway = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + bytes(4) + (11).to_bytes(4)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):  # that it was closed
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    connection.sendall(goaway)

        connections: list[socket.socket] = []
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        script = "from comity_cli import main; main()"
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        errors = [
            subprocess.run(
                [sys.executable, "-c", script, "get", "key", "--address", address, "--timeout", "0.5"],
                env=comity.environment | changes,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            ).stderr
            for changes in ({}, {"GRPC_VERBOSITY": "INFO"})
        ]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()
    assert errors[0].count("\n") == 1
    assert "goaway" in errors[1]


def test_help_and_pipes_do_not_wait_for_rich() -> None:
    script = "import sys\nfrom comity.cli.app import app\nassert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
