"""Volumes of Kubernetes by what stands on them: which claim a path lies on, which claims there are and who mounts them.

Claims are told apart by name alone; namespaces are not looked at.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Container, Object, Workload
from baton.check.shell.script import Word
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar

CLAIM = "PersistentVolumeClaim"
_CACHE_VARIABLES = (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"))


@dataclass(frozen=True, slots=True)
class Place:
    """A path as a claim has it: below the root of the volume, without a slash before it."""

    claim: str
    path: str


def place(workload: Workload, container: Container, path: str) -> Place | None:
    """Return where a path of a container lies; None if that is on no claim, or cannot be told."""
    path = posixpath.normpath(path)
    mounts = [at for at in container.mounts if path == at.rstrip("/") or path.startswith(at.rstrip("/") + "/")]
    if not mounts:
        return None
    at = max(mounts, key=len)
    volume = known(container.mounts[at])
    claim = workload.pod.claims.get(volume) if volume else None
    name = known(claim)
    if name is None or _has_sub_path(container, at):
        return None
    return Place(name, path[len(at.rstrip("/")) :].strip("/"))


def claims(bundle: Bundle) -> dict[str, Object]:
    """Return the PersistentVolumeClaims among the files, by name."""
    return {claim.name: claim for claim in bundle.manifests.of_kind(CLAIM) if claim.name is not None}


def lone_claims(bundle: Bundle) -> dict[str, Object]:
    """Return the claims whose name is given once only: of two alike, which one a pod means cannot be told."""
    names = [claim.name for claim in bundle.manifests.of_kind(CLAIM)]
    return {name: claim for name, claim in claims(bundle).items() if names.count(name) == 1}


def references(bundle: Bundle) -> Iterator[tuple[Scalar, Object]]:
    """Yield every place that names a claim which something else must make, with the object it stands in."""
    for found in bundle.manifests.of_kind("DynamoGraphDeployment"):
        for item in tree.items(found.node, "spec.pvcs"):
            name = tree.scalar(child(item, "name"))
            if name is not None and known(tree.scalar(child(item, "create"))) == "false":
                yield name, found
    for workload in bundle.manifests.workloads:
        made = set(map(known, made_claims(workload.object)))
        for claim in workload.pod.claims.values():
            if known(claim) not in made:
                yield claim, workload.object


def made_claims(found: Object) -> tuple[Scalar, ...]:
    """Return the names of the claims that the Dynamo operator makes for a graph, or may make."""
    pvcs = [item for item in tree.items(found.node, "spec.pvcs") if _is_made(item)]
    return tuple(name for item in pvcs if (name := tree.scalar(child(item, "name"))) is not None)


def cache_folder(env: Mapping[str, Word]) -> str | None:
    """Return where the Hub's client keeps what it downloads, if the environment says it."""
    for variable, below in _CACHE_VARIABLES:
        word = env.get(variable)
        if word is not None:
            return posixpath.join(word.value, below) if word.is_known else None
    return None


def _is_made(pvc: tree.Node) -> bool:
    return known(tree.scalar(child(pvc, "create"))) != "false"


def _has_sub_path(container: Container, path: str) -> bool:
    for item in tree.items(child(container.node, "volumeMounts")):
        if known(tree.scalar(child(item, "mountPath"))) == path:
            return child(item, "subPath") is not None or child(item, "subPathExpr") is not None
    return False
