"""The unit of systemd: by its own verifier where that is there, and what it promises."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.deployed import UNIT, env_file, launches, the, unit


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as it would be where there is a server to start."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/comity/bin/comity", str(Path(sys.executable).with_name("comity"))))
    return copy


def test_verify(installed: Path) -> None:
    checked = subprocess.run(["systemd-analyze", "verify", installed], capture_output=True, text=True, check=False)
    of_ours = [line for line in checked.stderr.splitlines() if UNIT.name in line]  # it looks at what others have, too
    assert of_ours == []


def test_exposure(installed: Path) -> None:
    """Of 10, as systemd sees it, where a plain unit has 9.6: at most 2."""
    scored = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(installed)]
    checked = subprocess.run(scored, capture_output=True, text=True, check=False)
    if "unrecognized option" in checked.stderr:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert checked.returncode == 0, checked.stdout


def test_sections() -> None:
    assert {section for section, _, _ in unit()} == {"Unit", "Service", "Install"}


def test_it_is_told_that_the_server_serves() -> None:
    assert the("Type") == "notify"


def test_workers_are_sent_one_signal() -> None:
    assert the("KillMode") == "mixed"


def test_changes_of_files_are_seen() -> None:
    assert the("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert not [value for _, name, value in unit() if name.startswith("LoadCredential")]


def test_a_wrong_setting_is_not_tried_again_but_all_else_is() -> None:
    assert the("Restart") == "on-failure"
    assert the("RestartPreventExitStatus") == "2"
    assert the("StartLimitIntervalSec") == "0"


def test_folders() -> None:
    settings = launches()["systemd"].settings()
    assert the("StateDirectory") == "comity"
    assert settings.store.startswith("sqlite:/var/lib/comity/")
    assert the("EnvironmentFile") == "/etc/comity/comity.env"
    named = [value for value in env_file().values() if value.startswith("/")]
    said = UNIT.read_text()
    for path in map(Path, named):
        assert str(path.parent) == "/etc/comity"
        assert path.name in said  # which says how it gets there


def test_the_user_is_made() -> None:
    kind, name, *_ = UNIT.with_name("comity.sysusers.conf").read_text().split()
    assert (kind, name) == ("u", the("User"))


def test_there_are_files_for_all_connections() -> None:
    assert int(the("LimitNOFILE")) > launches()["systemd"].settings().max_connections
