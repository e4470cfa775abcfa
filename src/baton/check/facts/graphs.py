"""DynamoGraphDeployments as their frontends see them: the workers, which side each is on, and who routes.

Knows nothing of what is wrong with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.kubernetes.manifests import Object, Workload
from baton.check.text import Span
from baton.check.yaml import tree

_WORKERS = ("worker", "prefill", "decode")


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """One graph: its components, with the engine of each where one is found; and the front doors it starts."""

    object: Object
    workloads: tuple[Workload, ...]
    workers: tuple[tuple[Workload, Launch | None], ...]
    doors: tuple[Launch, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What its components are called."""
        return tuple(w.name or "?" for w in self.workloads)

    @property
    def sides(self) -> set[str]:
        """Which of prefill and decode it has."""
        return {side for w, e in self.workers if (side := self.side(w, e)) is not None}

    @property
    def has_picker(self) -> bool:
        """Whether an endpoint picker of a gateway routes in the place of a front door."""
        return any(w.component == "epp" for w in self.workloads)

    @property
    def is_complete(self) -> bool:
        """Whether all its components are written here, vLLM among them, and what every worker does is known."""
        spec = tree.mapping(self.object.node, "spec")
        held = [tree.find(spec, key) for key in ("services", "components")] if spec is not None else []
        is_open = any(isinstance(n, tree.Mapping | tree.Sequence) and not n.is_complete for n in (spec, *held))
        engines = [e for _, e in self.workers if e is not None]
        return bool(engines) and not is_open and all(e.is_complete and e.is_env_complete for e in engines)

    def side(self, workload: Workload, engine: Launch | None) -> str | None:
        """Return which side a worker is on: what its engine says, else what it is called."""
        if engine is not None:
            return engine.side
        return workload.component if workload.component in ("prefill", "decode") else None


def graphs(bundle: Bundle) -> list[Graph]:
    """Return the graphs of a bundle that vLLM serves, or may."""
    by_workload: dict[int, list[Launch]] = {}
    for launch in bundle.launches:
        if launch.workload is not None:
            by_workload.setdefault(id(launch.workload), []).append(launch)
    found: dict[int, list[Workload]] = {}
    for workload in bundle.manifests.workloads:
        if workload.object.kind == "DynamoGraphDeployment":
            found.setdefault(id(workload.object), []).append(workload)
    return [_graph(of_one, by_workload) for of_one in found.values() if _is_vllm(of_one[0].object)]


def commented_out(graph: Graph, name: str) -> Span | None:
    """Return the comment that holds a component of a name, in the graph's file; None if there is none."""
    wanted = re.compile(rf"#[ \t]*(?:- name:[ \t]*)?{name}[ \t]*:?$", re.IGNORECASE)
    source = graph.object.node.span.source
    return next((c.span for c in tree.comments(source) if c.alone and wanted.match(c.span.written)), None)


def _graph(workloads: list[Workload], by_workload: dict[int, list[Launch]]) -> Graph:
    engines = {id(w): next((e for e in by_workload.get(id(w), []) if e.is_engine), None) for w in workloads}
    workers = [w for w in workloads if w.component in _WORKERS or engines[id(w)] is not None]
    doors = tuple(e for w in workloads for e in by_workload.get(id(w), []) if not e.is_engine)
    return Graph(workloads[0].object, tuple(workloads), tuple((w, engines[id(w)]) for w in workers), doors)


def _is_vllm(graph: Object) -> bool:
    return (tree.string(graph.node, "spec.backendFramework") or "vllm") == "vllm"
