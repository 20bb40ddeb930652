"""`comity lock`: a command that runs while a lock is held."""

import asyncio
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from comity import sync
from comity.model import Resync
from tests import servers
from tests.cli.processes import Comity
from tests.forked import command
from tests.servers import Server
from tests.waiting import until


@pytest.fixture
def state(server: Server, namespace: str) -> Iterator[sync.Client]:
    with sync.connect(server.address, namespace=namespace) as client:
        yield client


def held(state: sync.Client) -> int:
    return len(state.list("locks/").all())


@contextmanager
def holding(comity: Comity, script: str, *options: str, lock: str = "a") -> Iterator[subprocess.Popen[str]]:
    """`comity lock` with a script that says something once it runs."""
    process = subprocess.Popen(
        [*command(), "lock", lock, *options, "--", "sh", "-c", script],
        env=comity.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_command_runs_while_the_lock_is_held(comity: Comity, state: sync.Client) -> None:
    listed = comity("lock", "a", "--", *command(), "list", "locks/", "--json")
    assert listed.object["value"] == {"owner": ""}
    fence = comity("lock", "a", "--author", "ann", "--", "sh", "-c", "echo $COMITY_FENCE").text
    assert int(fence) > int(listed.object["create_revision"])
    assert held(state) == 0


def test_the_exit_code_is_that_of_the_command(comity: Comity, state: sync.Client) -> None:
    comity("lock", "a", "--", "true")
    assert comity.shell("comity lock a -- sh -c 'exit 7'").code == 7
    assert comity.shell("comity lock a -- sh -c 'kill -KILL $$'").code == 128 + signal.SIGKILL
    assert held(state) == 0


def test_input_and_output_are_those_of_the_command(comity: Comity) -> None:
    assert comity("lock", "a", "--", "cat", stdin=b"x\0y").data == b"x\0y"


def test_one_runs_after_the_other(comity: Comity, tmp_path: Path) -> None:
    script = "read -r n < count; sleep 0.05; echo $((n + 1)) > count"
    (tmp_path / "count").write_text("0\n")
    running = [
        subprocess.Popen([*command(), "lock", "a", "--", "sh", "-c", script], env=comity.environment, cwd=tmp_path)
        for _ in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    assert (tmp_path / "count").read_text() == "6\n"


def test_a_wait_has_an_end(comity: Comity, state: sync.Client) -> None:
    with holding(comity, "echo begun; read -r x", "--author", "bob") as process:
        for wait in ("0", "0.2"):
            refused = comity("lock", "a", "--wait", wait, "--", "touch", "never", code=5)
            assert refused.errors == f"comity: the lock 'a', which bob holds, could not be had within {wait} s\n"
        assert held(state) == 1
        comity("lock", "b", "--wait", "0", "--", "true")
        process.communicate("\n")
        assert comity("lock", "a", "--wait", "30", "--", "echo", "x").text == "x\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(comity: Comity, state: sync.Client, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with holding(comity, f"trap 'echo got {name}; exit 9' {name}; echo begun; while :; do sleep 0.02; done") as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (9, f"got {name}\n")
    assert errors in ("", "Terminated\n", "Hangup\n")  # what the shell says of its own child, which has it too
    assert held(state) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_wait_that_is_ended_by_a_signal_leaves_the_line(
    comity: Comity, state: sync.Client, number: signal.Signals
) -> None:
    with holding(comity, "echo begun; read -r x"):
        waiting = subprocess.Popen([*command(), "lock", "a", "--", "true"], env=comity.environment)
        with state.watch("locks/", initial=True) as watch:
            places: set[str] = set()
            for event in watch:
                if isinstance(event, Resync):
                    places = {entry.key for entry in event.entries}
                else:
                    places.add(event.key)
                if len(places) == 2:
                    break
        waiting.send_signal(number)
        assert waiting.wait(60) == 128 + number
        assert held(state) == 1


def test_the_command_is_terminated_when_the_lock_is_lost(comity: Comity, state: sync.Client) -> None:
    with holding(comity, "trap 'echo ended; exit 0' TERM; echo begun; while :; do sleep 0.02; done") as process:
        (place,) = state.list("locks/").all()
        state.revoke_lease(place.lease_id)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (3, "ended\n")
    assert errors.splitlines()[-1].startswith("comity: the lock 'a' was lost while the command ran: ")


def test_a_server_that_is_away_for_longer_than_the_ttl_is_a_loss(namespace: str) -> None:
    with servers.start() as server:
        comity = Comity(server.address, namespace)
        with holding(comity, "echo begun; exec sleep 60", "--ttl", "1") as process:
            server.kill()
            process.communicate(timeout=60)
    assert process.returncode == 3


def test_what_cannot_run_is_told(comity: Comity, state: sync.Client, tmp_path: Path) -> None:
    missing = comity("lock", "a", "--", "no-such-command", code=127)
    assert missing.errors == "comity: no-such-command: No such file or directory\n"
    (tmp_path / "plain").write_text("")
    (tmp_path / "plain").chmod(0o600)
    assert "Permission denied" in comity("lock", "a", "--", str(tmp_path / "plain"), code=126).errors
    assert held(state) == 0


def test_what_does_not_fit_is_a_usage_error(comity: Comity) -> None:
    comity("lock", code=2)
    comity("lock", "a", code=2)
    assert "a name has no /" in comity("lock", "a/b", "--", "true", code=2).errors
    comity("lock", "", "--", "true", code=2)
    comity("lock", "a", "--wait", "-1", "--", "true", code=2)
    comity("lock", "a", "--wait", "nan", "--", "true", code=2)
    comity("lock", "a", "--ttl", "0", "--", "true", code=2)
    assert comity("lock", "a", "--json", "--ttl", "0.001", "--", "true", code=2).error["code"] == "INVALID_ARGUMENT"
    assert "--ttl: must be from 1 to 86400 s" in comity("lock", "a", "--ttl", "0.001", "--", "true", code=2).errors


@pytest.mark.parametrize("wait", [(), ("--wait", "0"), ("--wait", "0.5"), ("--wait", "60")])
def test_where_there_is_no_server_it_says_so(namespace: str, wait: tuple[str, ...]) -> None:
    with socket.socket() as listening:  # bound, so that nobody else is there
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        comity = Comity(address, namespace)
        refused = comity("lock", "a", *wait, "--timeout", "0.5", "--", "touch", "never", code=5)
        assert refused.errors.startswith(f"comity: cannot reach {address}")


def test_the_fence_guards_what_the_command_puts(comity: Comity) -> None:
    put = shlex.join([*command(), "put", "plan"])
    guarded = comity(
        "lock", "a", "--", "sh", "-c", f"{put} 1 --guard $COMITY_FENCE >/dev/null; echo $COMITY_FENCE", code=0
    )
    comity("put", "plan", "2", "--guard", guarded.text.strip(), code=3)
    assert comity("get", "plan").text.strip() == "1"


def test_what_the_command_has_started_ends_with_it_when_the_lock_is_lost(
    comity: Comity, state: sync.Client, tmp_path: Path
) -> None:
    with holding(comity, f"sh -c 'echo $$ > {tmp_path}/pid; echo begun; sleep 600; :' & wait") as process:
        (place,) = state.list("locks/").all()
        state.revoke_lease(place.lease_id)
        process.communicate(timeout=60)
    assert process.returncode == 3
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_lock_that_was_lost_while_this_was_stopped_is_no_success(comity: Comity, state: sync.Client) -> None:
    with holding(comity, "echo begun; read -r x") as process:
        (place,) = state.list("locks/").all()
        process.send_signal(signal.SIGSTOP)
        state.revoke_lease(place.lease_id)
        (child,) = psutil.Process(process.pid).children()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        asyncio.run(until(lambda: child.status() == psutil.STATUS_ZOMBIE))
        process.send_signal(signal.SIGCONT)
        process.wait(60)
        assert process.stderr is not None
        assert "was lost while the command ran" in process.stderr.read()
    assert process.returncode == 3
