"""What pods live in and have in common: the namespace, names, service accounts, the secrets of image registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton.recipe.deployment import Deployment
from baton.render import model_cache, names
from baton.render.documents import Object


def metadata(deployment: Deployment, name: str, component: str | None = None) -> Mapping[str, Any]:
    """Return the metadata of an object of the deployment."""
    return {
        "name": name,
        "namespace": deployment.cluster.namespace,
        "labels": names.labels(deployment, component),
    }


def namespace(deployment: Deployment) -> Object:
    """Return the namespace, labelled as what outlives the deployment: others may live in it."""
    about = {"name": deployment.cluster.namespace, "labels": {names.COMPONENT: model_cache.STORAGE}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": about}


def base(deployment: Deployment, account: str) -> Mapping[str, Any]:
    """Return what every pod's spec begins with.

    Service links are off: a Service named `vllm` would set VLLM_PORT to a URL, which vLLM refuses.
    """
    spec: dict[str, Any] = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    if deployment.cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in deployment.cluster.image_pull_secrets]
    return spec


def accounts(deployment: Deployment) -> list[Object]:
    """Return the service accounts: one for engines, one for gateways, neither with any right."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(deployment, name, component),
            "automountServiceAccountToken": False,
        }
        for name, component in (
            (names.engine_account(deployment), None),
            (names.frontend(deployment), names.FRONTEND),
        )
    ]
