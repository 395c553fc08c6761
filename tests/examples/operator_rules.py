"""What KubeRay's operator refuses though every field is right: its rules between fields.

In our own words, after ray-operator/controllers/ray/utils/validation.go of KubeRay v1.7 (Apache-2.0), but for those of
fault tolerance, deletion and encryption that no manifest of ours comes near. What concerns one field alone is in
kuberay.schema.json.
"""

TAKEN_FROM_RAY = ("num-cpus", "num-gpus", "memory", "resources")
GATED = ("historyServerOptions", "networkPolicy", "tlsOptions")
AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def refusals(manifest):
    """A sentence for each rule that a RayCluster or a RayJob breaks."""
    spec = manifest["spec"]
    if manifest["kind"] == "RayCluster":
        return _of_cluster(spec)
    cluster = spec.get("rayClusterSpec")
    return [*_of_job(spec, cluster or {}), *(_of_cluster(cluster) if cluster else ())]


def _of_job(spec, cluster):
    mode, selector = spec.get("submissionMode"), spec.get("clusterSelector")
    stays = not spec.get("shutdownAfterJobFinishes")
    sidecar = mode == "SidecarMode"
    deletes = "deletionRules" in spec.get("deletionStrategy", {})
    submitter = "submitterPodTemplate" in spec or "submitterConfig" in spec
    rules = {
        "suspend needs shutdownAfterJobFinishes": spec.get("suspend") and stays,
        "suspend is not for a cluster that is there": spec.get("suspend") and selector,
        "ttlSecondsAfterFinished needs shutdownAfterJobFinishes": spec.get("ttlSecondsAfterFinished") and stays,
        "deletionRules exclude shutdownAfterJobFinishes": deletes and not stays,
        "rayClusterSpec or clusterSelector is needed": not cluster and not selector,
        "clusterSelector names its cluster by ray.io/cluster": selector and not selector.get("ray.io/cluster"),
        "backoffLimit makes new clusters": spec.get("backoffLimit") and (selector or mode == "InteractiveMode"),
        "SidecarMode is for a cluster of its own": sidecar and selector,
        "SidecarMode has no submitter": sidecar and submitter,
        "SidecarMode never restarts the head": sidecar and cluster and _restarts(cluster["headGroupSpec"]),
        "a job's cluster has no upgradeStrategy": cluster.get("upgradeStrategy", {}).get("type"),
        "a job has no token of Kubernetes": cluster.get("authOptions", {}).get("enableK8sTokenAuth"),
    }
    return [words for words, broken in rules.items() if broken]


def _of_cluster(spec):
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    options, autoscaled = spec.get("autoscalerOptions", {}), spec.get("enableInTreeAutoscaling", False)
    environment = {each["name"]: each.get("value") for each in head["template"]["spec"]["containers"][0].get("env", ())}
    by_variable = environment.get(AUTOSCALER_V2) in ("1", "true")
    twice = autoscaled and "version" in options and AUTOSCALER_V2 in environment
    second = autoscaled and options.get("version") == "v2"
    redis = "RAY_REDIS_ADDRESS" in environment and "gcsFaultToleranceOptions" not in spec
    token = spec.get("authOptions") is not None and spec["authOptions"].get("mode", "token") == "token"
    user = "REDIS_USERNAME" in environment or head.get("rayStartParams", {}).get("redis-username")
    rules = {
        f"{AUTOSCALER_V2} needs enableInTreeAutoscaling": by_variable and not autoscaled,
        f"{AUTOSCALER_V2} or autoscalerOptions.version": twice,
        "autoscaler v2 restarts no pod": second and any(map(_restarts, (head, *workers))),
        "a token needs Ray 2.52": token and _version(spec.get("rayVersion", "0")) < (2, 52),
        "RAY_REDIS_ADDRESS needs gcsFaultToleranceOptions": redis,
        "Redis' user name belongs into gcsFaultToleranceOptions": user,
        "a group is suspended by the operator alone": any(group.get("suspend") for group in workers),
        **{f"{key} needs a feature gate": key in spec for key in GATED},
    }
    found = [words for words, broken in rules.items() if broken]
    for group in (head, *workers):
        found += _of_group(group, second or by_variable)
    return found


def _of_group(group, second):
    name, given = group.get("groupName", "head"), group.get("rayStartParams", {})
    twice = group.get("resources") and any(given.get(key) for key in TAKEN_FROM_RAY)
    rules = {
        f"{name}: resources or rayStartParams": twice,
        f"{name}: labels are no rayStartParams": "labels" in given,
        f"{name}: minReplicas above maxReplicas": group.get("minReplicas", 0) > group.get("maxReplicas", 2**31 - 1),
        f"{name}: idleTimeoutSeconds needs autoscaler v2": "idleTimeoutSeconds" in group and not second,
        f"{name}: priority needs autoscaler v2": group.get("priority") and not second,
    }
    return [words for words, broken in rules.items() if broken]


def _restarts(group):
    return group["template"]["spec"].get("restartPolicy", "Never") != "Never"


def _version(text):
    return tuple(int(part) for part in text.split(".")[:2])
