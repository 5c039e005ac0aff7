"""The machines of cluster.yaml come while pods wait for them, and go when none does: Ray's own autoscaler says so.

It drives a provider whose machines are processes on this one, each with the resources that the file names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from heads import ROOT, head

from kit.config import load, to_dict
from tournament.config import TournamentConfig
from tournament.execute import bundles

AT_ONCE = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
IDLE = 0.05  # minutes
DRIVER = """
import json, sys, time
import ray
from ray.util.placement_group import placement_group, remove_placement_group

address, pod = sys.argv[1], json.loads(sys.argv[2])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")

def machines():
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]

def wait_for(what):
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until, machines()
        time.sleep(0.2)

counts = [len(machines())]
placed = placement_group(pod)
assert placed.wait(60)
counts.append(len(machines()))
remove_placement_group(placed)
wait_for(lambda: not machines())
counts.append(len(machines()))
print(json.dumps(counts))
"""


def fake(cluster: dict[str, Any], address: str) -> dict[str, Any]:
    """The cluster file with its limits and its machines' resources, and processes for machines."""
    head_type = "ray.head.default"  # the name that the provider knows
    types = {
        head_type if name == cluster["head_node_type"] else name: {**machine, "node_config": {}}
        for name, machine in cluster["available_node_types"].items()
    }
    provider = {
        "type": "fake_multinode",
        "gcs_address": address,
        "use_node_id_as_ip": True,  # they all have one address
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    lists = ("setup_commands", "initialization_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
    return {
        **{name: cluster[name] for name in ("cluster_name", "max_workers", "upscaling_speed")},
        **{name: [] for name in (*lists, "rsync_filter")},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "available_node_types": types,
        "head_node_type": head_type,
        "provider": provider,
        "idle_timeout_minutes": IDLE,
        "file_mounts_sync_continuously": False,
    }


def test_machines_come_for_a_waiting_pod_and_go_when_none_waits(tmp_path: Path) -> None:
    config = load(TournamentConfig, ROOT / "configs" / "cluster.yaml")
    pod = bundles(config.execution, to_dict(config.search.pods["ppo"]))
    with head() as cluster:
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump(fake(yaml.safe_load((ROOT / "cluster.yaml").read_text()), cluster.address)))
        cluster.start(["--num-cpus=0", "--num-gpus=0", f"--autoscaling-config={file}"], AT_ONCE)
        done = cluster.run(sys.executable, "-c", DRIVER, cluster.address, json.dumps(pod))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 1, 0]
