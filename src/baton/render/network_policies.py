"""Who may open a connection to a pod of the deployment. Outgoing connections are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import addresses, engines, names, pods
from baton.render.documents import Object
from baton.render.environment import network

NOTES = (
    "Not covered: RDMA and NVLink (they pass by the kernel), pods with hostNetwork, and clusters whose network plugin",
    "enforces no NetworkPolicy. Probes come from the node itself, which plugins let through.",
)


def policies(deployment: Deployment) -> list[Object]:
    """Return a policy a role, and the gateway's."""
    return [*(_of_engines(deployment, role) for role in Role), _of_frontend(deployment)]


def _of_engines(deployment: Deployment, role: Role) -> Object:
    """HTTP from gateways and Prometheus; everything inside a role: torch, Gloo and NCCL choose their own ports.

    KV events from gateways, where they route by them.
    """
    of_role = deployment.of_role(role)
    http = [port for engine in of_role for port in engines.http_ports(engine).values()]
    clients = [_pods(deployment, names.FRONTEND)]
    if deployment.cluster.monitoring_namespace is not None:
        label = {"kubernetes.io/metadata.name": deployment.cluster.monitoring_namespace}
        clients.append({"namespaceSelector": {"matchLabels": label}})
    other = Role.DECODE if role is Role.PREFILL else Role.PREFILL
    side_channel = {"from": [_pods(deployment, other)]}
    if not _kv_over_tcp(deployment):
        last = names.NIXL_PORT + max(engine.dp_size for engine in of_role) - 1
        side_channel["ports"] = [_ports(names.NIXL_PORT, last)]
    ingress = [
        {"from": clients, "ports": [_ports(min(http), max(http))]},
        side_channel,
        {"from": [_pods(deployment, role)]},
    ]
    events = _kv_event_ports(deployment, role)
    if events:
        ingress.append({"from": [_pods(deployment, names.FRONTEND)], "ports": events})
    return _policy(deployment, names.engines(deployment, role), role, ingress)


def _of_frontend(deployment: Deployment) -> Object:
    """Anybody may ask the gateway; its metrics are on the same port."""
    ingress = [{"ports": [_ports(names.HTTP_PORT, names.HTTP_PORT)]}]
    return _policy(deployment, names.frontend(deployment), names.FRONTEND, ingress)


def _kv_event_ports(deployment: Deployment, role: Role) -> list[Mapping[str, Any]]:
    """The ports on which a role's ranks publish KV events, and replay them; each rank has its own of either."""
    if not deployment.gateway.exact_prefixes:
        return []
    workers = [worker for worker in addresses.workers_file(deployment).workers if worker.role is role]
    found = []
    for name in ("kv_events_port", "kv_replay_port"):
        of = [(getattr(worker, name), len(worker.dp_ranks)) for worker in workers if getattr(worker, name) is not None]
        if of:
            found.append(_ports(min(first for first, _ in of), max(first + count - 1 for first, count in of)))
    return found


def _kv_over_tcp(deployment: Deployment) -> bool:
    """Tell whether UCX may carry KV over TCP, and so over ports of its own choosing."""
    is_kept_off = network(deployment).get("UCX_TLS") == "^tcp"
    return not is_kept_off or any("UCX_TLS" in engine.env for engine in deployment.engines)


def _policy(deployment: Deployment, name: str, component: str, ingress: Sequence[Mapping[str, Any]]) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "podSelector": {"matchLabels": names.labels(deployment, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def _pods(deployment: Deployment, component: str) -> Mapping[str, Any]:
    return {"podSelector": {"matchLabels": names.labels(deployment, component)}}


def _ports(first: int, last: int) -> Mapping[str, Any]:
    return {"protocol": "TCP", "port": first, **({"endPort": last} if last > first else {})}
