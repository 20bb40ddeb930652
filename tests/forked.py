"""Runs the command in processes forked from one that has imported it: a start costs a tenth of what it costs else, and
most of a test of the command line is starts, as is much of one with a server of its own.

One parent serves a process of tests. It is asked over a socket, with the files that its child is to have as standard
input, output and errors, and answers with the child's id, and with its exit code when it has ended.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

CAN_FORK = sys.platform == "linux"  # elsewhere systems have libraries that do not survive it
NUMBER_BYTES = 8


class Process:
    """A command that runs, or has ended: what subprocess.Popen tells and does of a process, this does too.

    Its files are descriptors, which are the caller's to close.
    """

    def __init__(
        self, arguments: Sequence[str | bytes], *, env: Mapping[str, str], files: tuple[int, int, int]
    ) -> None:
        self.returncode: int | None = None
        self._waiting = threading.Lock()
        self._parent = socket.socket(socket.AF_UNIX)
        self._parent.connect(_parent())
        request = json.dumps([[os.fsdecode(each) for each in arguments], dict(env), str(Path.cwd())]).encode()
        socket.send_fds(self._parent, [len(request).to_bytes(NUMBER_BYTES, "big")], files)
        self._parent.sendall(request)
        self.pid = self._answer()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the number of the signal that ended it below 0. Raises subprocess.TimeoutExpired."""
        with self._waiting:
            return self._wait(timeout)

    def poll(self) -> int | None:
        if self._waiting.acquire(blocking=False):  # else another thread waits
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._wait(0)
            finally:
                self._waiting.release()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self._parent.settimeout(timeout)
            try:
                self.returncode = self._answer()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("comity", timeout or 0) from None
            self._parent.close()
        return self.returncode

    def _answer(self) -> int:
        answer = self._parent.recv(NUMBER_BYTES)
        assert answer, "the parent of the commands has ended"
        return int.from_bytes(answer, "big", signed=True)


def command() -> list[str]:
    """The installed command, or where there is none, what it would run."""
    installed = Path(sys.executable).with_name("comity")
    return [str(installed)] if installed.exists() else [sys.executable, "-c", "from comity.cli import main; main()"]


def start(
    arguments: Sequence[str | bytes], *, env: Mapping[str, str], files: tuple[int, int, int]
) -> "Process | subprocess.Popen[bytes]":
    """Start the command, from nothing where it cannot be forked."""
    if CAN_FORK:
        return Process(arguments, env=env, files=files)
    stdin, stdout, stderr = files
    return subprocess.Popen([*command(), *arguments], env=env, stdin=stdin, stdout=stdout, stderr=stderr)


def run(
    arguments: Sequence[str | bytes], *, env: Mapping[str, str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """The exit code, and what was written to standard output and errors. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        process = start(arguments, env=env, files=(given.fileno(), output.fileno(), errors.fileno()))
        try:
            return process.wait(timeout), _all_of(output), _all_of(errors)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@cache
def _parent() -> str:
    """The address of the parent, which is started when it is first needed."""
    folder = tempfile.TemporaryDirectory()
    address = f"{folder.name}/parent"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    os.set_inheritable(listening.fileno(), True)
    command = [sys.executable, "-m", "tests.forked", str(listening.fileno())]
    # It ends with its standard input: when this process ends, however that comes.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        listening.close()
        folder.cleanup()

    atexit.register(end)
    return address


def _import_all() -> None:
    os.environ["GRPC_VERBOSITY"] = "NONE"  # as the command says, before it imports gRPC
    for name in ("comity.cli", "comity_server"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)


def _serve(listening: socket.socket) -> NoReturn:
    """Fork a child for each who asks, which itself forks the command and waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_blocking(0, False)
    watched = os.getppid()
    listening.settimeout(1)
    while os.getppid() == watched:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        with contextlib.suppress(TimeoutError):
            asked, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _wait(asked)
            asked.close()
    os._exit(0)


def _wait(asked: socket.socket) -> NoReturn:
    asked.settimeout(None)
    size, files, _, _ = socket.recv_fds(asked, NUMBER_BYTES, 3)
    with asked.makefile("rb") as reader:
        arguments, env, folder = json.loads(reader.read(int.from_bytes(size, "big")))
    pid = os.fork()
    if pid == 0:
        asked.close()
        _run(arguments, env, folder, files)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):  # who asked waits no longer
        asked.sendall(pid.to_bytes(NUMBER_BYTES, "big"))
        _, status = os.waitpid(pid, 0)
        asked.sendall(os.waitstatus_to_exitcode(status).to_bytes(NUMBER_BYTES, "big", signed=True))
    os._exit(0)


def _run(arguments: Sequence[str], env: Mapping[str, str], folder: str, files: Sequence[int]) -> NoReturn:
    """Be the command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # as of a start from nothing
    sys.argv = ["comity", *arguments]
    code: Any = 1
    try:
        import comity_cli

        comity_cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        _end(code if isinstance(code, int) else int(code is not None))


def _end(code: int) -> NoReturn:
    """As the interpreter does: what waits for threads waits. But what there is is left, not taken down thing by thing,
    which is most of the time of a command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    os._exit(code)


if __name__ == "__main__":
    _import_all()
    gc.freeze()  # those that are forked need not look through it, nor have a copy of it
    _serve(socket.socket(fileno=int(sys.argv[1])))
