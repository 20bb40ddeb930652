"""The manifests: by Kubernetes' own schemas, and what they promise. Nothing here needs a cluster."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from comity_server.services.health import LIVENESS, READINESS
from tests.deploy.deployed import KUBERNETES, ROOT, container, image, launches, manifests, of_kind, pod

FOLDERS = ["redis", "sqlite"]
OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()  # whose schemas they fit
NAME = {"app.kubernetes.io/name": "comity"}


def identity(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize("version", [pytest.param(OLDEST, marks=pytest.mark.long), NEWEST])
def test_schemas(version: str) -> None:
    for manifest in {identity(one): one for folder in FOLDERS for one in manifests(folder)}.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_makes_the_same_of_it(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    made = subprocess.run(["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, check=True)
    by_kustomize = {identity(one): one for one in yaml.safe_load_all(made.stdout)}
    assert by_kustomize == {identity(one): one for one in manifests(folder)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_ports(folder: str) -> None:
    """Of the server's settings, the container, the services, the probes, the network policies and Prometheus."""
    settings = launches()[folder].settings()
    said = {one["name"]: one["containerPort"] for one in container(folder)["ports"]}
    listened = {"grpc": settings.listen[0], "health": settings.health_listen[0], "metrics": settings.metrics_listen}
    assert {name: f"0.0.0.0:{port}" for name, port in said.items()} == listened
    for service in of_kind("Service", manifests(folder)):
        assert [(one["port"], one["targetPort"]) for one in service["spec"]["ports"]] == [(said["grpc"], "grpc")]
    for policy in of_kind("NetworkPolicy", manifests(folder)):
        for rule in policy["spec"].get("ingress", []):
            assert {one["port"] for one in rule["ports"]} <= set(said)
    (workload,) = (one for one in manifests(folder) if one["kind"] in ("Deployment", "StatefulSet"))
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(said["metrics"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_probes(folder: str) -> None:
    """A store that is away, or a drain, takes a server out of the service, and gets it killed by nobody."""
    runs = container(folder)
    probes = {name: runs[name]["grpc"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {7172}
    assert [probe["service"] for probe in probes.values()] == [READINESS, LIVENESS, READINESS]
    assert runs["readinessProbe"]["failureThreshold"] == 1
    assert runs["startupProbe"]["failureThreshold"] * runs["startupProbe"]["periodSeconds"] >= 300


@pytest.mark.parametrize("folder", FOLDERS)
def test_little_is_allowed(folder: str) -> None:
    """What the standard `restricted` of Kubernetes asks for, and a root that cannot be written to."""
    runs, around = container(folder)["securityContext"], pod(folder)
    user = int(image().the("USER").partition(":")[0])
    assert runs["capabilities"] == {"drop": ["ALL"]}
    assert (runs["allowPrivilegeEscalation"], runs["readOnlyRootFilesystem"]) == (False, True)
    assert around["securityContext"]["runAsNonRoot"] is True
    assert around["securityContext"]["runAsUser"] == around["securityContext"]["fsGroup"] == user
    assert around["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert around["automountServiceAccountToken"] is False
    assert "memory" in container(folder)["resources"]["limits"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_is_selected_that_is_meant(folder: str) -> None:
    (workload,) = (one for one in manifests(folder) if one["kind"] in ("Deployment", "StatefulSet"))
    assert workload["spec"]["selector"]["matchLabels"] == workload["spec"]["template"]["metadata"]["labels"] == NAME
    for service in of_kind("Service", manifests(folder)):
        assert service["spec"]["selector"] == NAME
    for policy in of_kind("NetworkPolicy", manifests(folder)):
        assert policy["spec"]["podSelector"]["matchLabels"] == NAME
    for budget in of_kind("PodDisruptionBudget", manifests(folder)):
        assert budget["spec"]["selector"]["matchLabels"] == NAME


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_no_policy_allows_is_denied(folder: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy", manifests(folder))}
    deny = policies["comity-deny"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    assert ("comity-redis" in policies) == (folder == "redis")
    rules = [rule for one in policies.values() for rule in one.get("ingress", [])]
    reached = {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}
    assert reached["grpc"] == [{"podSelector": {"matchLabels": {"comity-client": "true"}}}]
    assert reached["health"] is None  # from anywhere: the probes come from nodes


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_file_is_there(folder: str) -> None:
    """What a setting names is mounted, from a secret or a config map that has it, and as a whole folder: or else what
    changes would not be seen."""
    runs, volumes = container(folder), {one["name"]: one for one in pod(folder)["volumes"]}
    mounts = {one["mountPath"]: one for one in runs["volumeMounts"]}
    assert all("subPath" not in mount for mount in mounts.values())
    settings = launches()[folder].settings()
    said = (KUBERNETES / folder / "kustomization.yaml").read_text()
    for path in (settings.tls_cert, settings.tls_key, settings.tokens, settings.policy):
        assert path is not None
        volume = volumes[mounts[str(path.parent)]["name"]]
        if "secret" in volume:
            secret = volume["secret"]["secretName"]
            kind = "tls" if path.name.startswith("tls.") else "generic"
            assert f"kubectl create secret {kind} {secret} " in said
            assert kind == "tls" or f"--from-file={path.name}\n" in said
        else:
            (config,) = of_kind("ConfigMap", manifests(folder))
            assert volume["configMap"]["name"] == config["metadata"]["name"]
            assert path.name in config["data"]


def test_the_authority_of_the_redis_is_where_the_page_says() -> None:
    """In the secret of the store, if it is there."""
    page = (ROOT / "docs" / "operations.md").read_text()
    (path,) = re.findall(r"\?ssl_ca_certs=([/\w.]+)'", page)
    (mount,) = (one for one in container("redis")["volumeMounts"] if one["mountPath"] == str(Path(path).parent))
    (volume,) = (one for one in pod("redis")["volumes"] if one["name"] == mount["name"])
    name = Path(path).name
    assert volume["secret"]["secretName"] == container("redis")["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    assert volume["secret"]["optional"] is True
    assert volume["secret"]["items"] == [{"key": name, "path": name}], "not the URL, which has the password in it"
    assert f"kubectl create secret generic {volume['secret']['secretName']} --from-file={name} " in page


def test_a_rolling_update_of_servers_over_redis() -> None:
    (deployment,) = of_kind("Deployment", manifests("redis"))
    assert deployment["spec"]["replicas"] >= 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert launches()["redis"].settings().drain_delay > 0
    assert container("redis")["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "comity-store"
    (budget,) = of_kind("PodDisruptionBudget", manifests("redis"))
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_file_has_one_server() -> None:
    (workload,) = of_kind("StatefulSet", manifests("sqlite"))
    assert workload["spec"]["replicas"] == 1
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind("Service", manifests("sqlite"))}
    assert services[workload["spec"]["serviceName"]]["clusterIP"] == "None"
    (claim,) = workload["spec"]["volumeClaimTemplates"]
    mounts = {one["name"]: one["mountPath"] for one in container("sqlite")["volumeMounts"]}
    store = launches()["sqlite"].settings().store
    assert store.startswith(f"sqlite:{mounts[claim['metadata']['name']]}/")


def test_the_page_of_the_server_shows_the_same_probes() -> None:
    page = (ROOT / "docs" / "server.md").read_text()
    (shown,) = re.findall(r"```yaml\n(startupProbe.*?)```", page, re.DOTALL)
    assert yaml.safe_load(shown) == {name: container("redis")[name] for name in yaml.safe_load(shown)}
