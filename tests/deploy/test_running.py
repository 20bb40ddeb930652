"""The very commands of deploy/ start servers that say they are well, take writes, and end in order."""

import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import comity
from comity import sync
from comity_server.notifying import notify_ready
from tests import servers
from tests.cli.processes import Comity
from tests.deploy.deployed import container, image, launches, manifests, of_kind
from tests.deploy.running import SERVING, Files, health, here, make_files, started

LAUNCHES = launches()


def policy() -> str:
    (config,) = of_kind("ConfigMap", manifests("common"))
    text: str = config["data"]["policy.toml"]
    return text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("files"), policy())


def write(server: servers.Server, files: Files) -> None:
    address = f"localhost:{server.address.rpartition(':')[2]}"
    with sync.connect(address, tls=comity.TLS(ca=files.ca), token=files.token) as state:
        state.put("plan", 1)
        assert next(iter(state.history())).author == "operator"


def test_image(tmp_path: Path, namespace: str) -> None:
    """It is healthy as HEALTHCHECK asks. Without a certificate it has to be told to do without."""
    with started(LAUNCHES["image"], tmp_path, COMITY_INSECURE="1") as server:
        check = [server.health_addresses[0] if word == "127.0.0.1:7172" else word for word in image().healthcheck]
        assert check[0] == "comity"
        assert Comity(server.address, namespace)(*check[1:]).text == "SERVING\n"
        with sync.connect(here(server.address)) as state:
            state.put("plan", 1)
        assert (tmp_path / "state" / "comity.db").exists()
        assert server.stop() == 0


def test_image_with_all_that_makes_it_safe_in_variables(files: Files, tmp_path: Path) -> None:
    """HEALTHCHECK has the variables of the server, and the port that it asks speaks no TLS."""
    cert, key, tokens = (str(files.folder / name) for name in ("tls.crt", "tls.key", "tokens"))
    with started(LAUNCHES["image"], tmp_path, COMITY_TLS_CERT=cert, COMITY_TLS_KEY=key, COMITY_TOKENS=tokens) as server:
        check = [server.health_addresses[0] if word == "127.0.0.1:7172" else word for word in image().healthcheck]
        run = Comity(server.address, "default")
        done = run(*check[1:], COMITY_TLS_CERT=cert, COMITY_TLS_KEY=key, COMITY_TOKENS=tokens)
        assert done.text == "SERVING\n"
        write(server, files)


@pytest.mark.parametrize("folder", ["redis", "sqlite"])
def test_kubernetes(folder: str, files: Files, redis_url: str, tmp_path: Path) -> None:
    """Each probe is answered as it asks, and SIGTERM ends it in order, after the delay that it has."""
    changed = {"COMITY_STORE": redis_url} if folder == "redis" else {}
    with started(LAUNCHES[folder], tmp_path, files, **changed) as server:
        (address,) = server.health_addresses
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert health(address, container(folder)[probe]["grpc"]["service"]) == SERVING
        write(server, files)
        assert server.stop() == 0


def test_systemd(files: Files, tmp_path: Path) -> None:
    """It tells systemd when it serves, and not before."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        with started(LAUNCHES["systemd"], tmp_path, files, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            told.settimeout(20)
            assert told.recv(100) == b"READY=1"
            (address,) = server.health_addresses
            assert health(address, "readiness") == SERVING
            write(server, files)
            assert server.stop() == 0


def test_a_service_manager_that_is_not_there_ends_no_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in (str(tmp_path / "none"), "@none", "x" * 1000, "@", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with capture_logs() as logs:
            notify_ready()
        assert [line["log_level"] for line in logs] == ["warning"] * bool(address)
