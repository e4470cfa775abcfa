"""A word that was to be replaced, left in a field that the cluster uses.

`your-storage-class-name` names no storage class: the claim stays in Pending, and so does every pod that mounts it.
`your_hf_token` is sent to the Hub as it stands, and answered with 401.

Write your own value. `kubectl get storageclass` lists the classes there are.
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


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every placeholder in an object, comments, annotations and scripts left out."""
    for found in bundle.manifests.objects:
        if found.kind not in ("ConfigMap", "CustomResourceDefinition"):
            for field, value in _scalars(found.node):
                text = value.text.value
                if value.is_known and _MARK.search(text) and _PLACEHOLDER.fullmatch(text):
                    yield Finding(
                        span=value.span,
                        message=f"{field} is still the placeholder {text!r}: {_result(field, found.kind)}",
                        evidence=("the cluster takes it as it stands",),
                        fix=Fix(f"write your own value for {field}"),
                    )


def _result(field: str, kind: str) -> str:
    if field == "storageClassName":
        return "no class has that name, and the claim stays in Pending"
    if kind == "Secret":
        return "it is sent as the secret, and refused"
    return "no image has that name" if field == "image" else "nothing in the cluster answers to it"


def _scalars(root: Mapping) -> Iterator[tuple[str, Scalar]]:
    """Single values with the key nearest above them; of a variable, its name."""
    waiting: list[tuple[str, Node]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        field, node = waiting.pop()
        if isinstance(node, Scalar):
            yield field, node
        elif id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Mapping):
                name = known(tree.scalar(child(node, "name")))
                if name is not None and "value" in node.entries:
                    waiting.append((name, node.entries["value"].value))
                    continue
                waiting.extend((key, e.value) for key, e in reversed(node.entries.items()) if key not in _PROSE)
            else:
                waiting.extend((field, item) for item in reversed(node.items))
