"""The files of deploy/, read: what each of them starts, with which settings."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from dockerfile_parse import DockerfileParser

from comity_server import serve
from comity_server.ending import LAST_SECONDS
from comity_server.options import given
from comity_server.settings import Settings
from comity_server.sources import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd" / "comity.service"
MARGIN = LAST_SECONDS  # that a stop may take beside its delay and its timeout


@dataclass(frozen=True)
class Launch:
    """How a server is started. `grace`: how many seconds it is given to end."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    grace: float | None = None

    def settings(self) -> Settings:
        """What the server would make of it."""
        assert self.command[:2] == ["comity", "serve"]
        with self._environment():
            context = serve.command.make_context("serve", list(self.command[2:]))
            return load({name: value for name, value in given(context.params).items() if name != "config"})

    @contextmanager
    def _environment(self) -> Iterator[None]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("COMITY_")}
        with patch.dict(os.environ, {**others, **self.variables}, clear=True):
            yield


# The image


@dataclass(frozen=True)
class Image:
    """A Dockerfile: the instructions of its stages, in order, and what the last one says."""

    stages: Sequence[Sequence[tuple[str, str]]]
    variables: Mapping[str, str]

    def all(self, instruction: str) -> Sequence[str]:
        return [value for name, value in self.stages[-1] if name == instruction]

    def the(self, instruction: str) -> str:
        (value,) = self.all(instruction)
        return value

    @property
    def command(self) -> Sequence[str]:
        """Raises JSONDecodeError where a shell would be in between."""
        return [*json.loads(self.the("ENTRYPOINT")), *json.loads(self.the("CMD"))]

    @property
    def healthcheck(self) -> Sequence[str]:
        check: list[str] = json.loads(self.the("HEALTHCHECK").partition("CMD")[2])
        return check

    @property
    def healthcheck_times(self) -> Mapping[str, str]:
        times = re.findall(r"--([\w-]+)=(\S+)", self.the("HEALTHCHECK").partition("CMD")[0])
        return {name.replace("-", "_"): value for name, value in times}


@cache
def image() -> Image:
    parser = DockerfileParser(path=str(DOCKERFILE))
    stages: list[list[tuple[str, str]]] = []
    for one in parser.structure:
        if one["instruction"] == "FROM":
            stages.append([])
        if one["instruction"] != "COMMENT" and stages:
            stages[-1].append((one["instruction"], one["value"]))
    return Image(stages, dict(parser.envs))


# Compose


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return content


def seconds(time: str) -> float:
    """Of a duration of Compose or systemd, as `5m`, `1s`, `30min` or `45`."""
    number, unit = re.fullmatch(r"(\d+)(s|m|min)?", time).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit in ("m", "min") else 1)


# Kubernetes


@cache
def manifests(folder: str) -> Sequence[dict[str, Any]]:
    """What `kubectl apply -k` of the folder applies. Of kustomize it knows `resources`, and nothing else is used."""
    where = KUBERNETES / folder
    said = yaml.safe_load((where / "kustomization.yaml").read_text())
    assert set(said) == {"apiVersion", "kind", "resources"}
    found: list[dict[str, Any]] = []
    for resource in said["resources"]:
        path = where / resource
        if path.is_dir():
            found += manifests(str(path.resolve().relative_to(KUBERNETES)))
        else:
            found += yaml.safe_load_all(path.read_text())
    return found


def of_kind(kind: str, all_manifests: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return [one for one in all_manifests if one["kind"] == kind]


def pod(folder: str) -> dict[str, Any]:
    (workload,) = of_kind("Deployment", manifests(folder)) or of_kind("StatefulSet", manifests(folder))
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(folder: str) -> dict[str, Any]:
    (only,) = pod(folder)["containers"]
    found: dict[str, Any] = only
    return found


# systemd


def unit() -> Sequence[tuple[str, str, str]]:
    """The lines of the unit, each with its section: (section, name, value). A name may be there more than once."""
    return list(_lines(UNIT))


def the(name: str) -> str:
    (value,) = (value for _, each, value in unit() if each == name)
    return value


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield section, name, value


def env_file() -> Mapping[str, str]:
    """What the file beside the unit sets."""
    path = UNIT.with_name(Path(the("EnvironmentFile")).name)
    return {name: value for _, name, value in _lines(path)}


# All


def launches() -> Mapping[str, Launch]:
    """Every server that something in deploy/ starts."""
    built = image()
    server = compose()["services"]["comity-a"]
    found = [
        Launch("image", built.command, built.variables),
        Launch(
            "compose",
            [built.command[0], *server["command"]],
            {**built.variables, "COMITY_STORE": "redis://redis"},
            seconds(server["stop_grace_period"]),
        ),
    ]
    for folder in ("redis", "sqlite"):
        runs = container(folder)
        variables = {**built.variables, **{one["name"]: "redis://redis" for one in runs.get("env", [])}}
        command = [built.command[0], *runs["args"]]
        found.append(Launch(folder, command, variables, pod(folder)["terminationGracePeriodSeconds"]))
    program, *arguments = shlex.split(the("ExecStart"))
    command = [Path(program).name, *arguments]
    found.append(Launch("systemd", command, env_file(), seconds(the("TimeoutStopSec"))))
    return {one.name: one for one in found}
