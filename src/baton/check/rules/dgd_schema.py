"""Fields of one version of the DynamoGraphDeployment in the other.

v1alpha1 has a map `services` with envs, volumeMounts (mountPoint) and extraPodSpec; v1beta1 has a list `components`
with a podTemplate, type and sharedMemorySize. The versions are different schemas, not a rename: kubectl refuses
`unknown field`, and a client that does not look has the field dropped, so the service comes up without it.

Write all of the object in the version that its apiVersion says.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child
from baton.check.yaml import tree
from baton.check.yaml.tree import Entry, Mapping, Node

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/dynamo/issues/8069", "https://github.com/aws-samples/aws-do-eks/issues/85")
FIRES = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  components:
    - {name: planner, type: planner, subComponentType: planner}
"""
SILENT = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  components:
    - {name: planner, type: planner}
"""
_ALPHA, _BETA = "v1alpha1", "v1beta1"
# Fields that the version has not got, each with what stands in its place. From the CRD of the operator.
_SPEC = {
    _ALPHA: {"components": "services (a map by name)", "env": "envs"},
    _BETA: {
        "services": "components (a list, each with a name)",
        "envs": "env",
        "pvcs": "volumes of each component's podTemplate",
    },
}
_MAIN = "podTemplate.spec.containers, in the one called main"
_SERVICE = {
    _ALPHA: {
        "type": "componentType",
        "podTemplate": "extraPodSpec",
        "env": "envs",
        "sharedMemorySize": "sharedMemory.size",
        "compilationCache": "volumeMounts with useAsCompilationCache",
    },
    _BETA: {
        "componentType": "type",
        "subComponentType": "type",
        "envs": f"env of {_MAIN}",
        "env": f"env of {_MAIN}",
        "envFromSecret": f"envFrom of {_MAIN}",
        "volumeMounts": f"volumeMounts of {_MAIN}",
        "resources": f"resources of {_MAIN}",
        "livenessProbe": f"livenessProbe of {_MAIN}",
        "readinessProbe": f"readinessProbe of {_MAIN}",
        "extraPodSpec": "podTemplate.spec",
        "extraPodMetadata": "podTemplate.metadata",
        "sharedMemory": "sharedMemorySize",
        "annotations": "podTemplate.metadata.annotations",
        "labels": "podTemplate.metadata.labels",
        "dynamoNamespace": "nothing",
        "serviceName": "nothing",
        "autoscaling": "scalingAdapter",
        "ingress": "nothing",
        "gpuMemoryService": "experimental.gpuMemoryService",
        "failover": "experimental.failover",
        "checkpoint": "experimental.checkpoint",
    },
}


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every field of a graph that belongs to the other version."""
    for found in bundle.manifests.of_kind("DynamoGraphDeployment"):
        group, _, version = found.api_version.partition("/")
        if group != "nvidia.com" or version not in _SPEC:
            continue
        spec = child(found.node, "spec")
        yield from _misplaced(spec, _SPEC[version], version, "spec")
        for service in _services(spec):
            yield from _misplaced(
                service, _SERVICE[version], version, "a service" if version == _ALPHA else "a component"
            )
            if version == _ALPHA:
                yield from _mounts(child(service, "volumeMounts"), "mountPath", "mountPoint")
                main = child(child(service, "extraPodSpec"), "mainContainer")
                yield from _mounts(child(main, "volumeMounts"), "mountPoint", "mountPath")


def _services(spec: Node | None) -> Iterator[Node]:
    services = child(spec, "services")
    if isinstance(services, Mapping):
        yield from (entry.value for entry in services.entries.values())
    yield from tree.items(child(spec, "components"))


def _misplaced(node: Node | None, others: dict[str, str], version: str, where: str) -> Iterator[Finding]:
    entries = node.entries.items() if isinstance(node, Mapping) else ()
    for key, entry in entries:
        if key in others:
            yield _finding(entry, f"{where} of {version} has no field {key!r}", others[key])


def _mounts(node: Node | None, wrong: str, right: str) -> Iterator[Finding]:
    for item in tree.items(node):
        entry = item.entries.get(wrong) if isinstance(item, Mapping) else None
        if entry is not None:
            yield _finding(entry, f"volumeMounts here take {right}, not {wrong}", right)


def _finding(entry: Entry, message: str, instead: str) -> Finding:
    words = "remove it" if instead == "nothing" else f"write {instead}"
    return Finding(
        span=entry.key.span,
        message=f"{message}: it is refused, or dropped",
        evidence=("strict decoding error: unknown field; without strict decoding the API server prunes it",),
        fix=Fix(words),
    )
