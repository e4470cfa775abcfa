"""The environment of engine containers: what the command needs, the network, and what only a pod knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton.engine.command import Command
from baton.recipe.deployment import Deployment

_OF_POD = {"VLLM_HOST_IP": "status.podIP", "VLLM_NIXL_SIDE_CHANNEL_HOST": "status.podIP"}
"""variables whose value is a field of the pod: addresses that other pods reach"""


def literal(text: str) -> str:
    """Return text that Kubernetes hands on as it is: `$(NAME)` in commands and variables is expanded, `$$` is `$`."""
    return text.replace("$", "$$")


def engine_env(deployment: Deployment, command: Command) -> list[dict[str, Any]]:
    """Return a container's `env`, by name; what a recipe sets by hand wins over the network's, never over the pod's."""
    plain = {**network(deployment), **command.env}
    found: dict[str, dict[str, Any]] = {name: {"name": name, "value": literal(value)} for name, value in plain.items()}
    for name, field in _OF_POD.items():
        found[name] = {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}
    return [found[name] for name in sorted(found)]


def network(deployment: Deployment) -> Mapping[str, str]:
    """Return what the libraries below vLLM need to know of the network.

    Sources: NVSHMEM 3 docs, "Environment variables" (IBGDA, bootstrap interface); NCCL docs, "Environment variables";
    vLLM docs, "Expert parallel deployment" (GLOO_SOCKET_IFNAME); UCX FAQ (UCX_TLS). Where pods ask
    for RDMA, TCP is left out: KV would crawl over it without a word. Tried on an H200 that has no RDMA (vLLM 0.22.1,
    NIXL 1.5.1): the engine then exits while it starts, UCX saying "no active messages transport".
    """
    if deployment.hardware.accelerator == "cpu":
        return {}
    interface, fabric = deployment.cluster.network_interface, deployment.hardware.fabric
    env = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    if fabric in ("infiniband", "roce"):
        env |= {
            "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": interface,
            "NVSHMEM_IB_ENABLE_IBGDA": "true",
            "NVSHMEM_REMOTE_TRANSPORT": "ibgda",
        }
    if deployment.cluster.rdma_resource is not None:
        env["UCX_TLS"] = "^tcp"
    return env
