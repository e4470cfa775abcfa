"""The volume that holds checkpoints, the Job that fills it, and how engine pods wait for it.

Several recipes share one volume and one namespace, so what stands here carries no recipe's name: recipes with the same
checkpoint render the same objects. The Job keeps its published name, `model-download`; a Job's template can't be
changed, so the API server refuses another checkpoint's while the first Job is there (loudly, and nothing else is
affected). It goes away by itself a day after it ended; `kubectl delete job model-download` is the quick way. Engine
pods never trust the Job's state: they wait for the done marker of their own repository and revision.

The Job runs as the image's user (root in vLLM's) without any capability: that writes to a volume of root's or of
everybody's; where it may not write, it says who owns what. There is no fsGroup: the kubelet leaves
ReadWriteMany volumes alone unless their driver asks for it (Kubernetes, "CSIDriver", fsGroupPolicy). The Job has no
node selector: the image is assumed to hold every architecture the cluster has (amd64 and arm64 with GB200).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from baton.base.errors import ConfigError
from baton.recipe.cluster import Toleration
from baton.recipe.deployment import Deployment
from baton.render import download as program
from baton.render import names
from baton.render.documents import Object
from baton.render.environment import literal

VOLUME = "model-cache"
STORAGE = "storage"
"""component of what outlives a deployment: `kubectl delete -k DIR -l app.kubernetes.io/component!=storage` leaves it"""
CLAIM_NOTES = (
    "Deleting this claim deletes the checkpoints unless its volume is retained. To remove a deployment but not these:",
    f"kubectl delete -k . -l 'app.kubernetes.io/component!={STORAGE}'",
)
DOWNLOAD_NOTES = (
    "Needs `baton secret` before or after: the pod waits for the Secret. Nothing here talks to the Kubernetes API, so",
    "the service account has no token and no Role. A Job can't be changed: before another checkpoint or image,",
    f"kubectl delete job {names.DOWNLOAD} (it goes by itself a day after its end). What is downloaded stays.",
)

_KEEP = {"argocd.argoproj.io/sync-options": "Delete=false,Prune=false", "kustomize.toolkit.fluxcd.io/prune": "disabled"}
"""what Argo CD ("Sync Options") and Flux ("Kustomization", prune) look for; kubectl has no such mark"""
_DAY_S = 24 * 3600
_SCRIPTS = "/opt/baton"
_HOME = "/hf-home"
_WAIT = """\
import json, signal, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
marker, repo, revision = sys.argv[1:]
polls = 0
while True:
    try:
        with open(marker, encoding="utf-8") as file:
            done = json.load(file)
        found = f"{done['repo']} at {done['revision']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    if found == f"{repo} at {revision}":
        print(f"{marker}: {found} is complete", flush=True)
        break
    if polls % 12 == 0:
        print(f"waiting for {repo} at {revision} in {marker}; found {found}; see the Job's logs", flush=True)
    polls += 1
    time.sleep(5)
"""


def folder(deployment: Deployment) -> PurePosixPath:
    """Return the folder of the checkpoint inside the volume, as pods see it.

    Raises   ConfigError if `model.path` is not below the volume's mount
    """
    mounted, path = PurePosixPath(deployment.cluster.model_cache.mount_path), deployment.model.path
    if path is None or mounted not in PurePosixPath(path).parents:
        raise ConfigError(
            f"model.path: got {str(path) if path else 'nothing'}; on Kubernetes the checkpoint lies in a folder below "
            f"cluster.model_cache.mount_path, {mounted}; set model.path={mounted}/{deployment.name}, or the mount path"
        )
    return PurePosixPath(path)


def claim(deployment: Deployment) -> list[Object]:
    """Return the claim for the volume; nothing where the cluster has one already."""
    cache = deployment.cluster.model_cache
    if not cache.create:
        return []
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": cache.size}},
    }
    if cache.storage_class is not None:
        spec["storageClassName"] = cache.storage_class
    metadata = _metadata(deployment, cache.claim, STORAGE) | {"annotations": dict(_KEEP)}
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}]


def download(deployment: Deployment) -> list[Object]:
    """Return what fetches the checkpoint: a service account, the program and the Job; nothing without `model.repo`.

    Raises   ConfigError if `model.path` is not below the volume's mount, or `model.revision` is no commit
    """
    where = folder(deployment)
    if deployment.model.repo is None:
        return []
    _check_revision(deployment)
    metadata = _metadata(deployment, names.DOWNLOAD, names.DOWNLOAD)
    text = resources.files("baton.render").joinpath("download.py").read_text(encoding="utf-8")
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"download.py": text}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": _job(deployment, where)},
    ]


def wait_container(deployment: Deployment) -> Object | None:
    """Return an init container that waits for the checkpoint; None if nothing downloads one.

    It needs the mount of the volume, which it brings, and the volume, which the pod must have.
    """
    where, model = folder(deployment), deployment.model
    if model.repo is None or model.revision is None:
        return None
    _check_revision(deployment)
    return {
        "name": "wait-for-model",
        "image": names.engine_image(deployment),
        "command": ["python3", "-c"],
        "args": [literal(word) for word in (_WAIT, str(where / program.MARKER), model.repo, model.revision)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": _unprivileged(),
        "volumeMounts": [mount(deployment)],
    }


def volume(deployment: Deployment) -> Object:
    """Return the volume of a pod."""
    return {"name": VOLUME, "persistentVolumeClaim": {"claimName": deployment.cluster.model_cache.claim}}


def mount(deployment: Deployment, *, read_only: bool = True) -> Object:
    """Return the mount of that volume in a container."""
    return {"name": VOLUME, "mountPath": deployment.cluster.model_cache.mount_path, "readOnly": read_only}


def shared_labels(component: str) -> Mapping[str, str]:
    """Return the labels of what recipes share: no instance."""
    return {"app.kubernetes.io/name": "baton", names.COMPONENT: component}


def toleration(given: Toleration) -> Mapping[str, str]:
    """Return a toleration of a pod."""
    found = {"key": given.key, "operator": "Exists" if given.value is None else "Equal"}
    found |= {"value": given.value, "effect": given.effect}
    return {name: value for name, value in found.items() if value is not None}


def _check_revision(deployment: Deployment) -> None:
    revision = deployment.model.revision
    if re.fullmatch(program.COMMIT, revision or "") is None:
        raise ConfigError(
            f"model.revision: got {revision!r}; a branch or tag may move while pods start: give the commit of "
            f"{deployment.model.repo}, 40 digits of 0-9a-f"
        )


def _job(deployment: Deployment, where: PurePosixPath) -> Mapping[str, Any]:
    """The Job's spec. `Never` keeps the pods of failed attempts, and so their logs; the next attempt resumes."""
    cluster = deployment.cluster
    pod: dict[str, Any] = {
        "serviceAccountName": names.DOWNLOAD,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(deployment, where)],
        "volumes": [
            volume(deployment),
            {"name": "program", "configMap": {"name": names.DOWNLOAD}},
            {"name": "home", "emptyDir": {}},
        ],
    }
    if cluster.tolerations:
        pod["tolerations"] = [toleration(each) for each in cluster.tolerations]
    if cluster.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in cluster.image_pull_secrets]
    return {
        "backoffLimit": 6,
        "ttlSecondsAfterFinished": _DAY_S,
        "template": {"metadata": {"labels": shared_labels(names.DOWNLOAD)}, "spec": pod},
    }


def _container(deployment: Deployment, where: PurePosixPath) -> Mapping[str, Any]:
    model, secret = deployment.model, deployment.cluster.hf_secret
    return {
        "name": "download",
        "image": names.engine_image(deployment),
        "command": ["python3", f"{_SCRIPTS}/download.py"],
        "args": [literal(str(word)) for word in (model.repo, model.revision, where)],
        "env": [
            {"name": "HF_HOME", "value": _HOME},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}},
            {"name": program.SECRET_ENV, "value": secret.name},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "TMPDIR", "value": _HOME},
        ],
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}},
        "securityContext": _unprivileged(),
        "volumeMounts": [
            mount(deployment, read_only=False),
            {"name": "program", "mountPath": _SCRIPTS, "readOnly": True},
            {"name": "home", "mountPath": _HOME},
        ],
    }


def _unprivileged() -> Mapping[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _metadata(deployment: Deployment, name: str, component: str) -> dict[str, Any]:
    return {"name": name, "namespace": deployment.cluster.namespace, "labels": shared_labels(component)}
