"""compose.yaml: by Compose's own schema, what it promises, and all that it starts, started."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import comity
from comity import sync
from tests.deploy.deployed import COMPOSE, DOCKERFILE, ROOT, compose, image, launches
from tests.deploy.running import Files, started
from tests.redis_servers import RedisServer

SETUP = COMPOSE.with_name("setup.sh")
SERVERS = ["comity-a", "comity-b"]


def test_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_both_servers_are_the_same_but_for_their_port() -> None:
    first, second = (dict(compose()["services"][name]) for name in SERVERS)
    assert first.pop("ports") == ["${COMITY_BIND:-127.0.0.1}:7171:7171"]
    assert second.pop("ports") == ["${COMITY_BIND:-127.0.0.1}:7181:7171"]
    assert first == second


@pytest.mark.parametrize("name", ["comity-a", "comity-b", "redis"])
def test_little_is_allowed(name: str) -> None:
    service = compose()["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_redis_is_reached_by_the_servers_alone() -> None:
    said = compose()
    assert "ports" not in said["services"]["redis"]
    assert said["services"]["redis"]["networks"] == ["store"]
    assert said["networks"]["store"]["internal"] is True
    assert said["services"]["comity-a"]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_the_image_is_built_by_its_dockerfile() -> None:
    service = compose()["services"]["comity-a"]
    context = (COMPOSE.parent / service["build"]["context"]).resolve()
    assert context == ROOT
    assert context / service["build"]["dockerfile"] == DOCKERFILE
    check = service["healthcheck"]
    assert check.pop("test") == ["CMD", *image().healthcheck]
    assert {name: str(value) for name, value in check.items()} == image().healthcheck_times


def test_what_is_mounted_is_a_folder() -> None:
    """A file that is replaced would stay the old one in a container that it is mounted into by itself."""
    mounts = [mount for service in compose()["services"].values() for mount in service["volumes"]]
    binds = [mount.split(":") for mount in mounts if mount.startswith(".")]
    assert sorted(source for source, *_ in binds) == ["./secrets/comity"] * 2 + ["./secrets/redis"]
    assert all(mode == "ro" for *_, mode in binds)


def setup(folder: Path, *names: str, code: int = 0) -> str:
    """Run setup.sh in a folder of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    folder.mkdir(exist_ok=True)
    for file in (SETUP, SETUP.with_name("policy.toml")):
        (folder / file.name).write_bytes(file.read_bytes())
    done = subprocess.run(["sh", folder / SETUP.name, *names], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose")
    setup(folder, "planner")
    return folder / "secrets"


def test_setup_keeps_what_is_there(secrets: Path) -> None:
    before = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    setup(secrets.parent, "planner", "second.one")
    after = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    changed = {path.relative_to(secrets) for path in after if after[path] != before.get(path)}
    assert changed == {Path("clients/second.one"), Path("comity/tokens")}
    assert after[secrets / "comity" / "tokens"].startswith(before[secrets / "comity" / "tokens"])


def test_secrets_are_kept_from_others(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o77 for path in secrets.iterdir() if path.is_file()} == {0}
    token = (secrets / "clients" / "planner").read_text().strip()
    assert [path for path in secrets.rglob("*") if path.is_file() and token in path.read_text()] == [
        secrets / "clients" / "planner"
    ]
    assert COMPOSE.with_name(".gitignore").read_text() == "/secrets/\n"


@pytest.mark.parametrize("name", ["", "../planner", ".hidden", "two words", "x;y", "x\ny"])
def test_setup_takes_no_name_that_is_none(name: str, tmp_path: Path) -> None:
    assert "is no name" in setup(tmp_path / "made", name, code=2)
    assert not (tmp_path / "made" / "secrets").exists()


def test_the_user_of_redis_is_the_one_of_the_docs(secrets: Path) -> None:
    """With what `comity copy` needs, for backups."""
    line, page = re.compile(r"^user comity .*?(?=~)(.*)$", re.MULTILINE), (ROOT / "docs" / "stores.md").read_text()
    (made,) = line.findall((secrets / "redis" / "users.acl").read_text())
    (told,) = line.findall(page)
    (of_copy,) = re.findall(r"^\| `comity copy` \| `(.*)` \|$", page, re.MULTILINE)
    assert made.split() == f"{told} {of_copy}".split()


def test_the_certificate_is_one_for_strict_clients(secrets: Path) -> None:
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"]
    command += ["-CAfile", str(secrets / "ca.crt"), str(secrets / "comity" / "tls.crt")]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr


def test_it_serves(secrets: Path, tmp_path: Path) -> None:
    """A Redis and the two servers over it, by the very commands; and a client as the file says it."""
    (tmp_path / "redis").mkdir()
    command = [word.replace("/etc/redis", str(secrets / "redis")) for word in compose()["services"]["redis"]["command"]]
    assert command[0] == "redis-server"
    url = (secrets / "comity.env").read_text().strip().removeprefix("COMITY_STORE=")
    files = Files(secrets / "comity", secrets / "ca.crt", (secrets / "clients" / "planner").read_text().strip())
    launch = launches()["compose"]
    with RedisServer(*command[1:]) as redis:
        store = url.replace("@redis", f"@{redis.address}")
        with (
            started(launch, tmp_path / "a", files, COMITY_STORE=store) as first,
            started(launch, tmp_path / "b", files, COMITY_STORE=store) as second,
        ):
            ports = [server.address.rpartition(":")[2] for server in (first, second)]
            addresses = ",".join(f"localhost:{port}" for port in ports)
            with sync.connect(addresses, tls=comity.TLS(ca=files.ca), token=files.token) as state:
                state.put("plan", {"step": 1})
                assert first.stop() == 0
                plan = state.get("plan")
                assert plan is not None
                assert plan.value == {"step": 1}
            assert second.stop() == 0


def test_the_settings_of_redis_are_durable() -> None:
    said: list[Any] = compose()["services"]["redis"]["command"]
    assert all(isinstance(word, str) for word in said)
    pairs = dict(zip(said[1::2], said[2::2], strict=True))
    assert pairs["--appendonly"] == "yes"
    assert pairs["--appendfsync"] == "always"
    assert pairs["--maxmemory-policy"] == "noeviction"


def test_redis_takes_connections_of_other_containers() -> None:
    """Protected mode refuses those from other machines while the user default has no password, as here."""
    said = compose()["services"]["redis"]["command"]
    assert said[said.index("--protected-mode") + 1] == "no"
