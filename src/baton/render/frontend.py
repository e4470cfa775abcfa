"""The gateway: workers file, Deployment and Service."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from baton.base.errors import ConfigError
from baton.engine.one_machine import gateway_arguments
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import ApiKeysSource
from baton.recipe.workers import dump_workers
from baton.render import addresses, model_cache, names, pods, probes
from baton.render.documents import Object
from baton.render.environment import literal

NOTES = (
    "A gateway is ready when one prefill rank and one decode rank have completed a hand-off. Prove the deployment:",
    "  kubectl --namespace {namespace} exec deploy/{name} -- baton prove --workers /etc/baton/workers.yaml",
    "The requests for CPU and memory are a guess: nobody has measured a gateway in a cluster yet.",
)
_KEYS_NOTES = (
    "API keys are in a Secret that is made by hand, and without which no gateway starts; every gateway keeps limits of",
    "its own. Make it, and with the same command replace it: gateways read it again when the node has the new one.",
    "  kubectl --namespace {namespace} create secret generic {secret} --from-file={key}=FILE \\",
    "    --dry-run=client -o yaml | kubectl apply --server-side -f -",
)
USER_ID = 10001
"""of the image that the Containerfile makes"""
_WORKERS, _FOLDER, _FILE = "workers", "/etc/baton", "workers.yaml"
_KEYS, _KEYS_FOLDER, _KEYS_FILE = "api-keys", "/etc/baton-keys", "api-keys.yaml"
"""a folder beside the other: nothing can be mounted inside a volume that is read-only"""
_SOCKETS, _SOCKETS_FOLDER = "sockets", "/tmp"  # noqa: S108 - where the router process puts its socket
_UNLISTED_S = 5
_TEARDOWN_S, _DAY_S = 15, 24 * 3600


def notes(deployment: Deployment) -> tuple[str, ...]:
    """Return what to know about the file."""
    found = {"namespace": deployment.cluster.namespace, "name": names.frontend(deployment)}
    keys = deployment.gateway.api_keys
    if keys is not None:
        found |= {"secret": str(keys.secret), "key": keys.key}
    return tuple(note.format(**found) for note in (*NOTES, *(_KEYS_NOTES if keys is not None else ())))


def refuse_keys_of_no_secret(deployment: Deployment) -> None:
    """Refuse API keys that are in no Secret: a gateway without them would let anybody ask.

    Raises   ConfigError
    """
    keys = deployment.gateway.api_keys
    if keys is not None and keys.secret is None:
        raise ConfigError(
            f"gateway.api_keys: got file {keys.file}, which is on this machine; pods read keys from a Secret: set "
            "gateway.api_keys.secret to its name too (the rendered frontend.yaml says how to make it), or "
            "gateway.api_keys=null to let anybody ask"
        )


def objects(deployment: Deployment) -> list[Object]:
    """Return the workers file's ConfigMap, the gateway's Deployment and its Service.

    Raises   ConfigError for API keys that are in no Secret, or exact prefixes of engines that publish no KV events
    """
    refuse_keys_of_no_secret(deployment)
    workers = dump_workers(addresses.workers_file(deployment))
    about = pods.metadata(deployment, names.frontend(deployment), names.FRONTEND)
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {_FILE: workers}},
        _deployment(deployment, about, hashlib.sha256(workers.encode()).hexdigest()),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about,
            "spec": {
                "selector": names.labels(deployment, names.FRONTEND),
                "ports": [{"name": "http", "port": names.HTTP_PORT, "targetPort": "http"}],
            },
        },
    ]


def _deployment(deployment: Deployment, about: Mapping[str, Any], workers_sha256: str) -> Object:
    labels = names.labels(deployment, names.FRONTEND)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "replicas": deployment.cluster.gateway_replicas,
            "progressDeadlineSeconds": probes.startup_s(deployment) + 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"checksum/workers": workers_sha256}},
                "spec": _pod(deployment, labels),
            },
        },
    }


def _pod(deployment: Deployment, labels: Mapping[str, str]) -> Mapping[str, Any]:
    """The gateway's pod: it may run where engines may, for a cluster can consist of their tainted nodes alone."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    tolerations = [model_cache.toleration(each) for each in deployment.cluster.tolerations]
    return {
        **pods.base(deployment, names.frontend(deployment)),
        "terminationGracePeriodSeconds": _UNLISTED_S + _drain_s(deployment) + _TEARDOWN_S,
        **({"tolerations": tolerations} if tolerations else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread],
        "containers": [_container(deployment)],
        "volumes": [
            {"name": _WORKERS, "configMap": {"name": names.frontend(deployment)}},
            *_own_volumes(deployment),
            model_cache.volume(deployment),
        ],
    }


def _own_volumes(deployment: Deployment) -> list[Mapping[str, Any]]:
    """What only some gateways have: their keys, and where several processes meet, for the image is read-only."""
    keys, found = deployment.gateway.api_keys, list[Mapping[str, Any]]()
    if keys is not None:
        items = [{"key": keys.key, "path": _KEYS_FILE}]
        found.append({"name": _KEYS, "secret": {"secretName": keys.secret, "items": items}})
    if deployment.gateway.processes > 1:
        found.append({"name": _SOCKETS, "emptyDir": {"sizeLimit": "16Mi"}})
    return found


def _own_mounts(deployment: Deployment) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    if deployment.gateway.api_keys is not None:
        found.append({"name": _KEYS, "mountPath": _KEYS_FOLDER, "readOnly": True})
    if deployment.gateway.processes > 1:
        found.append({"name": _SOCKETS, "mountPath": _SOCKETS_FOLDER})
    return found


def _container(deployment: Deployment) -> Mapping[str, Any]:
    wanted = deployment.gateway
    keys = wanted.api_keys and ApiKeysSource(file=Path(_KEYS_FOLDER, _KEYS_FILE))
    here = wanted.model_copy(update={"host": "0.0.0.0", "port": names.HTTP_PORT, "api_keys": keys})
    argv = [*gateway_arguments(replace(deployment, gateway=here), f"{_FOLDER}/{_FILE}")]
    argv += ["--drain-s", str(_drain_s(deployment))]
    num_processes = wanted.processes + 1 if wanted.processes > 1 else 1
    return {
        "name": "gateway",
        "image": names.image(deployment, deployment.cluster.gateway_image),
        "command": ["baton"],
        "args": [literal(word) for word in argv],
        "ports": [{"name": "http", "containerPort": names.HTTP_PORT}],
        **probes.of_gateway(),
        # New connections come in until every node has heard that the pod leaves.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_UNLISTED_S)]}}},
        "resources": {"requests": {"cpu": str(num_processes), "memory": f"{512 * num_processes}Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": _WORKERS, "mountPath": _FOLDER, "readOnly": True},
            *_own_mounts(deployment),
            model_cache.mount(deployment),
        ],
    }


def _drain_s(deployment: Deployment) -> int:
    """Seconds a gateway that is told to end lets its requests go on: none lasts longer than its deadline."""
    return math.ceil(min(deployment.gateway.request_timeout_s, _DAY_S))
