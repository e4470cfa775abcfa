"""The components of a DynamoGraphDeployment: its frontend and its two kinds of workers, as pod templates.

A worker's pod is the engine's pod of the Kubernetes target with another image, command and set of probes; what Dynamo's
operator brings itself (service account and token, /dev/shm, the container's ports) is taken out of it. Workers of
several nodes are started by a shell: the operator then puts its flags behind the module's name, where some releases
otherwise join all words into one text for a shell, with quoting that loses quotes, `$` and `;`. The shell's text is
fixed, and what a recipe says reaches it as arguments, which no shell reads.

Sources: ai-dynamo/dynamo, deploy/operator/internal/dynamo: backend_vllm.go (flags and variables of several nodes),
utils.go (how it adds them), component_worker.go (probes: one missed answer in 4 s ends a worker), shared_memory.go;
api/v1alpha1/shared_spec_conversion.go (how a service becomes a component).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from baton.engine import dynamo
from baton.engine.command import Place
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.recipe import Role
from baton.render import engines, model_cache, names, probes
from baton.render.documents import Object
from baton.render.environment import literal

NOTE_OF_SEVERAL_NODES = (
    "The operator gives workers of several nodes --data-parallel-size-local, -start-rank, -address and -rpc-port, and "
    "VLLM_NIXL_SIDE_CHANNEL_HOST (where it does not, Dynamo finds the pod's address): they are not here, so as not to "
    "be there twice. It takes the probes away from all but a replica's first node."
)

_MAIN = "main"
"""the container that the operator merges with its own"""
_SYSTEM_PORT = 9090
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the engines' shared memory
_SIDE_CHANNEL_HOST = "VLLM_NIXL_SIDE_CHANNEL_HOST"
_TEARDOWN_S = 60
_BY_ACCOUNT = ("serviceAccountName", "automountServiceAccountToken")
_OF_SERVICE = ("name", "resources", "env", "livenessProbe")
"""what v1alpha1 says of a service, not of its main container"""
_ALPHA_RESOURCES = {"cpu": "cpu", "memory": "memory", "nvidia.com/gpu": "gpu"}


def frontend(deployment: Deployment) -> Object:
    """Return the component that answers clients; it reads the tokenizer from the model cache."""
    replicas = deployment.cluster.gateway_replicas
    pod = _engine_pod(deployment, Role.DECODE)["spec"]
    main = {
        "name": _MAIN,
        "image": names.dynamo_image(deployment),
        "command": ["python3"],
        "args": ["-m", dynamo.FRONTEND, *dynamo.frontend_args(deployment, replicas)],
        "volumeMounts": [model_cache.mount(deployment)],
    }
    spec = {key: pod[key] for key in ("enableServiceLinks", "imagePullSecrets", "tolerations") if key in pod}
    return {
        "name": names.FRONTEND,
        "type": "frontend",
        **_runtime_version(deployment),
        "replicas": replicas,
        "podTemplate": {
            "metadata": {"labels": names.labels(deployment, names.FRONTEND)},
            "spec": {**spec, "containers": [main], "volumes": [model_cache.volume(deployment)]},
        },
    }


def worker(deployment: Deployment, role: Role) -> Object:
    """Return the component of a role.

    Raises   ConfigError if the recipe sets what one of its fields or the target decides, or Dynamo can't balance so
    """
    first = deployment.of_role(role)[0]
    template = _engine_pod(deployment, role)
    return {
        "name": role.value,
        "type": role.value,
        **_runtime_version(deployment),
        "replicas": 1 + max(engine.replica for engine in deployment.of_role(role)),
        **({"multinode": {"nodeCount": first.num_nodes}} if first.num_nodes > 1 else {}),
        "sharedMemorySize": deployment.cluster.shared_memory,
        "podTemplate": {
            "metadata": template["metadata"],
            "spec": _worker_spec(deployment, first, template["spec"]),
        },
    }


def left_out(deployment: Deployment, role: Role) -> Mapping[str, str]:
    """Return what of the recipe a role's workers are not told, and why."""
    return _command(deployment, deployment.of_role(role)[0]).left_out


def as_service(deployment: Deployment, component: Object) -> Object:
    """Return a component as v1alpha1 writes it: without its name, roles below `worker`, the pod taken apart.

    The volume of the model cache is named after its claim there, and cannot be read-only.
    """
    claim = deployment.cluster.model_cache.claim
    template = component["podTemplate"]
    spec = dict(template["spec"])
    main, *_ = spec.pop("containers")
    kind = component["type"]
    found: dict[str, Any] = {"componentType": kind if kind == names.FRONTEND else "worker"}
    if kind != names.FRONTEND:
        found["subComponentType"] = kind
    found |= {key: component[key] for key in ("runtimeVersionOverride", "replicas", "multinode") if key in component}
    if "resources" in main:
        found["resources"] = _alpha_resources(main["resources"])
    if "sharedMemorySize" in component:
        found["sharedMemory"] = {"size": component["sharedMemorySize"]}
    found["volumeMounts"] = [{"name": claim, "mountPoint": deployment.cluster.model_cache.mount_path}]
    if "env" in main:
        found["envs"] = main["env"]
    if "livenessProbe" in main:
        found["livenessProbe"] = main["livenessProbe"]
    found["extraPodMetadata"] = template["metadata"]
    if "initContainers" in spec:
        spec["initContainers"] = [_renamed(each, model_cache.VOLUME, claim) for each in spec["initContainers"]]
    spec["volumes"] = _without(spec["volumes"], model_cache.VOLUME)
    main = {key: value for key, value in main.items() if key not in _OF_SERVICE}
    main["volumeMounts"] = _without(main["volumeMounts"], model_cache.VOLUME)
    found["extraPodSpec"] = {**_filled(spec), "containers": [], "mainContainer": _filled(main)}
    return found


def _engine_pod(deployment: Deployment, role: Role) -> Mapping[str, Any]:
    """The pod of a replica's first node, as on Kubernetes."""
    group = engines.group(deployment, role)["spec"]["leaderWorkerTemplate"]
    found: Mapping[str, Any] = group.get("leaderTemplate", group["workerTemplate"])
    return found


def _worker_spec(deployment: Deployment, engine: EngineSpec, pod: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = {key: value for key, value in pod.items() if key not in _BY_ACCOUNT}
    shared = {mount["name"] for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == _SHARED_MEMORY}
    image = names.dynamo_image(deployment)
    # Dynamo lets running requests end when a pod is told to stop; the gateway's deadline says how long that may take.
    spec["terminationGracePeriodSeconds"] = math.ceil(deployment.gateway.request_timeout_s) + _TEARDOWN_S
    if "initContainers" in spec:
        spec["initContainers"] = [{**each, "image": image} for each in spec["initContainers"]]
    spec["containers"] = [_worker_container(deployment, engine, pod["containers"][0], image)]
    spec["volumes"] = _without(pod["volumes"], *shared)
    return spec


def _worker_container(
    deployment: Deployment, engine: EngineSpec, container: Mapping[str, Any], image: str
) -> Mapping[str, Any]:
    hidden = {_SIDE_CHANNEL_HOST} if engine.num_nodes > 1 else set()
    return {
        "name": _MAIN,
        "image": image,
        **_words(engine, _command(deployment, engine).args),
        "env": [each for each in container["env"] if each["name"] not in hidden],
        **_probes(deployment),
        "resources": container["resources"],
        "securityContext": container["securityContext"],
        "volumeMounts": [mount for mount in container["volumeMounts"] if mount["mountPath"] != _SHARED_MEMORY],
    }


def _command(deployment: Deployment, engine: EngineSpec) -> dynamo.DynamoCommand:
    # Of the place only the side channel's port is used; the operator fills in the addresses of a replica's nodes.
    place = Place(
        host="0.0.0.0",
        http_port=names.HTTP_PORT,
        nixl_port=names.NIXL_PORT + engine.dp_start_rank,
        dp_address="",
        dp_rpc_port=names.DP_RPC_PORT,
    )
    return dynamo.worker_command(deployment, engine, place)


def _words(engine: EngineSpec, args: Iterable[str]) -> Mapping[str, list[str]]:
    words = [literal(word) for word in args]
    if engine.num_nodes == 1:
        return {"command": ["python3"], "args": ["-m", dynamo.WORKER, *words]}
    text = f'exec python3 -m {dynamo.WORKER} "$@"'
    return {"command": ["/bin/sh", "-c"], "args": [literal(text), "sh", *words]}


def _probes(deployment: Deployment) -> Mapping[str, Any]:
    """Probes of Dynamo's own server in the worker, as long and as slow to act as those of the Kubernetes target."""
    ask = {"httpGet": {"path": "/live", "port": _SYSTEM_PORT}}
    of_engine = probes.of_engine(deployment)
    return {name: {**of_engine[name], **ask} for name in ("startupProbe", "livenessProbe")}


def _runtime_version(deployment: Deployment) -> Mapping[str, str]:
    """What the operator must be told of an image whose tag is not its release (runtimeversion.go)."""
    release = deployment.cluster.dynamo.version
    tag = names.dynamo_image(deployment).partition("@")[0].rpartition("/")[2].partition(":")[2]
    is_said = re.fullmatch(rf"[vV]?{re.escape(release)}([-+][0-9A-Za-z.+-]+)?", tag) is not None
    return {} if is_said else {"runtimeVersionOverride": release}


def _alpha_resources(resources: Mapping[str, Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("requests", "limits"):
        amounts = resources.get(kind, {})
        named = {_ALPHA_RESOURCES[name]: amount for name, amount in amounts.items() if name in _ALPHA_RESOURCES}
        custom = {name: amount for name, amount in amounts.items() if name not in _ALPHA_RESOURCES}
        found[kind] = {**named, **({"custom": custom} if custom else {})}
    return {**_filled(found), **({"claims": resources["claims"]} if "claims" in resources else {})}


def _renamed(container: Mapping[str, Any], volume: str, name: str) -> Mapping[str, Any]:
    mounts = [{**mount, "name": name} if mount["name"] == volume else mount for mount in container["volumeMounts"]]
    return {**container, "volumeMounts": mounts}


def _without(entries: Iterable[Mapping[str, Any]], *gone: str) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["name"] not in gone]


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ({}, [])}
