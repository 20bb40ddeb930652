"""Processes of agents are forked, and each is as if it had begun anew."""

import asyncio
import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError, Pipe, forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import google.protobuf
import grpc
import psutil
import pytest

import comity.agents
from comity.agents import Agent, ChildState, Supervisor, forking, forkservers
from comity.agents.forking import AgentProcess
from comity.agents.identity import identity
from tests.agents import members
from tests.waiting import until, wait_until

pytestmark = pytest.mark.skipif(not forking.CAN_FORK, reason="processes are spawned here")


def run(function: Callable[..., None], *arguments: object) -> Any:
    """Run a function in a process to its end, and return what it sends."""
    receive, send = Pipe(duplex=False)
    process = AgentProcess(target=function, args=(send, *arguments))
    process.start()
    send.close()
    with receive:
        sent = receive.recv()
    process.join()
    assert process.exitcode == 0
    return sent


def surroundings(send: Connection) -> None:
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr)
    imported = "comity.agents.process" in sys.modules
    send.send((os.getppid(), dict(os.environ), Path.cwd(), os.get_blocking(0), os.read(0, 1), sys.path, imported))


def test_it_has_the_environment_the_folder_and_the_files_of_the_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, *_ = run(surroundings)
    assert first != os.getpid()
    assert capfd.readouterr() == ("to standard output\n", "to standard error\n")
    monkeypatch.setenv("SECRET_OF_THE_MOMENT", "new")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    parent, environment, folder, _, stdin, path, imported = run(surroundings)
    assert (parent, environment, folder, stdin, path) == (first, dict(os.environ), tmp_path, b"", sys.path)
    assert imported


def test_it_has_other_files_once_this_process_has(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, *_ = run(surroundings)
    kept = os.dup(1)
    try:
        with (tmp_path / "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            second, *_ = run(surroundings)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert second != first
    assert (tmp_path / "output").read_text() == "to standard output\n"


def test_what_is_read_as_python_starts_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = run(surroundings)
    assert run(surroundings)[0] == first
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")
    second, environment, *_ = run(surroundings)
    assert second != first
    wait_until(lambda: not psutil.pid_exists(first))
    assert environment["GRPC_VERBOSITY"] == "ERROR"


def test_limits_are_those_of_the_moment() -> None:
    first, *_ = run(surroundings)
    before = os.umask(0o77)
    try:
        second, *_ = run(surroundings)
        assert run(mask) == 0o77
    finally:
        os.umask(before)
    assert second != first
    assert run(mask) == before


def mask(send: Connection) -> None:
    send.send(os.umask(0))


def test_another_comity_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that a Python that starts in this folder would import."""
    other = tmp_path / "comity" / "agents"
    other.mkdir(parents=True)
    for empty in (other.parent / "__init__.py", other / "__init__.py", other / "process.py"):
        empty.write_text("")
    for name in ("forking.py", "forkservers.py"):
        (other / name).write_text(Path(forking.__file__).with_name(name).read_text())
    (other / "identity.py").write_text("identity = lambda pid: ''\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forkservers, "_servers", forkservers._Servers())
    parent, *_ = run(surroundings)
    assert parent == os.getpid()  # it was spawned, with the right `sys.path`
    assert run(where) == comity.agents.__file__


@pytest.mark.parametrize("package", [grpc, google.protobuf], ids=["grpc", "protobuf"])
def test_nor_is_what_it_is_made_of(package: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert package.__file__ is not None
    here = Path(package.__file__).parent
    other = tmp_path.joinpath(*package.__name__.split("."))
    other.parent.mkdir(exist_ok=True)
    other.symlink_to(here)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forkservers, "_servers", forkservers._Servers())
    assert run(surroundings)[0] == os.getpid()


def where(send: Connection) -> None:
    send.send(comity.agents.__file__)


def test_it_ends_as_python_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(leave_something, str(tmp_path / "left")) is None
    assert (tmp_path / "left").read_text() == "later"
    assert capfd.readouterr().out == "at the end\n"


def leave_something(send: Connection, path: str) -> None:
    atexit.register(lambda: Path(path).write_text("later" if Path(f"{path} by a thread").exists() else "too early"))
    atexit.register(print, "at the end")
    threading.Thread(target=wait_and_leave, args=(Path(f"{path} by a thread"),)).start()
    send.send(None)


def wait_and_leave(path: Path) -> None:
    threading.main_thread().join()
    path.touch()


def test_a_name_of_a_program_may_be_cut_within_a_character() -> None:
    name = Path("/proc/self/comm")
    before = name.read_bytes()
    name.write_bytes("ä".encode() * 8)
    try:
        with pytest.raises(UnicodeDecodeError):
            name.read_bytes().decode()
        assert run(surroundings)[0] != os.getpid()
        assert identity(os.getpid())
    finally:
        name.write_bytes(before)


@pytest.mark.parametrize("error", [EOFError, AuthenticationError])
def test_where_forking_fails_it_is_spawned(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise error("not this time")

    monkeypatch.setattr(forkserver.ForkServer, "connect_to_new_process", fail)
    spawned_and_told_of_once(monkeypatch, caplog)


def test_where_python_is_another_it_is_spawned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(forkserver.ForkServer, "connect_to_new_process")
    spawned_and_told_of_once(monkeypatch, caplog)
    assert not forking.CAN_FORK


def spawned_and_told_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(forking, "CAN_FORK", True)
    monkeypatch.setattr(forking, "_told", False)
    monkeypatch.setattr(forkservers, "_servers", forkservers._Servers())
    assert run(surroundings)[0] == run(surroundings)[0] == os.getpid()
    assert [record.message.partition(",")[0] for record in caplog.records] == ["an agent could not be forked"]


def test_what_cannot_be_started_in_any_way_is_no_failure_of_forking(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        AgentProcess(target=lambda: None).start()
    assert forking.CAN_FORK
    assert not caplog.records


def test_an_agent_starts_where_what_is_private_to_python_is_gone() -> None:
    script = """
from multiprocessing import popen_forkserver
del popen_forkserver.Popen
from comity.agents import forking
process = forking.AgentProcess(target=print)
process.start()
process.join()
assert process.exitcode == 0
assert not forking.CAN_FORK
"""
    subprocess.run([sys.executable, "-c", script], check=True)


async def test_what_they_are_forked_from_is_killed(state: comity.Client) -> None:
    """Nobody would see the end of the agents then. They are killed, and replaced from a new one."""
    async with Supervisor(state, "lead", ttl=60, max_restarts=10) as lead:
        await lead.spawn(parent_of, name="one", mode="process")
        first = await lead.child("one").ready()
        await until(lambda: (now := lead.child("one").presence) is not None and now.detail is not None)
        seen = lead.child("one").presence
        assert seen is not None
        os.kill(first.pid, signal.SIGSTOP)  # so that it does not end by itself, as its lease does
        os.kill(seen.detail, signal.SIGKILL)
        await until(lambda: lead.child("one").restarts == 1)
        second = await lead.child("one").ready()
        assert second.pid != first.pid
        await until(lambda: not runs(first.pid))
        assert lead.child("one").status.state is ChildState.RUNNING


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is forked in a test is forked from what no other one has."""
    monkeypatch.setattr(forking, "_told", True)
    monkeypatch.setattr(forkservers, "_servers", forkservers._Servers())
    monkeypatch.setattr(forkservers, "TELL_SECONDS", 0.1)
    yield
    if (server := forkservers._servers._server) is not None and server._forkserver_pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGCONT)


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize("can_wait", [True, False])
async def test_the_end_of_an_agent_is_seen_though_what_it_is_forked_from_is_stopped(
    state: comity.Client, can_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkservers, "LOOK_SECONDS", 0.1)
    if not can_wait:
        monkeypatch.delattr(os, "pidfd_open")
    async with Supervisor(state, "lead", ttl=60, max_restarts=10) as lead:
        first = await started(lead, "one")
        await started(lead, "two")
        stopped = stop_parent(lead)
        os.kill(first, signal.SIGKILL)
        await until(lambda: lead.child("one").restarts == 1)
        assert lead.child("one").status.why == "ended, and how is not known"
        await lead.child("one").ready()
    # What was to be forked was spawned, and what does not answer is not kept.
    await until(lambda: not runs(stopped))


@pytest.mark.usefixtures("own_server")
async def test_what_does_not_answer_is_asked_no_more_and_harms_no_agent(state: comity.Client) -> None:
    async with Supervisor(state, "lead", ttl=60) as lead:
        first = await started(lead, "one")
        stopped = stop_parent(lead)
        spawned = await started(lead, "two")
        assert psutil.Process(spawned).ppid() == os.getpid()
        forked = await started(lead, "three")
        assert psutil.Process(forked).ppid() not in (os.getpid(), stopped)
        os.kill(stopped, signal.SIGCONT)
        await lead.child("one").stop()
        assert not runs(first)
        await until(lambda: not runs(stopped))
        assert [lead.child(name).restarts for name in ("two", "three")] == [0, 0]


@pytest.mark.usefixtures("own_server")
async def test_a_start_by_what_does_not_answer_can_be_cancelled(
    state: comity.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    connect = forkserver.ForkServer.connect_to_new_process

    def tell(*arguments: Any) -> Any:
        asked.set()
        return connect(*arguments)

    async with Supervisor(state, "lead", ttl=60) as lead:
        await started(lead, "one")
        stop_parent(lead)
        monkeypatch.setattr(forkserver.ForkServer, "connect_to_new_process", tell)
        spawning = asyncio.create_task(lead.spawn(members.stay, name="two", mode="process"))
        await until(asked.is_set)
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        assert not any("spawn_main" in str(child.cmdline()) for child in psutil.Process().children())


async def started(lead: Supervisor, name: str) -> int:
    """The process of an agent that can be asked for its parent."""
    child = await lead.spawn(members.stay, name=name, mode="process")
    return (await child.ready()).pid


def stop_parent(lead: Supervisor) -> int:
    presence = lead.child("one").presence
    assert presence is not None
    parent = psutil.Process(presence.pid).ppid()
    assert parent != os.getpid()
    os.kill(parent, signal.SIGSTOP)
    server = forkservers._servers._server
    assert server is not None
    assert server._forkserver_pid == parent
    server.patience = 0.2  # with what will not come
    return parent


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def parent_of(agent: Agent) -> None:
    await agent.report("here", detail=os.getppid())
    await members.stay(agent)
