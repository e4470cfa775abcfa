"""The `kubernetes` target: a deployment as plain Kubernetes objects and LeaderWorkerSets, applied with kustomize."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import (
    compute_domain,
    containerfile,
    disruption,
    engines,
    frontend,
    model_cache,
    monitoring,
    names,
    network_policies,
    pods,
)
from baton.render.documents import Object, document

_NAMESPACE_NOTES = (
    "Engine pods with RDMA add capabilities that Pod Security's level `baseline` refuses: where the cluster enforces",
    "it, this namespace needs the label pod-security.kubernetes.io/enforce: privileged.",
)
_ACCOUNT_NOTES = (
    "No Role and no token: nothing that runs here talks to the Kubernetes API, and that is the least there is.",
)
_KUSTOMIZATION_NOTES = (
    "kubectl apply -k . starts the deployment. Take it away without the namespace and the checkpoints:",
    f"  kubectl delete -k . -l '{names.COMPONENT}!={model_cache.STORAGE}'",
)


def files(deployment: Deployment) -> dict[str, str]:
    """Return every file of the target, relative path to text, in the order they are applied in.

    Raises   ConfigError for what the recipe sets that this target decides, or cannot do
    """
    found = {
        path: document(deployment, objects, *notes)
        for path, (objects, notes) in _documents(deployment).items()
        if objects
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(found),
    }
    return {
        "kustomization.yaml": document(deployment, [kustomization], *_KUSTOMIZATION_NOTES),
        **found,
        "Containerfile": containerfile.text(deployment),
    }


def _documents(deployment: Deployment) -> Mapping[str, tuple[list[Object], Iterable[str]]]:
    monitored = deployment.cluster.monitoring_namespace is not None
    domains = [compute_domain.domain(deployment)] if compute_domain.is_needed(deployment) else []
    return {
        "namespace.yaml": ([pods.namespace(deployment)], _NAMESPACE_NOTES),
        "model-cache.yaml": (model_cache.claim(deployment), model_cache.CLAIM_NOTES),
        "model-download.yaml": (model_cache.download(deployment), model_cache.DOWNLOAD_NOTES),
        "service-accounts.yaml": (pods.accounts(deployment), _ACCOUNT_NOTES),
        "network.yaml": (network_policies.policies(deployment), network_policies.NOTES),
        "compute-domain.yaml": (domains, compute_domain.NOTES),
        "prefill.yaml": ([engines.group(deployment, Role.PREFILL)], engines.NOTES),
        "decode.yaml": ([engines.group(deployment, Role.DECODE)], engines.NOTES),
        "frontend.yaml": (frontend.objects(deployment), frontend.notes(deployment)),
        "disruption.yaml": (disruption.budgets(deployment), disruption.NOTES),
        "monitoring.yaml": (monitoring.monitors(deployment) if monitored else [], monitoring.NOTES),
    }
