"""PodMonitors of the Prometheus operator: every HTTP port of engines and gateways has /metrics."""

from __future__ import annotations

from collections.abc import Iterable

from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import engines, names, pods
from baton.render.documents import Object

NOTES = ("Prometheus must look for PodMonitors in this namespace (its podMonitorNamespaceSelector).",)


def monitors(deployment: Deployment) -> list[Object]:
    """Return a PodMonitor a role, and the gateway's; pods without an HTTP port have no such port and are left out."""
    of_roles = [
        _monitor(deployment, names.engines(deployment, role), role, engines.http_ports(deployment.of_role(role)[0]))
        for role in Role
    ]
    return [*of_roles, _monitor(deployment, names.frontend(deployment), names.FRONTEND, ("http",))]


def _monitor(deployment: Deployment, name: str, component: str, ports: Iterable[str]) -> Object:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "selector": {"matchLabels": names.labels(deployment, component)},
            "podTargetLabels": sorted(names.labels(deployment, component)),
            "podMetricsEndpoints": [{"port": port, "path": "/metrics"} for port in ports],
        },
    }
