"""What the files of deploy/ say of the server's settings: each is one, and they agree with each other."""

import re

import pytest

from comity_server.access import exposure
from comity_server.fitting import misfits
from comity_server.settings import Settings
from comity_server.sources import unknown
from tests.deploy import settings_table
from tests.deploy.deployed import DEPLOY, MARGIN, Launch, compose, container, env_file, launches

LAUNCHES = launches()
SECURE = [name for name in LAUNCHES if name != "image"]  # which has no certificate of its own


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_settings_are_settings(launch: Launch) -> None:
    assert launch.settings().listen == ["0.0.0.0:7171"]
    assert list(unknown(launch.variables)) == []


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_others_reach_it_by_tls_and_with_a_token(launch: Launch) -> None:
    """Or not at all: an image that is just started says what is missing, and ends."""
    settings = launch.settings()
    assert list(misfits(settings)) == []
    assert not settings.insecure
    assert bool(exposure.missing(settings)) == (launch.name not in SECURE)
    assert (settings.policy is not None) == (launch.name in SECURE)


@pytest.mark.parametrize("launch", [LAUNCHES[name] for name in SECURE], ids=SECURE)
def test_a_stop_has_the_time_it_may_take(launch: Launch) -> None:
    settings = launch.settings()
    assert launch.grace is not None
    assert launch.grace >= settings.drain_delay + settings.drain_timeout + MARGIN


def test_what_is_being_answered_leaves_room_in_the_container() -> None:
    memory = {"redis": 1 << 30, "sqlite": 1 << 30, "compose": 1 << 30}
    assert {container(folder)["resources"]["limits"]["memory"] for folder in ("redis", "sqlite")} == {"1Gi"}
    assert compose()["services"]["comity-a"]["deploy"]["resources"]["limits"]["memory"] == "1g"
    for name, bytes_ in memory.items():
        assert LAUNCHES[name].settings().max_bytes <= bytes_ // 4


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_what_is_stored_lasts(launch: Launch) -> None:
    settings = launch.settings()
    assert settings.require_durable or settings.store == "sqlite:/var/lib/comity/comity.db"


def test_what_the_env_file_has_as_a_comment_is_a_setting_too() -> None:
    text = (DEPLOY / "systemd" / "comity.env").read_text()
    names = re.findall(r"^#?(COMITY_\w+)=", text, re.MULTILINE)
    assert set(env_file()) <= set(names)
    assert list(unknown(dict.fromkeys(names, ""))) == []


def test_flags_and_variables_in_comments() -> None:
    """Those of `comity serve` in all files of deploy/ and in the pages about it."""
    pages = [DEPLOY.parent / "docs" / f"{name}.md" for name in ("operations", "upgrades", "backup", "capacity")]
    flags = {"--" + name.replace("_", "-") for name in Settings.model_fields}
    for file in [*DEPLOY.rglob("*"), *pages]:
        if file in pages or (file.is_file() and "secrets" not in file.parts and file.suffix != ".json"):
            for line in re.findall(r"comity serve[^\n`|]*", file.read_text()):
                assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= {*flags, "--config", "--help"}, f"{file}: {line}"


def test_the_page_has_all_settings_as_they_are() -> None:
    """`make docs` brings it up to date."""
    assert list(settings_table.found()) == [settings_table.table()]
