"""How many pods a drained node may take at once."""

from __future__ import annotations

from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import names, pods
from baton.render.documents import Object

NOTES = (
    "One pod that leaves takes its whole group with it, so one group at a time may go, and never a role's only one:",
    "draining its node waits until somebody deletes the pod, or the LeaderWorkerSet. What is not ready may always go.",
)


def budgets(deployment: Deployment) -> list[Object]:
    """Return a budget a role, and the gateways' where there are several."""
    found = []
    for role in Role:
        engines = deployment.of_role(role)
        kept = len(engines) - engines[0].num_nodes
        found.append(_budget(deployment, names.engines(deployment, role), role, kept or len(engines)))
    gateways = deployment.cluster.gateway_replicas
    if gateways > 1:
        found.append(_budget(deployment, names.frontend(deployment), names.FRONTEND, gateways - 1))
    return found


def _budget(deployment: Deployment, name: str, component: str, min_available: int) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": pods.metadata(deployment, name, component),
        "spec": {
            "minAvailable": min_available,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.labels(deployment, component)},
        },
    }
