"""A shell variable where Kubernetes expands none.

kubectl and the API server take `${VERSION}` as it stands. As part of an image it gives InvalidImageName, as the name of
a claim or a class an object that is never found: the pod stays in Pending or in a pull back-off.

Write the value, or send the file through a program that fills it in (envsubst, kustomize, helm) and say so beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Scalar

HARM = Harm.NOT_STARTING
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:%s
      args: [--model, /models/qwen]
"""
FIRES = _POD % "${VERSION}"
SILENT = _POD % "v0.32.0"
_FIELDS = ("image", "claimName", "storageClassName", "storage", "resourceClaimTemplateName", "namespace", "secretName")
_VARIABLE = re.compile(r"\$(?:\{\w+[^}]*\}|[A-Za-z_]\w*)")
_FILLED_IN = re.compile(r"\benvsubst\b|\bsed\b")
_TEMPLATED_KINDS = ("Template", "Workflow", "WorkflowTemplate", "PipelineRun", "Pipeline", "Task", "TaskRun")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every variable in a field that nothing expands."""
    if any(_FILLED_IN.search(file.source.text) for file in bundle.files if file.kind in ("shell", "markdown")):
        return
    for found in bundle.manifests.objects:
        is_template = found.kind in _TEMPLATED_KINDS or "template" in found.node.span.source.name.lower()
        if is_template or "$" not in found.node.span.written:
            continue
        for node in tree.walk(found.node):
            if isinstance(node, Mapping):
                for field in _FIELDS:
                    entry = node.entries.get(field)
                    if entry is not None and isinstance(entry.value, Scalar) and entry.value.is_known:
                        yield from _findings(field, entry.value)


def _findings(field: str, value: Scalar) -> Iterator[Finding]:
    variable = _VARIABLE.search(value.text.value)
    if variable is None:
        return
    result = "InvalidImageName, and the container never starts" if field == "image" else "no object has that name"
    yield Finding(
        span=value.span,
        message=f"{variable[0]} in {field} is not expanded by Kubernetes: {result}",
        evidence=("kubectl sends the file as it is; only $(NAME) is expanded, in command, args and env alone",),
        fix=Fix(
            f"write the value in the place of {variable[0]}, or fill it in before: envsubst < FILE | kubectl apply -f -"
        ),
    )
