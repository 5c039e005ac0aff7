"""What is deployed: the files are what Ray and Kubernetes take, agree with each other, and hold no secret."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from kit.config import load, to_dict
from serve.config import ADMIN_TOKEN, TOKEN, EndpointConfig, tokens
from tournament.config import TournamentConfig
from tournament.execute import bundles

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CLUSTERS = [ROOT / "cluster.yaml", *sorted(DEPLOY.glob("cluster-*.yaml"))]
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))
WRITTEN = [file for file in DEPLOY.rglob("*") if file.is_file() and "cache" not in file.parent.name]
EVERY_FILE = [*CLUSTERS, *sorted(WRITTEN), ROOT / "configs/cluster.yaml"]
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|[0-9a-f]{32}|gh[ps]_\w{30}|(?i:(token|password|secret|key)\s*[=:]\s*[\w-]{16})"
)

# The fields of KubeRay's v1 API that these files may use, by type.
POD = {"template", "rayStartParams", "resources", "labels"}
WORKERS = POD | {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "suspend", "scaleStrategy"}
CLUSTER = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"}
CLUSTER |= {"workerGroupSpecs", "suspend", "gcsFaultToleranceOptions", "upgradeStrategy", "managedBy"}
AUTOSCALER = {
    "version",
    "idleTimeoutSeconds",
    "resources",
    "image",
    "env",
    "envFrom",
    "upscalingMode",
    "imagePullPolicy",
}
JOB = {"entrypoint", "runtimeEnvYAML", "jobId", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submissionMode"}
JOB |= {"rayClusterSpec", "backoffLimit", "activeDeadlineSeconds", "entrypointNumCpus", "suspend", "deletionStrategy"}
SERVICE = {"serveConfigV2", "rayClusterConfig", "upgradeStrategy", "serviceUnhealthySecondThreshold", "serveService"}


def tree(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def named(files: list[Path]) -> Any:
    return pytest.mark.parametrize("file", files, ids=lambda file: file.name)


@named(CLUSTERS)
def test_a_cluster_file_is_what_ray_takes(file: Path) -> None:
    validate_config(prepare_config(tree(file)))


@named(CLUSTERS)
def test_a_cluster_asks_for_its_token_and_shows_its_dashboard_to_its_own_machine_alone(file: Path) -> None:
    config = tree(file)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = config[name]
        assert stop == "ray stop"
        assert "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start " in start
    head = config["head_start_ray_commands"][1]
    assert "--dashboard-host=127.0.0.1" in head
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert config["setup_commands"], "without any, Ray would install a nightly build of itself"


@named(CLUSTERS)
def test_ray_chooses_the_shared_memory_of_a_container(file: Path) -> None:
    """With less than three tenths of the machine's memory it would keep objects on the disk."""
    assert not [words for words in tree(file)["docker"]["run_options"] if "shm" in words]


def test_all_machines_of_ones_own_join() -> None:
    """Head and workers are of one type there, and the second autoscaler counts the head among its workers."""
    config = tree(DEPLOY / "cluster-onprem.yaml")
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0 " in config["head_start_ray_commands"][1]


@named([file for file in CLUSTERS if "available_node_types" in tree(file)])
def test_a_cloud_grows_from_nothing_and_trains_nothing_on_its_head(file: Path) -> None:
    types = tree(file)["available_node_types"]
    head = types.pop(tree(file)["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert [kind["min_workers"] for kind in types.values()] == [0, 0]
    spot = [name for name, kind in types.items() if "SPOT" in str(kind).upper()]
    assert spot == ["gpu_spot"], "one kind is cheap, and one is there when that is not"


@named([file for file in CLUSTERS if "available_node_types" in tree(file)])
def test_every_trial_of_the_cluster_tournament_fits_on_a_machine_of_the_cloud(file: Path) -> None:
    config = load(TournamentConfig, ROOT / "configs/cluster.yaml")
    workers = [kind["resources"] for name, kind in tree(file)["available_node_types"].items() if name != "head"]
    for machine in workers:
        for algorithm in config.search.algorithms:
            pod = config.search.pods.get(algorithm)
            places = bundles(config.execution, to_dict(pod) if pod else {"kind": "anakin"})
            assert sum(place["CPU"] for place in places) <= machine["CPU"]
            assert sum(place["GPU"] for place in places) <= machine["GPU"]


def test_the_cluster_tournament_trains_in_both_kinds_of_pods() -> None:
    config = load(TournamentConfig, ROOT / "configs/cluster.yaml")
    assert config.search.pods["ppo"].kind == "sebulba"
    assert set(config.search.algorithms) > set(config.search.pods)


@named(MANIFESTS)
def test_a_manifest_has_fields_that_kuberay_knows(file: Path) -> None:
    manifest = tree(file)
    assert manifest["apiVersion"] == "ray.io/v1"
    fields, inner = {"RayJob": (JOB, "rayClusterSpec"), "RayService": (SERVICE, "rayClusterConfig")}[manifest["kind"]]
    assert set(manifest["spec"]) <= fields
    cluster = manifest["spec"][inner]
    assert set(cluster) <= CLUSTER
    assert set(cluster.get("autoscalerOptions", {})) <= AUTOSCALER
    assert set(cluster["headGroupSpec"]) <= POD
    assert all(set(group) <= WORKERS for group in cluster["workerGroupSpecs"])
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert pins()["ray"] == cluster["rayVersion"]


@named(MANIFESTS)
def test_every_pod_is_bounded_runs_as_nobody_and_sees_the_shared_folder(file: Path) -> None:
    spec = tree(file)["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        shared = next(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "memory")
        assert gibibytes(shared) >= 0.3 * gibibytes(container["resources"]["limits"]["memory"])
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"shared": "/mnt/podracer", "memory": "/dev/shm"}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
        for variable in container.get("env", []):
            assert "TOKEN" not in variable["name"] or "secretKeyRef" in variable["valueFrom"]


def gibibytes(text: str) -> float:
    assert text.endswith("Gi")
    return float(text[:-2])


def test_the_endpoint_of_kubernetes_is_what_serve_takes_and_ours() -> None:
    spec = tree(DEPLOY / "kuberay/endpoint.yaml")["spec"]
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = deployed.applications
    (ours,) = ServeDeploySchema.model_validate(tree(ROOT / "serve/config.yaml")).applications
    assert application.import_path == ours.import_path
    assert [d.name for d in application.deployments] == [d.name for d in ours.deployments]
    load(EndpointConfig, None, [f"{name}={value}" for name, value in application.args.items()])
    variables = {
        v["name"] for v in spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert {TOKEN, ADMIN_TOKEN} <= variables


@named(EVERY_FILE)
def test_no_file_holds_a_secret(file: Path) -> None:
    assert not SECRET.search(file.read_text())


def test_the_search_for_secrets_would_find_one() -> None:
    for text in ("AKIAABCDEFGHIJKLMNOP", "token: abcdefghijklmnop1", "PASSWORD=hunter2hunter2hunter2", "a" * 32):
        assert SECRET.search(text), text


def test_the_image_runs_as_nobody_and_installs_what_was_pins() -> None:
    lines = (DEPLOY / "Dockerfile").read_text()
    assert lines.index("USER podracer") < lines.index("pip install")
    assert re.search(r"^ENV HOME=/home/podracer ", lines, re.M), "or `ray up` mounts the token into /root"
    installs = re.findall(r"pip install .*", lines)
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)
    assert "--no-deps elegantrl" in installs[-1]
    copied = (ROOT / "pyproject.toml").read_text()
    rooms = re.search(r"for room in (.*?);", lines)
    assert rooms and all(f'"{room}*"' in copied for room in rooms[1].split())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


KUBECTL = """#!/bin/sh
# Knows of no secret, and keeps what it is given.
case "$*" in
  *" get secret "*) exit 1 ;;
  *" create secret "*)
    for word in "$@"; do
      case $word in --from-file=*) cp "${word#--from-file=}" "$KEPT" ;; esac
    done ;;
esac
"""


def test_the_tokens_made_for_kubernetes_are_taken_by_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl, kept = tmp_path / "bin" / "kubectl", tmp_path / "kept"
    kubectl.parent.mkdir()
    kept.mkdir()
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o700)
    variables = os.environ | {"PATH": f"{kubectl.parent}:{os.environ['PATH']}", "KEPT": str(kept)}
    done = subprocess.run(
        ["sh", DEPLOY / "kuberay" / "secret.sh"], env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    made = [(kept / name).read_text() for name in ("token", "admin-token")]
    for name, token in zip((TOKEN, ADMIN_TOKEN), made):
        monkeypatch.setenv(name, token)
        assert token not in done.stdout + done.stderr
    assert tokens() == tuple(made)
