"""A word that was to be replaced, left in a field that the cluster uses.

`your-storage-class-name` names no storage class: the claim stays in Pending, and so does every pod that mounts it.
`your_hf_token` is sent to the Hub as it stands, and answered with 401.

Write your own value. `kubectl get storageclass` lists the classes there are. A name that one of the files gives to an
object is a name like any other; a pull secret that nobody made is passed over, and the image is asked for without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child, known
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/dynamo/issues/13712",)
_CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: model-cache}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: %s
  resources: {requests: {storage: 1500Gi}}
"""
FIRES = _CLAIM % "your-storage-class-name"
SILENT = _CLAIM % "shared-nvme"
_PLACEHOLDER = re.compile(
    r"(?:.*[/=:@.])?(?:"
    r"your[-_ ][\w. -]*|<[A-Za-z][\w .,/-]*>|change[-_]?me|replace[-_]?(?:me|this|with[-_ ]\S+)|fix[-_]?me"
    r"|(?:insert|enter|put)[-_ ]your[-_ ].*|placeholder|x{4,}"
    r")(?:[/:@.].*)?",
    re.IGNORECASE,
)
_MARK = re.compile(r"your|<|change|replace|fix|placeholder|x{4}", re.IGNORECASE)
_PROSE = ("annotations", "description", "command", "args", "status")
_GIVEN = ("metadata", "labels", "matchLabels", "selector")
"""where a word is a name that an object gives to itself, or to others to find it by"""
_PULL_SECRETS = "imagePullSecrets"
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every placeholder in an object, comments, annotations and scripts left out."""
    names = {found.name for found in bundle.manifests.objects}
    for found in bundle.manifests.objects:
        if found.kind not in ("ConfigMap", "CustomResourceDefinition"):
            for field, value in _scalars(found.node):
                text = value.text.value
                if not value.is_known or not _MARK.search(text) or not _PLACEHOLDER.fullmatch(text) or text in names:
                    continue
                yield Finding(
                    span=value.span,
                    message=f"{field} is still the placeholder {text!r}: {_result(field, found.kind)}",
                    evidence=("the cluster takes it as it stands",),
                    fix=Fix(f"write your own value for {field}"),
                    harm=Harm.FRAGILE if field == _PULL_SECRETS else None,
                )


def _result(field: str, kind: str) -> str:
    if field == "storageClassName":
        return "no class has that name, and the claim stays in Pending"
    if kind == "Secret":
        return "it is sent as the secret, and refused"
    if field == _PULL_SECRETS:
        return "the image is asked for without it, and a private one is refused"
    return "no image has that name" if field == "image" else "nothing in the cluster answers to it"


def _scalars(root: Mapping) -> Iterator[tuple[str, Scalar]]:
    """Single values with the key nearest above them (of a variable, its name), but for names that objects give."""
    waiting: list[tuple[str, Node]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        field, node = waiting.pop()
        if isinstance(node, Scalar):
            if field not in _GIVEN or not _NAME.fullmatch(node.text.value):
                yield field, node
        elif id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Mapping):
                name = known(tree.scalar(child(node, "name")))
                if name is not None and "value" in node.entries:
                    waiting.append((name, node.entries["value"].value))
                    continue
                inner = field if field in (*_GIVEN, _PULL_SECRETS) else ""
                waiting.extend(
                    (_below(inner, k), e.value) for k, e in reversed(node.entries.items()) if k not in _PROSE
                )
            else:
                waiting.extend((field, item) for item in reversed(node.items))


def _below(field: str, key: str) -> str:
    """What to call an entry of a mapping that stands below a field of which all is alike."""
    return field if field and (field != "metadata" or key == "name") else key
