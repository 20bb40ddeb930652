"""What agents are forked from: a process that has imported what every one of them needs, and has done nothing else.

It is a `forkserver` of multiprocessing, apart from the program's own, which is there as long as this process and any
that was forked from it. It has no threads, and has only imported gRPC, which does not survive a fork once it is in
use. What a process inherits is the same as by `spawn`: the environment, the folder and the files of the moment at which
it starts.

Much of that is by what is private to Python: where that is not there, an import of this raises ImportError or
AttributeError.
"""

import atexit
import contextlib
import io
import os
import resource
import signal
import sys
import threading
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess, set_spawning_popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NoReturn

import google.protobuf
import grpc

from .identity import has_ended

__all__ = ["UNKNOWN", "fork"]

PRELOAD: Final = "comity.agents.process"
UNKNOWN: Final = 256  # an exit code that is not known, which no process has
IMPORT_SECONDS: Final = 30.0  # in which a server has imported that
START_SECONDS = 10.0  # in which one that has forks a process
TELL_SECONDS = 2.0  # in which it tells of the end of one
LOOK_SECONDS: Final = 1.0  # between looks whether one has ended, where that cannot be waited for
# What is read as Python starts, or as what is preloaded is imported, and not again.
READ_ONCE: Final = (
    "GRPC_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "OPENSSL_",
    "PROTOCOL_BUFFERS_",
    "PYTHON",
    "SSL_",
    "TZ",
    "TEMPORARILY_DISABLE_PROTOBUF",
)
# Lines of /proc/self/status that say what a process hands on to those that it starts.
STATUS: Final = (
    "Cap",
    "Cpus_allowed",
    "Gid",
    "Groups",
    "Mems_allowed",
    "NoNewPrivs",
    "Seccomp",
    "SigIgn",
    "Uid",
    "Umask",
)
LIMITS: Final = 16  # that Linux has, of resources

NEEDED: Final = (  # at the end, in what was forked, where it would be too late to spawn it
    atexit._run_exitfuncs,
    BaseProcess._bootstrap,  # type: ignore[attr-defined]
)

is_forked = False  # this process was


def fork(process: BaseProcess) -> "_Forked | None":
    """Start the process. None: what would be forked has imported something else than this process."""
    if (server := _servers.get()) is None:
        return None
    try:
        return _Forked(process, server)
    except TimeoutError:
        _servers.forget(server)
        raise


class _Forked(popen_forkserver.Popen):
    """A process that a server has forked.

    The server tells of its end, and of its exit code. One that is stopped, or hangs, does not, so the end itself is
    waited for as well.
    """

    _fds: list[int]
    returncode: int | None

    def __init__(self, process: BaseProcess, server: "_Server", *, main: bool = True) -> None:
        self._server: _Server | None = server  # until it has told of the end
        self._main = main  # whether it imports the program's main module
        self._life: int | None = None  # a descriptor that is ready once it has ended
        self._reading = threading.Lock()  # the exit code, which comes once
        super().__init__(process)

    def _launch(self, process: BaseProcess) -> None:
        preparation: dict[str, Any] = spawn.get_preparation_data(process.name)
        if not self._main:
            preparation = {key: value for key, value in preparation.items() if not key.startswith("init_main")}
        content = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump({"environment": _Environment(), **preparation}, content)
            reduction.dump(process, content)
        finally:
            set_spawning_popen(None)
        assert self._server is not None
        self.sentinel, writes = self._server.connect_to_new_process(self._fds)
        with os.fdopen(writes, "wb") as to:
            kept = os.dup(writes)  # by which the child sees the end of this process
            self.finalizer = util.Finalize(self, util.close_fds, (kept, self.sentinel))  # type: ignore[attr-defined]
            if not wait([self.sentinel], self._server.patience):
                self._server.give_up()
            try:
                self.pid = forkserver.read_signed(self.sentinel)
            except EOFError as error:
                raise ChildProcessError("what agents are forked from has ended") from error
            with contextlib.suppress(AttributeError, OSError):  # Linux before 5.3 has none
                self._life = os.pidfd_open(self.pid)
                util.Finalize(self, os.close, (self._life,))
            to.write(content.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        blocking = flag != os.WNOHANG
        if blocking and self.returncode is None:
            self._wait_for_end()
        with self._reading:
            if self.returncode is None:
                self.returncode = self._read_code(UNKNOWN if blocking else None)
        if self.returncode is not None:
            self._server = None
        return self.returncode

    def _wait_for_end(self) -> None:
        """Until the server has told of it, or is late to do so."""
        if self._life is not None:
            if self.sentinel in wait([self.sentinel, self._life]):
                return
        else:
            while not has_ended(self.pid):
                if wait([self.sentinel], LOOK_SECONDS):
                    return
        wait([self.sentinel], TELL_SECONDS)

    def _read_code(self, untold: int | None) -> int | None:
        if not wait([self.sentinel], 0):
            return untold
        try:
            code: int = forkserver.read_signed(self.sentinel)
        except (OSError, EOFError):  # the server has ended
            return UNKNOWN
        return code


class _Server(forkserver.ForkServer):
    """Ends once nobody starts processes by it any more, nor waits for what it tells of the ends of some.

    One that does not answer is given up: it forks nothing more. It is killed at that moment, when none is hurt by it.
    """

    _forkserver_pid: int | None
    _forkserver_alive_fd: int | None

    def __init__(self) -> None:
        super().__init__()
        self.patience = IMPORT_SECONDS
        self.given_up = False
        self.ended = threading.Event()
        self.set_forkserver_preload([PRELOAD])
        self.ensure_running()
        arguments = self._forkserver_pid, self.ended
        threading.Thread(target=_reap, args=arguments, name="wait for a forkserver", daemon=True).start()

    def give_up(self) -> NoReturn:
        self.given_up = True
        raise TimeoutError("what agents are forked from does not answer")

    def __del__(self) -> None:
        if self._forkserver_alive_fd is not None:
            os.close(self._forkserver_alive_fd)
        if self.given_up and self._forkserver_pid is not None and not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._forkserver_pid, signal.SIGKILL)


def _reap(pid: int, ended: threading.Event) -> None:
    with contextlib.suppress(ChildProcessError):  # another one has
        os.waitpid(pid, 0)
    ended.set()


class _Environment:
    """This process's environment, which becomes that of the process by which it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return _inherit, (dict(os.environ),)


class _Servers:
    """The server of this process, and a new one whenever processes are to inherit what the former does not have."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._of: object = None
        self._is_sound = False
        self._lock = threading.Lock()

    def get(self) -> _Server | None:
        """None: it would fork what has imported something else than this process."""
        with self._lock:
            if (now := _inherited()) != self._of or self._server is None or self._server.ended.is_set():
                self._server = None
                server = _Server()
                self._is_sound = _is_sound(server)
                server.patience = START_SECONDS
                self._server, self._of = server, now
            return self._server if self._is_sound else None

    def forget(self, server: _Server) -> None:
        with self._lock:
            if self._server is server:
                self._server = None


_servers: Final = _Servers()


def _inherited() -> object:
    """What a server passes on as it was at its own start."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(READ_ONCE)}
    lines = Path("/proc/self/status").read_text(errors="surrogateescape").splitlines()
    status = [line for line in lines if line.startswith(STATUS)]
    limits = [resource.getrlimit(number) for number in range(LIMITS)]
    group = os.getpid(), os.getpgrp(), os.getsid(0), os.getpriority(os.PRIO_PROCESS, 0)
    return group, status, limits, [_file(number) for number in (1, 2)], environment, spawn.get_executable()


def _file(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_sound(server: _Server) -> bool:
    """Whether it has imported the same: it looks for that before it is told of this process's `sys.path`."""
    process = SpawnProcess(target=_check, args=(_files(),), name="check")
    check = _Forked(process, server, main=False)
    if (code := check.wait(START_SECONDS)) is None:
        server.give_up()
    return code == 0


def _inherit(environment: dict[str, str]) -> None:
    global is_forked
    is_forked = True
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)


def _files() -> list[str | None]:
    return [__file__, grpc.__file__, google.protobuf.__file__]


def _check(files: list[str | None]) -> None:
    sys.exit(files != _files())
