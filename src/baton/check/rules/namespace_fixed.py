"""A Kubernetes namespace written into a variable, while the object may go into another.

Workers and front doors of Dynamo find each other by namespace. `DYN_PARENT_DGD_K8S_NAMESPACE: a-epp` is right in a-epp
alone; applied with `-n` to any other, the process looks for its graph where there is none, and the model never shows.

Take it from the pod: `valueFrom: {fieldRef: {fieldPath: metadata.namespace}}`, or fix metadata.namespace to the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.manifests import Container, Object, Variable

HARM = Harm.FRAGILE
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: front%s}
spec:
  containers:
    - name: front
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
      command: [python3, -m, dynamo.frontend, --router-mode, kv]
      env:
        - {name: DYN_PARENT_DGD_K8S_NAMESPACE, value: serving}
"""
FIRES = _POD % ""
SILENT = _POD % ", namespace: serving"
_NAMESPACES = ("DYN_PARENT_DGD_K8S_NAMESPACE", "POD_NAMESPACE")
_SCOPED = ("DYN_NAMESPACE", "DYN_NAMESPACE_PREFIX")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every container that is told a namespace its object does not say."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            fixed = [(v, name) for v in container.env.values() if (name := _said(v, container, workload.object))]
            if fixed:
                variable, said = fixed[0]
                where = workload.object.namespace
                place = f"in {where!r}" if where else "wherever it is applied"
                yield Finding(
                    span=variable.word.span,
                    message=f"{variable.name} fixes the namespace {said!r}, but the object is made {place}",
                    evidence=("Dynamo's discovery looks in that namespace alone",),
                    fix=Fix("write valueFrom: {fieldRef: {fieldPath: metadata.namespace}}, or set metadata.namespace"),
                    also=tuple((other.word.span, "says it too") for other, _ in fixed[1:]),
                )


def _said(variable: Variable, container: Container, found: Object) -> str | None:
    """The Kubernetes namespace that a variable fixes, if the object does not have the same."""
    if not variable.word.is_known or variable.source is not None or not _is_literal(variable):
        return None
    value = variable.word.value
    if variable.name in _NAMESPACES:
        return value if value and value != found.namespace else None
    if variable.name not in _SCOPED:
        return None
    graph = container.env.get("DYN_PARENT_DGD_K8S_NAME")
    name = graph.word.value if graph is not None and graph.word.is_known else found.name
    is_graph = graph is not None or found.kind == "DynamoGraphDeployment"
    prefix = value.removesuffix(f"-{name}")
    return prefix if is_graph and name and prefix not in (value, found.namespace, "") else None


def _is_literal(variable: Variable) -> bool:
    """Whether the value is written here, not put together from others."""
    return variable.word.text.is_exact and "$(" not in variable.word.span.written
