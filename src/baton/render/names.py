"""What every rendered object is called, and the labels by which they find each other."""

from __future__ import annotations

from collections.abc import Mapping

from baton.recipe.deployment import Deployment
from baton.recipe.lock import Use
from baton.recipe.recipe import Role

HTTP_PORT = 8000
DP_RPC_PORT = 13345
NIXL_PORT = 5600
"""side channel of data-parallel rank 0; rank i listens on NIXL_PORT + i, wherever it runs"""

COMPONENT = "app.kubernetes.io/component"
FRONTEND = "frontend"
DOWNLOAD = "model-download"
"""the Job's name in the published recipes"""


def engines(deployment: Deployment, role: Role) -> str:
    """Return the LeaderWorkerSet of a role, and its headless Service."""
    return f"{deployment.name}-{role}"


def frontend(deployment: Deployment) -> str:
    """Return the gateway's Deployment and Service."""
    return f"{deployment.name}-{FRONTEND}"


def engine_account(deployment: Deployment) -> str:
    """Return the service account of engine pods."""
    return f"{deployment.name}-engine"


def compute_domain(deployment: Deployment) -> str:
    """Return the ComputeDomain that spans the NVLink domain."""
    return f"{deployment.name}-compute-domain"


def compute_domain_channel(deployment: Deployment) -> str:
    """Return the claim template the ComputeDomain's driver makes."""
    return f"{compute_domain(deployment)}-channel"


def labels(deployment: Deployment, component: str | None = None) -> Mapping[str, str]:
    """Return the labels of an object; `component` is prefill, decode, frontend or model-download.

    Source of the keys: Kubernetes, Recommended Labels.
    """
    found = {"app.kubernetes.io/name": "baton", "app.kubernetes.io/instance": deployment.name}
    return found if component is None else {**found, COMPONENT: component}


def image(deployment: Deployment, reference: str) -> str:
    """Return an image as the cluster pulls it: behind the recipe's registry if it names one."""
    registry = deployment.cluster.registry
    return reference if registry is None else f"{registry}/{_path(reference)}"


def engine_image(deployment: Deployment) -> str:
    """Return the engine's image: the recipe's, else vLLM's own of the release."""
    return image(deployment, references(deployment)["engine"])


def dynamo_image(deployment: Deployment) -> str:
    """Return the runtime image of the Dynamo targets: the recipe's, else NVIDIA's own of the release."""
    return image(deployment, references(deployment)["dynamo"])


def references(deployment: Deployment) -> Mapping[Use, str]:
    """Return the image of each use as the recipe means it, without the registry."""
    cluster = deployment.cluster
    return {
        "engine": cluster.image or f"vllm/vllm-openai:v{deployment.engine_version}",
        "gateway": cluster.gateway_image,
        "dynamo": cluster.dynamo.image or f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{cluster.dynamo.version}",
    }


def _path(reference: str) -> str:
    """A reference without the host it starts with: a first part with a dot or a port, or localhost."""
    host, slash, rest = reference.partition("/")
    return rest if slash and ("." in host or ":" in host or host == "localhost") else reference
