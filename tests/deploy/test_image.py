"""The image: what its Dockerfile promises, and that its steps make a server that runs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.deployed import DOCKERFILE, ROOT, Image, image, seconds
from tests.deploy.running import Moved

USER = 65532
STRAYS = ["server/comity_server/local.db", "server/comity_server/.env", "client/comity/some.tokens"]


def test_lint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this platform")
    checked = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_it_is_not_root() -> None:
    assert image().the("USER") == f"{USER}:{USER}"
    names = [name for name, _ in image().stages[-1]]
    assert "RUN" not in names[names.index("USER") :]


def test_it_is_small() -> None:
    """What builds is left in the stage before: nothing comes from there but the environment, which has no pip."""
    builds, runs = image().stages
    assert "--without-pip" in " ".join(value for name, value in builds if name == "RUN")
    assert image().all("COPY") == ["--from=build /opt/comity /opt/comity"]
    assert not re.search(r"\b(pip|apt-get|apk)\b", " ".join(value for name, value in runs if name == "RUN"))


def test_a_busy_machine_is_not_taken_for_an_unwell_server() -> None:
    """The check is a program, whose start takes seconds there; only then does it begin to wait for the server."""
    made = image()
    waits = float(made.healthcheck[made.healthcheck.index("--timeout") + 1])
    assert seconds(made.healthcheck_times["timeout"]) >= waits + 10


def test_signals_arrive() -> None:
    assert image().command == ["comity", "serve"]  # as JSON, without a shell
    assert image().the("STOPSIGNAL") == "SIGTERM"


def test_only_its_folder_is_written_to() -> None:
    made = image()
    assert made.the("VOLUME") == made.the("WORKDIR") == "/var/lib/comity"
    assert made.variables["PYTHONDONTWRITEBYTECODE"] == "1"
    assert made.variables["COMITY_STORE"].startswith("sqlite:/var/lib/comity/")


def test_ports() -> None:
    made = image()
    assert made.variables["COMITY_LISTEN"].endswith(f":{made.the('EXPOSE')}")
    assert asked(made) == made.variables["COMITY_HEALTH_LISTEN"]


def test_only_what_is_copied_is_sent() -> None:
    """A store, a token or an environment in the working copy must not get into a layer."""
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {source for source, _ in _copied()}
    assert {rule.removeprefix("!/") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can get to, as those of pytest's are not."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_steps(public_folder: Path) -> None:
    """Those of the first stage, in folders of a test and by this Python; what they make is then served from, and asked
    for its health, by a user who may write to nothing but the store's folder. What lies about among the code is not in
    it."""
    made = image()
    folders = {"/src": "src", "/dist": "dist", "/opt/comity": "opt", "/var/lib/comity": "state"}
    moved = Moved({there: public_folder / here for there, here in folders.items()})
    for source, target in _copied():
        place = public_folder / "src" / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    shutil.rmtree(public_folder / "src" / "client" / "comity" / "v1", ignore_errors=True)  # as .dockerignore has it
    strays = [public_folder / "src" / stray for stray in STRAYS]
    for stray in strays:
        stray.write_text("secret")
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name, value in made.stages[0]:
        if name == "RUN":
            subprocess.run(["sh", "-ec", moved.text(value)], cwd=public_folder / "src", env=path, check=True)

    programs, state = moved.folders["/opt/comity"] / "bin", moved.folders["/var/lib/comity"]
    assert (programs / "comity").exists()
    assert not list(programs.glob("pip*"))
    names = {stray.name for stray in strays}
    assert not [found for found in moved.folders["/opt/comity"].rglob("*") if found.name in names]
    state.mkdir(mode=0o700)
    user = None
    if os.getuid() == 0 and _is_everybodys(programs / "python"):
        user = USER
        os.chown(state, USER, USER)
    variables = {name: moved.text(value) for name, value in made.variables.items() if name != "PATH"}
    variables |= {"PATH": f"{programs}:/usr/bin:/bin", "COMITY_INSECURE": "1"}
    with subprocess.Popen(
        [programs / made.command[0], *made.command[1:]],
        env=variables,
        cwd=state,
        user=user,
        group=user,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("health on ").strip()
            assert process.stdout.readline().startswith("listening on ")
            check = [address if word == asked(made) else word for word in made.healthcheck]
            subprocess.run([programs / check[0], *check[1:]], env=variables, user=user, group=user, check=True)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert min(one.name for one in state.iterdir()) == "comity.db"


def asked(made: Image) -> str:
    """The address that HEALTHCHECK asks."""
    return made.healthcheck[made.healthcheck.index("--address") + 1]


def _is_everybodys(program: Path) -> bool:
    """Whether other users may run it: a Python may be in the folder of the one who installed it."""
    found = program.resolve()
    return all(one.stat().st_mode & 0o005 == 0o005 for one in (found, *found.parents))


def _copied() -> Iterator[tuple[str, str]]:
    """What the first stage copies: each path of the clone, and where it comes to be below /src."""
    for name, value in image().stages[0]:
        if name == "COPY":
            *sources, target = value.split()
            for source in sources:
                is_folder = target.endswith("/")
                yield source, str(Path(target, Path(source).name)) if is_folder else target
