"""The engines of one role as a LeaderWorkerSet: a group of pods a replica, a pod a node, started and restarted as one.

Leader and workers start together (LeaderCreated): the leader is ready only when the ranks of its workers have found it.
Sources: kubernetes-sigs/lws, pkg/webhooks/pod_webhook.go and pkg/utils/pod/pod_utils.go (LWS_LEADER_ADDRESS and
LWS_WORKER_INDEX are in every container; a restarted container, init containers included, recreates the group),
config/crd/bases (a group of one pod is made from the leader's template, else the worker's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baton.catalogue.engine import load_engine, version_key, versions
from baton.engine.command import Command, Place, serve_command
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.recipe import Role
from baton.render import addresses, compute_domain, model_cache, names, pods, probes
from baton.render.documents import Object
from baton.render.environment import engine_env, literal, network

NOTES = (
    "There is no memory limit on purpose: /dev/shm would count against it, and so would pages of the checkpoint.",
    "A restarted container recreates all pods of its group: the ranks of a replica cannot go on without one of them.",
)
_LEADER = "$(LWS_LEADER_ADDRESS)"
_ADDRESS_FLAG = "--data-parallel-address"
_RANK_FLAGS = ("--data-parallel-start-rank", "--data-parallel-rank")
_HOME = "/var/cache/engine"
_SHARED_MEMORY, _CACHE = "shared-memory", "compiled"
_RDMA_FABRICS = ("infiniband", "roce", "efa")
_TEARDOWN_S, _DAY_S = 60, 24 * 3600


def group(deployment: Deployment, role: Role) -> Object:
    """Return the LeaderWorkerSet of a role.

    Raises   ConfigError if the recipe sets a flag or variable by hand that one of its fields, or the target, decides
    """
    of_role = deployment.of_role(role)
    leader = of_role[0]
    template: dict[str, Any] = {"size": leader.num_nodes, "restartPolicy": "RecreateGroupOnPodRestart"}
    if leader.num_nodes > 1:
        template["leaderTemplate"] = _pod(deployment, leader)
        template["workerTemplate"] = _pod(deployment, of_role[1])
    else:
        template["workerTemplate"] = _pod(deployment, leader)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": pods.metadata(deployment, names.engines(deployment, role), role),
        "spec": {
            "replicas": 1 + max(engine.replica for engine in of_role),
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": template,
        },
    }


def http_ports(engine: EngineSpec) -> Mapping[str, int]:
    """Return the HTTP ports of an engine's container by name: one for each rank under external load balancing."""
    if not addresses.serves_http(engine):
        return {}
    count = engine.dp_size_local if engine.load_balancing == "external" else 1
    return {f"http-{at}" if at else "http": names.HTTP_PORT + at for at in range(count)}


def _pod(deployment: Deployment, engine: EngineSpec) -> Mapping[str, Any]:
    cluster = deployment.cluster
    wait = model_cache.wait_container(deployment)
    spec: dict[str, Any] = {
        **pods.base(deployment, names.engine_account(deployment)),
        "terminationGracePeriodSeconds": _grace_s(engine),
    }
    if cluster.node_selector:
        spec["nodeSelector"] = dict(sorted(cluster.node_selector.items()))
    if cluster.tolerations:
        spec["tolerations"] = [model_cache.toleration(each) for each in cluster.tolerations]
    if compute_domain.is_needed(deployment):
        spec["affinity"] = compute_domain.affinity(deployment)
        spec["resourceClaims"] = compute_domain.pod_claims(deployment)
    if wait is not None:
        spec["initContainers"] = [wait]
    spec["containers"] = [_container(deployment, engine)]
    spec["volumes"] = [
        {"name": _SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}},
        {"name": _CACHE, "emptyDir": {}},
        model_cache.volume(deployment),
    ]
    return {"metadata": {"labels": names.labels(deployment, engine.role)}, "spec": spec}


def _container(deployment: Deployment, engine: EngineSpec) -> Mapping[str, Any]:
    command = serve_command(deployment, engine, _place(engine))
    ports = dict(http_ports(engine))
    if engine.num_nodes > 1 and engine.node_rank == 0:
        ports["dp-rpc"] = names.DP_RPC_PORT
    container: dict[str, Any] = {
        "name": "engine",
        "image": names.engine_image(deployment),
        **_words(engine, command.argv),
        "env": engine_env(deployment, Command(command.argv, {**_own_env(deployment), **command.env})),
    }
    if ports:
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    if addresses.serves_http(engine):
        container |= probes.of_engine(deployment)
    return {
        **container,
        "resources": _resources(deployment, engine),
        "securityContext": _security(deployment),
        "volumeMounts": [
            {"name": _SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 - the engines' shared memory
            {"name": _CACHE, "mountPath": _HOME},
            model_cache.mount(deployment),
        ],
    }


def _place(engine: EngineSpec) -> Place:
    spans = engine.num_nodes > 1
    return Place(
        host="0.0.0.0",
        http_port=names.HTTP_PORT,
        nixl_port=names.NIXL_PORT + engine.dp_start_rank,
        dp_address=_LEADER if spans else None,
        dp_rpc_port=names.DP_RPC_PORT if spans else None,
    )


def _words(engine: EngineSpec, argv: Sequence[str]) -> Mapping[str, list[str]]:
    """The command and its arguments; a worker's first rank follows from its index, which only a shell can multiply.

    The shell's text is fixed: what a recipe says reaches it as arguments and is never read as shell. Kubernetes puts in
    the leader's address, and nothing else.
    """
    words = [
        word if before == _ADDRESS_FLAG and word == _LEADER else literal(word)
        for before, word in zip(("", *argv), argv, strict=False)
    ]
    if engine.node_rank == 0:
        return {"command": words[:1], "args": words[1:]}
    at = next(words.index(flag) for flag in _RANK_FLAGS if flag in words)
    flag, words = words[at], words[:at] + words[at + 2 :]
    text = f'exec "$@" {flag} "$((LWS_WORKER_INDEX * {engine.dp_size_local}))"'
    return {"command": ["/bin/sh", "-c", literal(text), "sh"], "args": words}


def _own_env(deployment: Deployment) -> Mapping[str, str]:
    """Variables that follow from the pod: where compiled kernels go, and how long the server waits for its ranks.

    vLLM, FlashInfer, DeepGEMM, Triton and CUDA keep what they compile below HOME unless they are told otherwise. vLLM's
    server gives up on its own ranks after VLLM_ENGINE_READY_TIMEOUT_S (600 s by default), whatever the probe allows.
    """
    env = {"HOME": _HOME}
    if _reads(deployment, "VLLM_ENGINE_READY_TIMEOUT_S"):
        env["VLLM_ENGINE_READY_TIMEOUT_S"] = str(probes.startup_s(deployment))
    return env


def _reads(deployment: Deployment, variable: str) -> bool:
    """Tell whether the release, or else the last one before it in the catalogue, reads a variable."""
    engine, key = deployment.engine_name, version_key(deployment.engine_version)
    known = [version for version in versions(engine) if version_key(version) <= key]
    return bool(known) and load_engine(engine, known[-1]).env(variable) is not None


def _resources(deployment: Deployment, engine: EngineSpec) -> Mapping[str, Any]:
    cluster = deployment.cluster
    devices: dict[str, str] = {}
    if engine.num_gpus:
        devices["nvidia.com/gpu"] = str(engine.num_gpus)
    if cluster.rdma_resource is not None and cluster.rdma_devices_per_node:
        devices[cluster.rdma_resource] = str(cluster.rdma_devices_per_node)
    asked = {name: size for name, size in (("cpu", cluster.cpu), ("memory", cluster.memory)) if size is not None}
    found: dict[str, Any] = {"requests": {**asked, **devices}, "limits": devices}
    found = {name: value for name, value in found.items() if value}
    return {**found, "claims": compute_domain.container_claims()} if compute_domain.is_needed(deployment) else found


def _security(deployment: Deployment) -> Mapping[str, Any]:
    """The rights of an engine's container.

    RDMA pins memory, which takes IPC_LOCK; that is in force for root only, so the user is set with it. With IBGDA, GPUs
    ring the network card's doorbells: llm-d's guide for wide expert parallelism (guides/wide-ep-lws) runs DeepEP with
    SYS_RAWIO too, and in a container without rights NVSHMEM was seen to fail to map them (sgl-project/sglang#12533).
    The cluster's seccomp profile is left as it is. None of this has been tried on hardware by baton.
    """
    found: dict[str, Any] = {"allowPrivilegeEscalation": False}
    if deployment.hardware.fabric not in _RDMA_FABRICS and not deployment.cluster.rdma_resource:
        return found
    added = ["IPC_LOCK", "SYS_RAWIO"] if "NVSHMEM_IB_ENABLE_IBGDA" in network(deployment) else ["IPC_LOCK"]
    return {**found, "runAsUser": 0, "capabilities": {"add": added}}


def _grace_s(engine: EngineSpec) -> int:
    """Seconds an engine has to end: what it is told to wait for its requests (--shutdown-timeout, none by default)."""
    told = engine.flags.get("shutdown-timeout")
    return (min(max(told, 0), _DAY_S) if isinstance(told, int) else 0) + _TEARDOWN_S
