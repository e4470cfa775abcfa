"""Objects that are only a part of what runs: kustomize's patches, and what KServe's controller merges.

Nothing follows from what such a part leaves out, just as nothing follows where a template may add to it.
"""

from __future__ import annotations

from baton.check.kubernetes.container import child
from baton.check.yaml import tree
from baton.check.yaml.tree import Entry, Mapping, Node, Scalar, Sequence

_MERGED = ("LLMInferenceServiceConfig", "ServingRuntime", "ClusterServingRuntime")
_PODS = {
    "Deployment": ("spec.template.spec",),
    "StatefulSet": ("spec.template.spec",),
    "DaemonSet": ("spec.template.spec",),
    "LeaderWorkerSet": (
        "spec.leaderWorkerTemplate.leaderTemplate.spec",
        "spec.leaderWorkerTemplate.workerTemplate.spec",
    ),
}


def opened(kind: str, node: Mapping) -> Mapping:
    """Return an object, marked as incomplete throughout if it is a part of one."""
    if kind not in _MERGED and not _is_patch(kind, node):
        return node
    found = _open(node, {})
    assert isinstance(found, Mapping), "a mapping stays one"
    return found


def _is_patch(kind: str, node: Mapping) -> bool:
    """Whether a workload lacks what the API server asks of one: an image in every container, a selector."""
    pods = [pod for path in _PODS.get(kind, ()) if (pod := tree.mapping(node, path)) is not None]
    containers = [c for pod in pods for c in tree.items(child(pod, "containers")) if isinstance(c, Mapping)]
    has_no_image = any(c.is_complete and child(c, "image") is None for c in containers)
    spec = tree.mapping(node, "spec")
    has_no_selector = (
        kind != "LeaderWorkerSet" and spec is not None and spec.is_complete and "selector" not in spec.entries
    )
    return bool(containers) and (has_no_image or has_no_selector)


def _open(node: Node, done: dict[int, Node]) -> Node:
    """Return a copy that may hold more than is written; lists of plain values are replaced as a whole, and stay."""
    if isinstance(node, Scalar) or id(node) in done:
        return done.get(id(node), node)
    done[id(node)] = node
    if isinstance(node, Mapping):
        entries = {key: Entry(e.key, _open(e.value, done), e.span) for key, e in node.entries.items()}
        copy: Node = Mapping(entries, node.span, is_complete=False)
    else:
        items = tuple(_open(item, done) for item in node.items)
        is_whole = bool(items) and all(isinstance(item, Scalar) for item in items)
        copy = Sequence(items, node.span, node.is_complete and is_whole)
    done[id(node)] = copy
    return copy
