"""`comity copy`: what it says, and how it ends."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.cli.processes import Comity
from tests.redis_servers import RedisServer


@pytest.fixture
def filled(comity: Comity, tmp_path: Path) -> str:
    """The URL of a store in a file that no server uses any more."""
    url = f"sqlite:{tmp_path / 'filled.db'}"
    with servers.start("--store", url) as server:
        on = ("--address", server.address, "--namespace")
        for step in range(3):
            comity("put", "plan", f'{{"step": {step}}}', *on, "research", "--request-id", f"ann/{step + 1}")
        comity("checkpoint", "before", *on, "research")
        comity("fork", "idea", *on, "research")
        comity("put", "plan", "9", *on, "idea")
        comity("put", "a", "1", *on, "gone")
        comity("namespaces", "--delete", "gone", "--yes", "--address", server.address)
    return url


def test_a_store_moves(comity: Comity, filled: str, redis_url: str) -> None:
    would = comity("copy", "--from", filled, "--to", redis_url, "--dry-run").text.splitlines()
    assert would == [
        "idea: would be copied. revision 5, 1 key, 2 commits, 0 checkpoints, 2 outcomes",
        "research: would be copied. revision 3, 1 key, 3 commits, 1 checkpoint, 4 outcomes",
        "1 name of deleted namespaces would go on counting",
    ]
    done = comity("copy", "--from", filled, "--to", redis_url).text
    assert done == "\n".join(would).replace("would be", "").replace("would go", "go").replace(":  ", ": ") + "\n"
    with servers.start("--store", redis_url) as server:
        on = ("--address", server.address, "--namespace")
        assert comity("get", "plan", *on, "idea").text == "9\n"
        assert comity("put", "plan", '{"step": 2}', *on, "research", "--request-id", "ann/3").text.endswith(
            "revision 3\n"
        )
        assert "merged idea" in comity("merge", "idea", *on, "research").text
    again = comity("copy", "--from", filled, "--to", redis_url, "--json", code=3)
    assert again.errors == ""
    endings = {said["namespace"]: said["ending"] for said in again.objects}
    assert endings == {"gone": "counted", "idea": "there", "research": "conflict"}
    reasons = {said["namespace"]: said["reason"] for said in again.objects}
    assert reasons["research"] == "it is at revision 4, and the source at 3"
    text = comity("copy", "--from", filled, "--to", redis_url, "--namespace", "research", code=3).text
    assert text == "research: not copied: it is at revision 4, and the source at 3\n"
    comity("copy", "--from", filled, "--to", redis_url, "--overwrite")
    assert "there already" in comity("copy", "--from", filled, "--to", redis_url).text


def test_one_object_a_namespace(comity: Comity, filled: str, tmp_path: Path) -> None:
    target = f"sqlite:{tmp_path / 'target.db'}"
    found = comity("copy", "--from", filled, "--to", target, "--prefix", "id", "--json").objects
    assert [said["namespace"] for said in found] == ["idea", "research"]
    assert found[1] == {
        "namespace": "research",
        "ending": "copied",
        "reason": "",
        "revision": 3,
        "keys": 1,
        "commits": 3,
        "checkpoints": 1,
        "outcomes": 4,
    }
    assert comity("check", str(tmp_path / "target.db"), "--json").object["problems"] == []


def test_what_cannot_be_used(comity: Comity, filled: str, redis_url: str, tmp_path: Path) -> None:
    target = f"sqlite:{tmp_path / 'target.db'}"

    def refused(source: str, to: str, code: int, *options: str) -> str:
        failed = comity("copy", "--from", source, "--to", to, *options, code=code)
        assert failed.text == ""
        return failed.errors

    assert "does not exist" in refused(f"sqlite:{tmp_path / 'none.db'}", target, 4)
    assert "no namespace none" in refused(filled, target, 4, "--namespace", "none")
    assert "one store" in refused(filled, filled, 2)
    assert "one store" in refused(redis_url, redis_url, 2)
    assert "--from: memory:" in refused("memory:", target, 2)
    assert "--to: memory:" in refused(filled, "memory:", 2)
    assert "--to: redis_wait_replicas" in refused(filled, target, 2, "--redis-wait-replicas", "1")
    assert "--from: none: is a kind of store" in refused("none:x", target, 2)
    assert "--to: after the scheme" in refused(filled, "redis://", 2)
    secret = refused(filled, "redis://ann:secret@host:port", 2)
    assert "secret" not in secret
    assert "cannot be reached" in refused(filled, "redis://ann:secret@127.0.0.1:1", 5)
    assert "cannot be reached" in refused("redis://127.0.0.1:1", target, 5)
    with servers.start("--store", filled):
        assert "filled.db: a server uses it: stop that first" in refused(filled, target, 5)
        assert "filled.db: it is in use" in refused(redis_url, filled, 5)
    assert not (tmp_path / "target.db").exists()


def test_a_long_copy_says_how_far_it_is(filled: str, redis_url: str) -> None:
    program = "import comity_server.copying as it; it.PROGRESS_SECONDS = -1.0; from comity.cli import main; main()"
    arguments = ["copy", "--from", filled, "--to", redis_url, "--namespace", "research", "--json"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout)["ending"] == "copied"
    assert done.stderr == "research: 3 of 3 versions and commits\n"


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_interrupted_copy_ends_at_once(comity: Comity, filled: str, dry_run: bool) -> None:
    """Wherever it is, and redis-py loses a cancellation at some places where it connects."""
    arguments = ["copy", "--from", filled, *(["--dry-run"] if dry_run else [])]
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            host, port = mute.getsockname()
            with comity.started(*arguments, "--to", f"redis://{host}:{port}") as copying:
                connection, _ = mute.accept()
                with connection:
                    assert connection.recv(1)
                    ended = copying.interrupt()
        assert (ended.code, ended.text) == (130, "")
        goes_on = "" if dry_run else ": the same command goes on with what is not there yet"
        assert ended.errors == f"comity: interrupted{goes_on}\n"


def test_usage(comity: Comity, filled: str) -> None:
    assert "--from" in comity("copy", "--to", filled, code=2).errors
    assert "--to" in comity("copy", "--from", filled, code=2).errors
    assert "--overwriet" in comity("copy", "--overwriet", code=2).errors
    assert "--dry-run" in comity("copy", "--help").text
    failed = comity("copy", "--from", filled, "--to", filled, "--json", code=2)
    assert json.loads(failed.errors)["message"].startswith("--from and --to are one store")


def test_nothing_to_copy(comity: Comity, redis_server: RedisServer, tmp_path: Path) -> None:
    url = f"{redis_server.url}?prefix=nobody-uses-this"
    text = comity("copy", "--from", url, "--to", f"sqlite:{tmp_path / 'target.db'}").text
    assert text == "the source has no namespaces\n"


def test_a_user_who_may_not_copy(comity: Comity, filled: str, tmp_path: Path) -> None:
    """It is said which store refuses which command, also if that is within a script."""
    target = f"sqlite:{tmp_path / 'target.db'}"
    with RedisServer() as server, server.client() as client:
        url = f"redis://ann:secret@{server.address}"
        for lacking, source, to in (
            ("xrevrange", filled, url),
            ("xlen", filled, url),
            ("hgetall", filled, url),
            ("scan", url, target),
            ("xrange", url, target),
        ):
            client.flushall()
            if source == url:
                comity("copy", "--from", filled, "--to", server.url)
            client.execute_command("ACL", "SETUSER", "ann", "reset", "on", ">secret", "~*", "+@all", f"-{lacking}")
            errors = comity("copy", "--from", source, "--to", to, code=5).errors
            assert f"redis://{server.address}?prefix=comity: Redis refuses the server's user" in errors
            assert f"the command {lacking.upper()} (" in errors
            assert "secret" not in errors
