"""The `dynamo` targets: a deployment as one DynamoGraphDeployment, in either version of its API.

The vLLM inside is the one that the Dynamo release takes, so a deployment must have been resolved for it (`vllm_of`).

Sources: ai-dynamo/dynamo, deploy/operator: config/crd/bases (fields), internal/dynamo/graph.go (how it merges what is
written here with its own: it adds ports, a service account that may read the pods it discovers, /dev/shm, and readiness
probes), internal/webhook/validation (names, versions). Not run on real hardware.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from baton.base.errors import ConfigError
from baton.engine.dynamo import routes_by_kv, vllm_of
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import compute_domain, dynamo_pods, model_cache, names, pods
from baton.render.documents import Object, document
from baton.render.overview import chosen_of_gateway

__all__ = ["ApiVersion", "files", "vllm_of"]

ApiVersion = Literal["v1alpha1", "v1beta1"]

_MAX_GROVE_NAME = 45
"""Grove's PodCliqueSet webhook: names of the graph, the group and its longest clique together (consts.go)"""
_LEADER_SUFFIX = "-ldr"
_LINE = 116
_OF_OUR_GATEWAY = "for Dynamo's frontend answers clients, not baton's gateway (it asks nobody for a baton API key)"
_OLD_VERSION = "baton: ignore-file[dgd-version] asked for by name; the target dynamo-v1beta1 writes the newer version"


def files(deployment: Deployment, api_version: ApiVersion) -> dict[str, str]:
    """Return every file of the target, relative path to text, in the order they are applied in.

    Raises   ConfigError for a deployment of another vLLM than the release's, a name that Grove refuses, and what the
             recipe sets that this target decides or cannot do
    """
    _check(deployment)
    found = {
        path: document(deployment, objects, *notes)
        for path, (objects, notes) in _documents(deployment, api_version).items()
        if objects
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(found),
    }
    return {"kustomization.yaml": document(deployment, [kustomization]), **found}


def _documents(deployment: Deployment, api_version: ApiVersion) -> Mapping[str, tuple[list[Object], Iterable[str]]]:
    domains = [compute_domain.domain(deployment)] if compute_domain.is_needed(deployment) else []
    return {
        "namespace.yaml": ([pods.namespace(deployment)], ()),
        "model-cache.yaml": (model_cache.claim(deployment), model_cache.CLAIM_NOTES),
        "model-download.yaml": (model_cache.download(deployment), model_cache.DOWNLOAD_NOTES),
        "compute-domain.yaml": (domains, compute_domain.NOTES),
        "deploy.yaml": ([_graph(deployment, api_version)], _notes(deployment, api_version)),
    }


def _graph(deployment: Deployment, api_version: ApiVersion) -> Object:
    components = [dynamo_pods.frontend(deployment), *(dynamo_pods.worker(deployment, role) for role in Role)]
    spec: dict[str, Any] = {"backendFramework": "vllm"}
    if api_version == "v1alpha1":
        spec["pvcs"] = [{"name": deployment.cluster.model_cache.claim, "create": False}]
        spec["services"] = {each["name"]: dynamo_pods.as_service(deployment, each) for each in components}
    else:
        spec["components"] = components
    return {
        "apiVersion": f"nvidia.com/{api_version}",
        "kind": "DynamoGraphDeployment",
        "metadata": pods.metadata(deployment, deployment.name),
        "spec": spec,
    }


def _check(deployment: Deployment) -> None:
    release = deployment.cluster.dynamo.version
    inner = vllm_of(release)
    if deployment.engine_version != inner:
        raise ConfigError(
            f"engine.version: got {deployment.engine_version}, but the images of Dynamo {release} hold vLLM {inner}; "
            f"resolve the recipe for {inner}, or set cluster.dynamo.version"
        )
    if deployment.hardware.accelerator == "cpu":
        raise ConfigError("hardware.accelerator: got cpu; Dynamo's images need GPUs: render another target")
    _check_name(deployment)


def _check_name(deployment: Deployment) -> None:
    """Grove makes pod names of the graph's, the component's and, over several nodes, the component's with a suffix."""
    spans = {role: deployment.of_role(role)[0].num_nodes > 1 for role in Role}
    taken = max(len(names.FRONTEND), *(2 * len(r) + len(_LEADER_SUFFIX) if spans[r] else len(r) for r in Role))
    if len(deployment.name) > _MAX_GROVE_NAME - taken:
        raise ConfigError(
            f"name: got {deployment.name!r}, {len(deployment.name)} characters; Dynamo takes {_MAX_GROVE_NAME - taken} "
            f"of this deployment (Grove: {_MAX_GROVE_NAME} with the names of component and clique); set a shorter one"
        )


def _notes(deployment: Deployment, api_version: ApiVersion) -> list[str]:
    """What the file is for, what the operator makes of it, and what is not as the recipe has it."""
    release, version = deployment.cluster.dynamo.version, deployment.engine_version
    notes = [f"Dynamo {release} holds vLLM {version}: flags and variables are for that one."]
    if not deployment.run_on:
        notes.append("Nobody has run this on real hardware yet.")
    if routes_by_kv(deployment):
        notes.append("Requests go where their prefix is cached: prefill publishes KV events, the frontend reads them.")
    else:
        notes.append("Requests go round-robin: prefill caches no prefixes, or this release cannot tell ranks apart.")
    if any(engine.num_nodes > 1 for engine in deployment.engines):
        notes.append(dynamo_pods.NOTE_OF_SEVERAL_NODES)
    notes += _left_out(deployment)
    lines = [line for note in notes for line in textwrap.wrap(note, _LINE, break_on_hyphens=False)]
    return [*lines, *([_OLD_VERSION] if api_version == "v1alpha1" else [])]


def _left_out(deployment: Deployment) -> list[str]:
    """What of the recipe is not there, a note for each reason."""
    roles_of: dict[str, dict[str, list[Role]]] = {}
    for role in Role:
        for what, reason in dynamo_pods.left_out(deployment, role).items():
            roles_of.setdefault(reason, {}).setdefault(what, []).append(role)
    chosen = chosen_of_gateway(deployment.gateway)
    if chosen:
        roles_of[_OF_OUR_GATEWAY] = {f"gateway.{name}": list(Role) for name in chosen}
    return [
        f"Left out, {reason}: "
        + ", ".join(what if len(roles) == len(Role) else f"{what} ({roles[0]})" for what, roles in found.items())
        for reason, found in roles_of.items()
    ]
