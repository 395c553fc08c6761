"""examples/cluster: manifests that KubeRay takes, a campaign that loads, versions and names that fit each other."""

import copy
import importlib.metadata
import json
import re
import shlex
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from evoquant.campaign.config import load_config

from .operator_rules import AUTOSCALER_V2 as V2
from .operator_rules import refusals

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "examples" / "cluster"
SCHEMA = json.loads((HERE / "kuberay.schema.json").read_text())
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")
SPECS = ("RayCluster", "RayJob")
HEADS = "headGroupSpec.template.spec.containers.0.env"


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
        if manifest["kind"] in SPECS:
            assert refusals(manifest) == []
    for cluster in clusters():
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def changed(words):
    """Our RayCluster or RayJob with KEY.PATH=VALUE of its specification changed, or removed where no value is given."""
    kind, changes = words.split(" ", 1)
    made = copy.deepcopy(manifests("rayjob.yaml")[0] if kind == "RayJob" else manifests("raycluster.yaml")[1])
    for change in changes.split("; "):
        path, value = change.split("=", 1)
        *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
        at = made["spec"]
        for key in way:
            at = at[key]
        if value:
            at[last] = yaml.safe_load(value)
        else:
            del at[last]
    return made


@pytest.mark.parametrize(
    "change",
    [
        "RayCluster headGroupSpec=",
        "RayCluster workerGroupSpec=[]",
        "RayCluster rayVersion=2.6",
        "RayCluster enableInTreeAutoscaling='true'",
        "RayCluster managedBy=kueue",
        "RayCluster upgradeStrategy=Recreate",
        "RayCluster upgradeStrategy={type: Rolling}",
        "RayCluster authOptions={mode: password}",
        "RayCluster gcsFaultToleranceOptions={redisAddress: 6379}",
        "RayCluster gcsFaultToleranceOptions={redisPassword: secret}",
        "RayCluster networkPolicy={workerGroups: [{ingressRules: []}]}",
        "RayCluster autoscalerOptions.upscalingMode=Fast",
        "RayCluster autoscalerOptions.version=2",
        "RayCluster autoscalerOptions.idleTimeoutSeconds='120'",
        "RayCluster autoscalerOptions.idleTimeoutSeconds=-1",
        "RayCluster autoscalerOptions.idleTimeoutMinutes=2",
        "RayCluster headGroupSpec.template=",
        "RayCluster headGroupSpec.replicas=1",
        "RayCluster headGroupSpec.rayStartParams.num-cpus=0",
        "RayCluster headGroupSpec.template.spec.containers=[]",
        "RayCluster headGroupSpec.template.spec.containers.0.resources.limits.memory=8 GB",
        "RayCluster headGroupSpec.template.spec.securityContext.fsGroup=users",
        "RayCluster workerGroupSpecs.0.groupName=",
        "RayCluster workerGroupSpecs.0.template=",
        "RayCluster workerGroupSpecs.0.minReplicas=-1",
        "RayCluster workerGroupSpecs.0.maxReplicas=2147483648",
        "RayCluster workerGroupSpecs.0.resources={CPU: 8}",
        "RayCluster workerGroupSpecs.0.scaleStrategy=[a]",
        "RayCluster workerGroupSpecs.0.rayStartParams={block: true}",
        "RayCluster workerGroupSpecs.0.template.spec.containers.0.image=",
        "RayJob submissionMode=K8SJobMode",
        "RayJob backoffLimit=-1",
        "RayJob activeDeadlineSeconds=0",
        "RayJob preRunningDeadlineSeconds=0",
        "RayJob ttlSecondsAfterFinished=5m",
        "RayJob entrypoint=[evoquant, run]",
        "RayJob entrypointNumCpus='1'",
        "RayJob metadata={seed: 0}",
        "RayJob submitterConfig={retries: 2}",
        "RayJob rayClusterConfig={}",
        "RayJob deletionStrategy={}",
        "RayJob deletionStrategy={onSuccess: {policy: DeleteSelf}}",
        "RayJob deletionStrategy={onSuccess: {}, onFailure: {}}",
        "RayJob deletionStrategy={deletionRules: []}",
        "RayJob deletionStrategy={deletionRules: [{policy: Delete, condition: {jobStatus: FAILED}}]}",
        "RayJob deletionStrategy={deletionRules: [{policy: DeleteSelf, condition: {}}]}",
    ],
)
def test_fields_that_kuberay_refuses_are_refused_here(change):
    with pytest.raises(jsonschema.ValidationError):
        check(changed(change))


@pytest.mark.parametrize(
    "change",
    [
        "RayCluster workerGroupSpecs.0.maxReplicas=; workerGroupSpecs.0.minReplicas=",  # which have defaults
        "RayCluster workerGroupSpecs.0.rayStartParams=",
        "RayCluster workerGroupSpecs.0.priority=-1; workerGroupSpecs.0.idleTimeoutSeconds=0",
        "RayCluster workerGroupSpecs.0.labels={a: b}; workerGroupSpecs.0.numOfHosts=2",
        "RayCluster workerGroupSpecs.0.scaleStrategy={workersToDelete: [a]}",
        "RayCluster headGroupSpec.serviceType=NodePort; headGroupSpec.headService={metadata: {name: a}}",
        "RayCluster headGroupSpec.ingressOptions={host: a, pathType: Prefix}",
        "RayCluster headGroupSpec.template.spec.containers.0.resources.limits={memory: 1.5e10, cpu: .5Ki}",
        "RayCluster autoscalerOptions={version: v2, image: a, env: [{name: A}], command: [a], args: [b]}",
        "RayCluster rayVersion=nightly; authOptions={mode: disabled}; upgradeStrategy={type: Recreate}",
        "RayCluster gcsFaultToleranceOptions={redisPassword: {value: a}, externalStorageNamespace: b}",
        "RayCluster networkPolicy={mode: DenyAll, head: {ingressRules: [{}]}}",
        "RayJob submissionMode=SidecarMode; preRunningDeadlineSeconds=60",
        "RayJob deletionStrategy={deletionRules: [{policy: DeleteSelf, condition: {jobDeploymentStatus: Failed}}]}",
        "RayJob deletionStrategy={onSuccess: {policy: DeleteSelf}, onFailure: {policy: DeleteNone}}",
        "RayJob submitterConfig={backoffLimit: 2}; entrypointNumCpus=0.5; managedBy=ray.io/kuberay-operator",
    ],
)
def test_fields_that_kuberay_takes_are_taken(change):
    check(changed(change))


@pytest.mark.parametrize(("name", "right"), [("a" * 47, True), ("a" * 48, False), ("0-job", False), ("job.a", False)])
def test_a_jobs_name_leaves_room_for_its_clusters(name, right):
    job = manifests("rayjob.yaml")[0]
    job["metadata"]["name"] = name
    assert right == jsonschema.Draft202012Validator(SCHEMA).is_valid(job)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("RayJob shutdownAfterJobFinishes=false", "ttlSecondsAfterFinished needs"),
        ("RayJob suspend=true; shutdownAfterJobFinishes=; ttlSecondsAfterFinished=", "suspend needs"),
        (
            "RayJob deletionStrategy={deletionRules: [{policy: DeleteSelf, condition: {jobStatus: FAILED}}]}",
            "deletionRules exclude",
        ),
        ("RayJob rayClusterSpec=", "rayClusterSpec or clusterSelector"),
        ("RayJob clusterSelector={name: evoquant}", "clusterSelector names"),
        ("RayJob clusterSelector={ray.io/cluster: evoquant}; suspend=true", "suspend is not for"),
        ("RayJob clusterSelector={ray.io/cluster: evoquant}; backoffLimit=1", "backoffLimit makes"),
        ("RayJob clusterSelector={ray.io/cluster: evoquant}; submissionMode=SidecarMode", "SidecarMode is for"),
        ("RayJob submissionMode=InteractiveMode; backoffLimit=1", "backoffLimit makes"),
        ("RayJob submissionMode=SidecarMode; submitterConfig={}", "SidecarMode has no"),
        (
            "RayJob submissionMode=SidecarMode; rayClusterSpec.headGroupSpec.template.spec.restartPolicy=Always",
            "SidecarMode never restarts",
        ),
        ("RayJob rayClusterSpec.upgradeStrategy={type: None}", "no upgradeStrategy"),
        ("RayJob rayClusterSpec.authOptions={enableK8sTokenAuth: true}", "no token of Kubernetes"),
        ("RayJob rayClusterSpec.workerGroupSpecs.0.minReplicas=5", "cpu: minReplicas above"),
        ("RayCluster workerGroupSpecs.0.minReplicas=17", "cpu: minReplicas above"),
        ("RayCluster workerGroupSpecs.0.idleTimeoutSeconds=60", "idleTimeoutSeconds needs"),
        ("RayCluster workerGroupSpecs.0.priority=1", "priority needs"),
        ("RayCluster workerGroupSpecs.0.suspend=true", "suspended by the operator alone"),
        ("RayCluster headGroupSpec.resources={CPU: '0'}", "head: resources or rayStartParams"),
        ("RayCluster headGroupSpec.rayStartParams.labels=a=b", "head: labels are no"),
        ("RayCluster headGroupSpec.rayStartParams.redis-username=a", "Redis' user name"),
        (f"RayCluster {HEADS}=[{{name: RAY_REDIS_ADDRESS, value: 'a:1'}}]", "RAY_REDIS_ADDRESS needs"),
        (
            f"RayCluster {HEADS}=[{{name: {V2}, value: '1'}}]; autoscalerOptions.version=v2",
            "or autoscalerOptions.version",
        ),
        (f"RayCluster {HEADS}=[{{name: {V2}, value: '1'}}]; enableInTreeAutoscaling=", "needs enableInTreeAutoscaling"),
        (
            "RayCluster autoscalerOptions.version=v2; workerGroupSpecs.0.template.spec.restartPolicy=Always",
            "v2 restarts no pod",
        ),
        ("RayCluster authOptions={mode: token}; rayVersion='2.51.1'", "a token needs"),
        ("RayCluster tlsOptions={enabled: true}", "tlsOptions needs a feature gate"),
    ],
)
def test_rules_between_fields_that_the_operator_refuses(change, rule):
    broken = changed(change)
    check(broken)
    (refused,) = refusals(broken)
    assert rule in refused


@pytest.mark.parametrize("number", [0, 1])
def test_rays_own_autoscaler_reads_the_cluster(number):
    """What it counts on when workers are asked for: room for 8 of ours on a worker's pod, on the head's for none."""
    module = "ray.autoscaler._private.kuberay.autoscaling_config"
    reader = pytest.importorskip(module, exc_type=ImportError)._derive_autoscaling_config_from_ray_cr
    spec = clusters()[number]
    (group,) = spec["workerGroupSpecs"]
    read = reader({"metadata": {"name": "evoquant", "namespace": "default"}, "spec": spec})
    config, _ = load_config(FOLDER / "campaign.yaml")
    kinds = read["available_node_types"]
    places = {name: config.executor.need.copies(kind["resources"]) for name, kind in kinds.items()}
    assert places == {"headgroup": 0, group["groupName"]: 8}
    pod = kinds[group["groupName"]]
    assert (pod["min_workers"], pod["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
    assert read["idle_timeout_minutes"] == spec.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 60) / 60


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
    assert f"\nFROM rayproject/ray:{ray}-py311\n" in (FOLDER / "Dockerfile").read_text()
    assert f"\nray=={ray}\n" in (ROOT / "constraints.txt").read_text()
    (image,) = re.findall(
        r"docker build -t (\S+) -f examples/cluster/Dockerfile \.", (FOLDER / "Dockerfile").read_text()
    )
    assert image.endswith(f":{ray}")
    for cluster in clusters():
        assert cluster["rayVersion"] == ray
        for pod in pods(cluster):
            (container,) = pod["containers"]
            assert container["image"] == image
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
    claim = manifests("raycluster.yaml")[0]["metadata"]["name"]
    for cluster in clusters():
        volumes = pods(cluster)[0]["volumes"]
        assert claim in {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes}


def test_the_image_has_all_that_its_build_reads_and_its_user_may_write_there_and_to_the_volume():
    """Ray's image has a user, 1000 of group 100: setuptools writes beside the sources, a run to the volume."""
    docker = (FOLDER / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copies = re.findall(r"^COPY --chown=(\d+):(\d+) (.+) (/tmp/evoquant/\S*)$", docker, re.MULTILINE)
    assert len(copies) == docker.count("COPY ")
    copied = {name for *_, names, _ in copies for name in names.split()}
    assert copied == {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"], "evoquant"}
    assert all((ROOT / name).exists() for name in copied)
    assert "pip install --no-cache-dir -c /tmp/evoquant/constraints.txt '/tmp/evoquant[torch,cluster]'\n" in docker
    assert {"torch", "cluster"} <= project["optional-dependencies"].keys()
    users = {(user, group) for user, group, *_ in copies}
    heads = {str(pods(cluster)[0]["securityContext"]["fsGroup"]) for cluster in clusters()}
    assert users == {("1000", "100")} and heads == {"100"}


def told(program):
    """The commands that these files and docs/scale.md tell a user to give."""
    text = "\n".join(path.read_text() for path in sorted(FOLDER.iterdir()))
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    return [shlex.split(line, comments=True) for line in re.findall(rf"\b{program} \S.*", "\n".join([text, *blocks]))]


def test_every_command_of_ours_is_one_that_the_command_line_takes():
    from typer.main import get_command

    from evoquant.cli import app

    commands = told("evoquant (?:run|resume|submit)")
    assert {command for _, command, *_ in commands} == {"run", "resume", "submit"} and len(commands) >= 8
    for _, command, *words in commands:
        get_command(app).commands[command].make_context(command, words)
        assert all((ROOT / word).exists() for word in words if word.startswith("examples/"))
    (job,) = manifests("rayjob.yaml")
    assert shlex.split(job["spec"]["entrypoint"]) in commands


def test_every_command_of_kubectl_names_what_is_there():
    _, cluster = manifests("raycluster.yaml")
    head = pods(clusters()[1])[0]
    commands = told("kubectl")
    applied = [words[-1] for words in commands if words[1] == "apply"]
    assert sorted(applied) == [f"examples/cluster/{name}" for name in MANIFESTS]
    (forwarded,) = (words for words in commands if words[1] == "port-forward")
    service, port = forwarded[2:]
    assert service == f"service/{cluster['metadata']['name']}-head-svc"  # as the operator names it
    assert int(port) in {each["containerPort"] for each in pods(clusters()[0])[0]["containers"][0]["ports"]}
    (made,) = (words for words in commands if words[1] == "create")
    kind, name, source = made[2:]
    (volume,) = (volume["name"] for volume in head["volumes"] if volume.get("configMap") == {"name": name})
    key, path = source.removeprefix("--from-file=").split("=")
    assert (kind, path) == ("configmap", "examples/cluster/campaign.yaml")
    config = shlex.split(manifests("rayjob.yaml")[0]["spec"]["entrypoint"])[2]
    places = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert config == f"{places[volume]}/{key}"


def test_the_campaign_loads_and_the_job_writes_to_the_volume():
    config, _ = load_config(FOLDER / "campaign.yaml")
    assert config.executor.address == "auto"
    words = shlex.split(manifests("rayjob.yaml")[0]["spec"]["entrypoint"])
    (container,) = pods(clusters()[1])[0]["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    environment = {each["name"]: each["value"] for each in container["env"]}
    for place in (words[words.index("--out") + 1], environment["EVOQUANT_CACHE"]):
        assert place.startswith(f"{places['runs']}/")


def test_the_same_file_runs_on_one_machine_by_naming_another_executor(tmp_path, cli):
    """On profiles, which take no time."""
    import evoquant

    quick = ("task=null", "menu=null", "genome.kind=rule", "stop.generations=1", "search.population=4")
    words = ["--executor", "local", *(word for change in quick for word in ("--set", change))]
    _, errors, code = cli("run", FOLDER / "campaign.yaml", *words, "--out", tmp_path / "a", "--quiet")
    assert (code, errors) == (0, "")
    run = evoquant.run(FOLDER / "campaign.yaml", executor="local", overrides=quick, out=tmp_path / "b")
    assert (run.path / "journal.jsonl").read_bytes() == (tmp_path / "a" / "journal.jsonl").read_bytes()
