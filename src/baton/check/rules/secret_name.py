"""A Secret that nothing here makes, while another with nearly its name is made.

A container that must have a key of a missing Secret waits in CreateContainerConfigError. With `optional: true` it
starts without: the token is simply not set, and the download of a gated model fails, or goes on at the rate limit of
anonymous clients (HTTP 429), and nobody sees why.

Name the Secret as the file that makes it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.facts.similar import similar
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Object
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

HARM = Harm.NOT_STARTING
SEE = ()
_FILES = """\
apiVersion: v1
kind: Secret
metadata: {name: hf-token-secret}
stringData: {HF_TOKEN: "hf_0123"}
---
apiVersion: v1
kind: Pod
metadata: {name: fetch}
spec:
  containers:
    - name: fetch
      image: python:3.12-slim
      command: [sh, -c, env]
      env:
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef: {name: %s, key: HF_TOKEN, optional: true}
"""
FIRES = _FILES % "hf-token"
SILENT = _FILES % "hf-token-secret"
_TELLING_KEY = re.compile(r"[A-Z]+_[A-Z_]+")
_MAKERS = ("Secret", "ExternalSecret", "SealedSecret")


@dataclass(frozen=True, slots=True)
class _Reference:
    name: Scalar
    key: str | None
    is_optional: bool
    is_pull: bool = False


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every reference that the files' own Secrets nearly answer."""
    made = [found for kind in _MAKERS for found in bundle.manifests.of_kind(kind)]
    names = {found.name: found for found in made if found.name is not None}
    if not names or len(names) < len(made):
        return
    for found in bundle.manifests.objects:
        if found.kind in _MAKERS:
            continue
        for node in tree.walk(found.node):
            for reference in _references(node):
                name = known(reference.name)
                if name is not None and name not in names:
                    meant = similar(name, names) or _holder(reference.key, names)
                    if meant is not None:
                        yield _finding(reference, names[meant])


def _finding(reference: _Reference, meant: Object) -> Finding:
    name = reference.name.text.value
    if reference.is_optional:
        harm, result = Harm.WASTED, "optional: true lets the container start without it, unset and unsaid"
    elif reference.is_pull:
        harm, result = Harm.FRAGILE, "the kubelet pulls without it, and only what is public"
    else:
        harm, result = Harm.NOT_STARTING, "the container waits for it: CreateContainerConfigError"
    return Finding(
        span=reference.name.span,
        message=f"no file here makes the Secret {name!r}, but {meant.name!r}: {result}",
        evidence=(f"the Secret that the files make is {meant.name!r}",),
        fix=Fix(f"write {meant.name}", fixes.replace_text(reference.name.text, meant.name or "")),
        also=((meant.span, "the Secret that is made"),),
        harm=harm,
    )


def _references(node: Node) -> Iterator[_Reference]:
    if not isinstance(node, Mapping):
        return
    for kind in ("secretKeyRef", "secretRef"):
        source = child(node, kind)
        name = tree.scalar(child(source, "name"))
        if name is not None:
            is_optional = known(tree.scalar(child(source, "optional"))) == "true"
            yield _Reference(name, known(tree.scalar(child(source, "key"))), is_optional)
    from_secret = tree.scalar(child(node, "envFromSecret"))
    if from_secret is not None:
        yield _Reference(from_secret, None, is_optional=False)
    for item in tree.items(child(node, "imagePullSecrets")):
        name = tree.scalar(child(item, "name"))
        if name is not None:
            yield _Reference(name, None, is_optional=False, is_pull=True)


def _holder(key: str | None, names: dict[str, Object]) -> str | None:
    """The only Secret that holds a key, if the key's name says what it is for."""
    if key is None or not _TELLING_KEY.fullmatch(key):
        return None
    found = [name for name, made in names.items() if _holds(made, key)]
    return found[0] if len(found) == 1 else None


def _holds(made: Object, key: str) -> bool:
    return any(child(child(made.node, part), key) is not None for part in ("data", "stringData"))
