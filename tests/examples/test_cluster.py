"""examples/cluster: manifests that KubeRay takes, a campaign that loads, versions and names that fit each other."""

import copy
import importlib.metadata
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from evoquant.campaign.config import load_config

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "examples" / "cluster"
SCHEMA = json.loads((HERE / "kuberay.schema.json").read_text())
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")


def manifests(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check(manifest):
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)


def clusters():
    """The RayCluster's specification, and the RayJob's."""
    return [manifests("raycluster.yaml")[1]["spec"], manifests("rayjob.yaml")[0]["spec"]["rayClusterSpec"]]


def pods(cluster):
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for manifest in manifests(name):
        check(manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("headGroupSpec"),
        lambda spec: spec.update(workerGroupSpec=[]),
        lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["autoscalerOptions"].update(upscalingMode="Fast"),
        lambda spec: pods(spec)[0]["containers"][0]["resources"]["limits"].update(memory="8 GB"),
        lambda spec: pods(spec)[1]["containers"][0].pop("image"),
    ],
)
def test_what_kuberay_would_refuse_is_refused_here(change):
    broken = copy.deepcopy(manifests("raycluster.yaml")[1])
    change(broken["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(broken)


@pytest.mark.parametrize("broken", [False, True])
def test_pods_and_claims_keep_kubernetes_own_schema(broken):
    """With `pip install kubernetes-validate`, which holds it: 17,000 files, so not a part of the development tools."""
    kubernetes = pytest.importorskip("kubernetes_validate")
    kept = [manifests("raycluster.yaml")[0]]
    for cluster in clusters():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            metadata = {"name": "pod"} | group["template"].get("metadata", {})
            kept.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": group["template"]["spec"]})
    for manifest in kept:
        if broken:
            manifest["spec"]["resource"] = {}
            with pytest.raises(kubernetes.ValidationError):
                kubernetes.validate(manifest, "1.31", strict=True)
        else:
            kubernetes.validate(manifest, "1.31", strict=True)


def test_versions_images_and_volumes_fit_each_other():
    ray = importlib.metadata.version("ray")
    docker = (FOLDER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{ray}-py311" in docker
    assert "-c constraints.txt '.[torch,cluster]'" in docker
    for line in re.findall(r"^COPY (.+) \S+$", docker, re.MULTILINE):
        assert all((HERE.parents[1] / name).exists() for name in line.split())
    assert f"\nray=={ray}\n" in (HERE.parents[1] / "constraints.txt").read_text()
    for cluster in clusters():
        assert cluster["rayVersion"] == ray
        for pod in pods(cluster):
            (container,) = pod["containers"]
            assert container["image"].endswith(f":{ray}")
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
    claim = manifests("raycluster.yaml")[0]["metadata"]["name"]
    for cluster in clusters():
        volumes = pods(cluster)[0]["volumes"]
        assert claim in {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes}


def test_the_campaign_loads_and_a_worker_of_its_size_fits_a_pod():
    config, _ = load_config(FOLDER / "campaign.yaml")
    assert config.executor.address == "auto"
    for cluster in clusters():
        resources = pods(cluster)[1]["containers"][0]["resources"]["limits"]
        has = {"CPU": float(resources["cpu"]), "memory": float(resources["memory"].removesuffix("Gi")) * 2**30}
        assert config.executor.need.copies(has) == 8


def test_the_jobs_command_is_one_of_ours_and_writes_to_the_volume():
    from typer.testing import CliRunner

    from evoquant.cli import app

    program, command, config, *words = shlex.split(manifests("rayjob.yaml")[0]["spec"]["entrypoint"])
    assert (program, command) == ("evoquant", "run")
    options = CliRunner().invoke(app, [command, "--help"]).stdout
    assert all(word in options for word in words if word.startswith("--"))
    head = pods(clusters()[1])[0]["containers"][0]
    places = [mount["mountPath"] for mount in head["volumeMounts"]]
    assert words[words.index("--out") + 1].startswith("/runs/") and "/runs" in places
    assert str(Path(config).parent) in places
