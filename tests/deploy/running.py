"""Starts what deploy/ starts, as it stands there: only folders and ports are moved to where a test may have them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity_server.access.tokens import line_of, new_token
from tests import servers
from tests.authority import Authority
from tests.deploy.deployed import Launch

FOLDERS = {"/etc/comity": "etc", "/var/lib/comity": "state"}
PORT = re.compile(r"\b(0\.0\.0\.0|127\.0\.0\.1):(?:7171|7172|9464)\b")
SERVING = health_pb2.HealthCheckResponse.SERVING
SECONDS = 20.0


@dataclass(frozen=True)
class Moved:
    """Folders of a machine or a container, and where a test has each of them."""

    folders: Mapping[str, Path]

    def text(self, text: str) -> str:
        """With the folders where they are here, and with ports that are free."""
        for there, here in self.folders.items():
            text = re.sub(rf"{re.escape(there)}(?![\w-])", str(here), text)
        return PORT.sub(r"\1:0", text)


@dataclass(frozen=True)
class Files:
    """What an operator makes: a certificate, whom clients trust for it, tokens, a policy."""

    folder: Path
    ca: Path
    token: str


def make_files(folder: Path, policy: str) -> Files:
    """In a folder, under the names that deploy/ uses. The token is operator's."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    made = authority.server()
    (folder / "tls.crt").write_bytes(made.cert)
    (folder / "tls.key").write_bytes(made.key)
    token = new_token()
    (folder / "tokens").write_text(line_of("operator", token, None) + "\n")
    (folder / "policy.toml").write_text(policy)
    return Files(folder, authority.write(folder), token)


@contextmanager
def started(launch: Launch, folder: Path, files: Files | None = None, **variables: str) -> Iterator[servers.Server]:
    """The server of a launch. The files are put where it looks for them; variables come on top."""
    moved = Moved({there: folder / here for there, here in FOLDERS.items()})
    for here in moved.folders.values():
        here.mkdir(parents=True, exist_ok=True)
    command = [moved.text(argument) for argument in launch.command]
    environment: dict[str, str | None] = {"COMITY_STORE": None, "COMITY_LISTEN": None}
    environment |= {name: moved.text(value) for name, value in launch.variables.items() if name != "PATH"}
    if files is not None:
        said = "\n".join([*command, *(value or "" for value in environment.values())])
        for path in re.findall(rf"{moved.folders['/etc/comity']}/\S+", said):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes((files.folder / Path(path).name).read_bytes())
    with servers.start(*command[2:], env={**environment, **variables}) as server:
        yield server


def here(address: str) -> str:
    """Where a server is reached from here that listens everywhere."""
    return address.replace("0.0.0.0", "127.0.0.1")


def health(address: str, service: str) -> int:
    """As a native gRPC probe asks."""
    with grpc.insecure_channel(here(address)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = stub.Check(request, timeout=SECONDS, wait_for_ready=True).status
        return status
