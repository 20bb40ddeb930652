"""Runs the command in processes forked from one that has imported it: a start costs a tenth of what it costs else, and
most of a test of the command line is starts.

One parent serves a process of tests. It is asked over a socket, with the files that its child is to have as standard
input, output and errors, and answers with the exit code.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

REQUEST_BYTES = 16 * 1024 * 1024


def run(
    arguments: Sequence[str | bytes], *, env: Mapping[str, str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """The exit code, and what was written to standard output and to standard error. Raises TimeoutError."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(_parent())
            asking.settimeout(timeout)
            request = json.dumps([[os.fsdecode(each) for each in arguments], dict(env), str(Path.cwd())]).encode()
            socket.send_fds(
                asking, [len(request).to_bytes(8, "big")], [each.fileno() for each in (given, output, errors)]
            )
            asking.sendall(request)
            answer = asking.recv(64)
        assert answer, "the parent of the commands has ended"
        return int(answer), _all_of(output), _all_of(errors)


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
    command = [sys.executable, "-m", "tests.cli.forked", str(listening.fileno())]
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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    os.set_blocking(0, False)
    watched = os.getppid()
    listening.settimeout(1)
    while os.getppid() == watched:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
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
    size, files, _, _ = socket.recv_fds(asked, 8, 3)
    with asked.makefile("rb") as reader:
        arguments, env, folder = json.loads(reader.read(int.from_bytes(size, "big")))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        asked.close()
        _run(arguments, env, folder, files)
    for file in files:
        os.close(file)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # who asked waits no longer
        asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(arguments: Sequence[str], env: Mapping[str, str], folder: str, files: Sequence[int]) -> NoReturn:
    """Be the command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
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
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _import_all()
    _serve(socket.socket(fileno=int(sys.argv[1])))
