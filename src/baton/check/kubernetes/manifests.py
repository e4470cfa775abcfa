"""Kubernetes objects as rules need them: workloads with their pods and containers, whatever kind they came from.

DynamoGraphDeployments (v1alpha1 `services`, v1beta1 `components`), LeaderWorkerSets, Deployments, StatefulSets, Jobs,
Pods; any other kind is searched for pod specs. Defaults that a controller fills in are not filled in here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from baton.check.kubernetes.container import NOTHING, Container, Variable, child, is_open, known
from baton.check.kubernetes.dynamo import component_workload, graph_workloads
from baton.check.kubernetes.fragments import opened
from baton.check.kubernetes.workload import Object, Pod, Workload, quantity, read_pod, read_shared_memory
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar, Sequence

__all__ = ["Container", "Manifests", "Object", "Pod", "Variable", "Workload", "objects", "quantity", "workloads"]

_BUILT_IN_GROUPS = ("v1", "apps", "batch", "extensions")
_TEMPLATES = {
    "Deployment": "spec.template",
    "StatefulSet": "spec.template",
    "ReplicaSet": "spec.template",
    "ReplicationController": "spec.template",
    "DaemonSet": "spec.template",
    "Job": "spec.template",
    "CronJob": "spec.jobTemplate.spec.template",
    "PodTemplate": "template",
    "Pod": "",
}
_REPLICAS = {"Job": "spec.parallelism", "CronJob": "spec.jobTemplate.spec.parallelism", "Pod": "", "PodTemplate": ""}
_NAME_KEYS = ("name", "groupName")
_REPLICAS_KEYS = ("replicas", "numReplicas", "minReplicas")
_NODES_KEYS = ("podGroupSize", "numOfHosts")
_INJECTED_BY_JOB = re.compile(r"JOB_COMPLETION_INDEX")
_INJECTED_BY_LEADER_WORKER_SET = re.compile(r"LWS_.*")
_INJECTED_BY_ANY = re.compile(r".*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Manifests:
    """All objects of some files, and the workloads among them."""

    objects: tuple[Object, ...] = ()
    workloads: tuple[Workload, ...] = field(default=())

    def of_kind(self, kind: str) -> tuple[Object, ...]:
        """Return the objects of a kind."""
        return tuple(o for o in self.objects if o.kind == kind)


def objects(documents: tuple[Node, ...]) -> tuple[Object, ...]:
    """Return the API objects among documents, the items of a List opened."""
    found, seen = [], set()
    waiting = list(reversed(documents))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Mapping) or id(node) in seen:
            continue
        api_version, kind = _word(child(node, "apiVersion")), _word(child(node, "kind"))
        if not (api_version and kind):
            continue
        held = child(node, "items")
        if kind.endswith("List") and isinstance(held, Sequence):
            seen.add(id(node))
            waiting.extend(reversed(held.items))
        else:
            metadata = child(node, "metadata")
            name, namespace = (known(tree.scalar(child(metadata, key))) for key in ("name", "namespace"))
            found.append(Object(api_version, kind, name, namespace, opened(kind, node)))
    return tuple(found)


def workloads(found: tuple[Object, ...]) -> tuple[Workload, ...]:
    """Return the workloads of objects, in order."""
    return tuple(workload for each in found for workload in _workloads(each))


def _workloads(found: Object) -> Iterator[Workload]:
    if found.kind == "DynamoGraphDeployment":
        return graph_workloads(found)
    if found.kind == "DynamoComponentDeployment":
        return component_workload(found)
    if found.kind == "LeaderWorkerSet":
        return _leader_worker_set(found)
    if found.kind in _TEMPLATES and found.api_version.split("/")[0] in _BUILT_IN_GROUPS:
        return _built_in(found)
    return _searched(found)


def _built_in(found: Object) -> Iterator[Workload]:
    template = found.node if found.kind == "Pod" else tree.find(found.node, _TEMPLATES[found.kind])
    path = _REPLICAS.get(found.kind, "spec.replicas")
    replicas = tree.number(found.node, path) if path else None
    injected = _INJECTED_BY_JOB if found.kind in ("Job", "CronJob") else NOTHING
    yield _workload(found, template, injected, replicas, node=found.node)


def _leader_worker_set(found: Object) -> Iterator[Workload]:
    spec = child(found.node, "spec")
    group = child(spec, "leaderWorkerTemplate")
    size = child(group, "size")
    nodes = tree.number(size)
    is_known = nodes is not None or (size is None and not is_open(group))
    leader, worker = (tree.mapping(child(group, f"{part}Template")) for part in ("leader", "worker"))
    for part, template in (("leader", leader), ("worker", worker)) if leader else (("", worker),):
        if template is not None:
            yield _workload(
                found,
                template,
                _INJECTED_BY_LEADER_WORKER_SET,
                tree.number(child(spec, "replicas")),
                node=template if part else found.node,
                nodes=max(1, nodes or 1),
                is_nodes_known=is_known,
                part=part,
            )


def _searched(found: Object) -> Iterator[Workload]:
    """Yield a workload for every pod spec below an object of a kind that is not known here."""
    for spec, outer in _pod_specs(found.node):
        name, replicas = _nearest(outer, _NAME_KEYS), _nearest(outer, _REPLICAS_KEYS)
        nodes = tree.number(_nearest(outer, _NODES_KEYS))
        pod = read_pod(spec, _INJECTED_BY_ANY)
        memory, is_mounted = read_shared_memory(pod)
        yield Workload(
            object=found,
            name=known(name) or found.name,
            component=None,
            replicas=tree.number(replicas),
            nodes=max(1, nodes or 1),
            part="",
            pod=pod,
            shared_memory=memory,
            node=spec,
            span=name.span if name else found.span,
            has_shared_memory=is_mounted,
        )


def _pod_specs(root: Mapping) -> Iterator[tuple[Mapping, tuple[Mapping, ...]]]:
    """Yield every mapping that holds containers, with the mappings around it, nearest first, but for the object."""
    seen: set[int] = set()
    waiting: list[tuple[Node, tuple[Mapping, ...]]] = [(root, ())]
    while waiting:
        node, outer = waiting.pop()
        if isinstance(node, Scalar) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Sequence):
            waiting.extend((item, outer) for item in reversed(node.items))
        elif any(_is_container(item) for item in tree.items(child(node, "containers"))):
            yield node, outer
        else:
            around = outer if node is root else (node, *outer)
            waiting.extend((entry.value, around) for entry in reversed(node.entries.values()))


def _is_container(node: Node) -> bool:
    return isinstance(node, Mapping) and not node.entries.keys().isdisjoint(("image", "command", "args"))


def _nearest(outer: tuple[Mapping, ...], keys: tuple[str, ...]) -> Scalar | None:
    values = (tree.scalar(child(around, key)) for around in outer for key in keys)
    return next((value for value in values if value), None)


def _workload(
    found: Object,
    template: Node | None,
    injected: re.Pattern[str],
    replicas: int | None,
    node: Mapping,
    nodes: int = 1,
    is_nodes_known: bool = True,
    part: str = "",
) -> Workload:
    pod = read_pod(tree.mapping(child(template, "spec")), injected, metadata=child(template, "metadata"))
    memory, is_mounted = read_shared_memory(pod)
    return Workload(
        object=found,
        name=found.name,
        component=None,
        replicas=replicas,
        nodes=nodes,
        part=part,
        pod=pod,
        shared_memory=memory,
        node=node,
        span=found.span,
        has_shared_memory=is_mounted,
        is_nodes_known=is_nodes_known,
    )


def _word(node: Node | None) -> str | None:
    scalar = tree.scalar(node)
    return known(scalar) if scalar and isinstance(scalar.value, str) else None
