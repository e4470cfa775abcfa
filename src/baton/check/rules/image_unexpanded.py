"""A shell variable where Kubernetes expands none.

kubectl and the API server take `${VERSION}` as it stands. As part of an image it gives InvalidImageName, as the name of
a claim or a class an object that is never found: the pod stays in Pending or in a pull back-off.

Write the value, or send the file through a program that fills it in (envsubst, kustomize, helm) and say so beside it.
A file with several such variables, or with one that is all of a value (`image: $IMAGE`), was made for that, and is
only noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Source
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
    """Yield a finding for every variable in a field that nothing expands; one for a file made to be filled in."""
    if any(_FILLED_IN.search(file.source.text) for file in bundle.files if file.kind in ("shell", "markdown")):
        return
    found: dict[Source, list[tuple[str, Scalar, str]]] = {}
    for field, value in _fields(bundle):
        variable = _VARIABLE.search(value.text.value)
        if variable is not None and "envsubst" not in value.span.source.text:
            found.setdefault(value.span.source, []).append((field, value, variable[0]))
    for places in found.values():
        is_all = all(variable == value.text.value for _, value, variable in places)
        if is_all or len({variable for _, _, variable in places}) > 1:
            yield replace(_finding(*places[0]), harm=Harm.UNKNOWN)
        else:
            yield from (_finding(*place) for place in places)


def _fields(bundle: Bundle) -> Iterator[tuple[str, Scalar]]:
    """Every value of a field that nothing expands, templates left out."""
    for found in bundle.manifests.objects:
        is_template = found.kind in _TEMPLATED_KINDS or "template" in found.node.span.source.name.lower()
        if is_template or "$" not in found.node.span.written:
            continue
        for node in tree.walk(found.node):
            if isinstance(node, Mapping):
                for field in _FIELDS:
                    entry = node.entries.get(field)
                    if entry is not None and isinstance(entry.value, Scalar) and entry.value.is_known:
                        yield field, entry.value


def _finding(field: str, value: Scalar, variable: str) -> Finding:
    result = "InvalidImageName, and the container never starts" if field == "image" else "no object has that name"
    return Finding(
        span=value.span,
        message=f"{variable} in {field} is not expanded by Kubernetes: {result}",
        evidence=("kubectl sends the file as it is; only $(NAME) is expanded, in command, args and env alone",),
        fix=Fix(
            f"write the value in the place of {variable}, or fill it in before: envsubst < FILE | kubectl apply -f -"
        ),
    )
