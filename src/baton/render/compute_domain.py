"""The ComputeDomain that opens NVLink between the nodes of a deployment, and how its pods join it.

Sources: kubernetes-sigs/dra-driver-nvidia-gpu, api/nvidia.com/resource/v1beta1/computedomain.go (numNodes; its driver
makes the claim template); NVIDIA GPU Operator docs, "NVIDIA DRA Driver for GPUs" (nodes of one NVLink domain share the
label nvidia.com/gpu.clique, and its example holds pods together by it). Not run on real hardware.

It carries what NCCL and all2all kernels send. KV does not go over it yet: vLLM allocates its cache without a fabric
handle, so NIXL needs RDMA devices between nodes here too (vllm-project/vllm#51377).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import names, pods
from baton.render.documents import Object

NOTES = (
    "numNodes is what drivers wait for whose IMEX daemons find each other by address (IMEXDaemonsWithDNSNames off);",
    "newer drivers only report it, and pods start as soon as the daemon of their own node runs. The first engine pod",
    "chooses the NVLink clique (node label nvidia.com/gpu.clique) of all others: it must have room for them.",
)
_CLAIM = "compute-domain-channel"
_CLIQUE = "nvidia.com/gpu.clique"
_MULTI_NODE = ("gb200", "gb300")


def is_needed(deployment: Deployment) -> bool:
    """Tell whether the nodes of a deployment reach each other over NVLink."""
    return deployment.hardware.fabric == "nvlink" and deployment.hardware.accelerator in _MULTI_NODE


def domain(deployment: Deployment) -> Object:
    """Return the ComputeDomain over all nodes of all replicas of both roles."""
    return {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomain",
        "metadata": pods.metadata(deployment, names.compute_domain(deployment)),
        "spec": {
            "numNodes": len(deployment.engines),
            "channel": {"resourceClaimTemplate": {"name": names.compute_domain_channel(deployment)}},
        },
    }


def pod_claims(deployment: Deployment) -> list[Mapping[str, str]]:
    """Return the claims of an engine pod's spec."""
    return [{"name": _CLAIM, "resourceClaimTemplateName": names.compute_domain_channel(deployment)}]


def container_claims() -> list[Mapping[str, str]]:
    """Return the claims of an engine container's resources."""
    return [{"name": _CLAIM}]


def affinity(deployment: Deployment) -> Mapping[str, Any]:
    """Return what holds all engine pods of the deployment in one NVLink clique; the first pod chooses which."""
    selector = {
        "matchLabels": names.labels(deployment),
        "matchExpressions": [
            {"key": names.COMPONENT, "operator": "In", "values": [role.value for role in Role]},
        ],
    }
    term = {"labelSelector": selector, "topologyKey": _CLIQUE}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
