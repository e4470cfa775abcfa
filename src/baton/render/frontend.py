"""The gateway: workers file, Deployment and Service."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baton.engine.one_machine import gateway_arguments
from baton.recipe.deployment import Deployment
from baton.recipe.workers import dump_workers
from baton.render import addresses, model_cache, names, pods, probes
from baton.render.documents import Object
from baton.render.environment import literal

NOTES = (
    "A gateway is ready when one prefill rank and one decode rank have completed a hand-off. Prove the deployment:",
    "  kubectl --namespace {namespace} exec deploy/{name} -- baton prove --workers /etc/baton/workers.yaml",
    "The requests for CPU and memory are a guess: nobody has measured a gateway in a cluster yet.",
)
USER_ID = 10001
"""of the image that the Containerfile makes"""
_WORKERS, _FOLDER, _FILE = "workers", "/etc/baton", "workers.yaml"
_UNLISTED_S = 5
_TEARDOWN_S, _DAY_S = 15, 24 * 3600


def notes(deployment: Deployment) -> tuple[str, ...]:
    """Return what to know about the file."""
    names_of = {"namespace": deployment.cluster.namespace, "name": names.frontend(deployment)}
    return tuple(note.format(**names_of) for note in NOTES)


def objects(deployment: Deployment) -> list[Object]:
    """Return the workers file's ConfigMap, the gateway's Deployment and its Service."""
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
            model_cache.volume(deployment),
        ],
    }


def _container(deployment: Deployment) -> Mapping[str, Any]:
    here = deployment.gateway.model_copy(update={"host": "0.0.0.0", "port": names.HTTP_PORT})
    argv = [*gateway_arguments(replace(deployment, gateway=here), f"{_FOLDER}/{_FILE}")]
    argv += ["--drain-s", str(_drain_s(deployment))]
    return {
        "name": "gateway",
        "image": names.image(deployment, deployment.cluster.gateway_image),
        "command": ["baton"],
        "args": [literal(word) for word in argv],
        "ports": [{"name": "http", "containerPort": names.HTTP_PORT}],
        **probes.of_gateway(),
        # New connections come in until every node has heard that the pod leaves.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_UNLISTED_S)]}}},
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": _WORKERS, "mountPath": _FOLDER, "readOnly": True},
            model_cache.mount(deployment),
        ],
    }


def _drain_s(deployment: Deployment) -> int:
    """Seconds a gateway that is told to end lets its requests go on: none lasts longer than its deadline."""
    return math.ceil(min(deployment.gateway.request_timeout_s, _DAY_S))
