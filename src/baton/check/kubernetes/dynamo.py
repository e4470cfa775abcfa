"""DynamoGraphDeployments as workloads: v1alpha1 `services`, v1beta1 `components`, and the older single component.

What is written for a service and what is written for its main container are put together as the operator does it. What
the operator itself adds (commands, probes, variables, 8 GiB of /dev/shm) is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from baton.check.kubernetes.container import (
    Container,
    child,
    environment,
    first_line,
    is_open,
    known,
    mounts,
    probes,
    read_container,
    scalars,
)
from baton.check.kubernetes.workload import (
    Object,
    Pod,
    Workload,
    quantity,
    read_claims,
    read_init_containers,
    read_pod,
    read_shared_memory,
)
from baton.check.text import Span
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

_INJECTED = re.compile(r"(GROVE|POD|DYN|DYNAMO|LWS|NATS|ETCD|NIXL|VLLM_NIXL|CONTAINER)_.*|VLLM_CACHE_ROOT")
_GPU = "nvidia.com/gpu"
_DEFAULT_NODE_COUNT = 2


def graph_workloads(graph: Object) -> Iterator[Workload]:
    """Yield one workload for each service or component of a DynamoGraphDeployment."""
    spec = child(graph.node, "spec")
    services = child(spec, "services")
    if isinstance(services, Mapping):
        for name, entry in services.entries.items():
            if isinstance(entry.value, Mapping):
                label = name if entry.key.is_known else None
                yield _service(graph, entry.value, label, entry.key.span, child(spec, "envs"))
    for component in tree.items(child(spec, "components")):
        if isinstance(component, Mapping):
            yield _component(graph, component, child(spec, "env"))


def component_workload(component: Object) -> Iterator[Workload]:
    """Yield the workload of a DynamoComponentDeployment, whose spec is one service."""
    spec = tree.mapping(child(component.node, "spec"))
    if spec is None:
        return
    if child(spec, "podTemplate") is not None:
        yield replace(_component(component, spec, None), name=component.name, span=component.span)
    else:
        yield _service(component, spec, component.name, component.span, None)


def _service(graph: Object, node: Mapping, name: str | None, span: Span, graph_env: Node | None) -> Workload:
    """Return the workload of a v1alpha1 service."""
    spec = tree.mapping(child(node, "extraPodSpec"))
    claims = read_claims(spec) | {
        n: s for s in mounts(child(node, "volumeMounts"), "mountPoint").values() if (n := known(s))
    }
    sidecars = [item for item in tree.items(child(spec, "containers")) if isinstance(item, Mapping)]
    containers = (
        *read_init_containers(spec, _INJECTED),
        _service_main(node, tree.mapping(child(spec, "mainContainer")), span, graph_env),
        *(read_container(c, environment(c, injected=_INJECTED), is_main=False) for c in sidecars),
        *_frontend_sidecar(node),
    )
    pod = Pod(containers, spec, claims)
    memory, is_mounted = _service_memory(node) or read_shared_memory(pod)
    nodes, is_nodes_known = _node_count(node)
    component = known(tree.scalar(child(node, "subComponentType"))) or known(tree.scalar(child(node, "componentType")))
    return Workload(
        object=graph,
        name=name,
        component=component,
        replicas=tree.number(child(node, "replicas")),
        nodes=nodes,
        part="",
        pod=pod,
        shared_memory=memory,
        node=node,
        span=span,
        has_shared_memory=is_mounted,
        is_nodes_known=is_nodes_known,
    )


def _service_main(service: Mapping, main: Mapping | None, span: Span, graph_env: Node | None) -> Container:
    """Return the main container of a service: the service's probes and resources win, the container's variables do."""
    is_complete = service.is_complete and not is_open(child(service, "extraPodSpec"))
    written = main or Mapping({}, service.span, is_complete)
    env = environment(
        written,
        before=(graph_env, child(service, "envs")),
        secrets=(child(service, "envFromSecret"),),
        injected=_INJECTED,
    )
    own = read_container(written, env)
    resources = child(service, "resources")
    return replace(
        own,
        requests={**own.requests, **_resources(child(resources, "requests"))},
        limits={**own.limits, **_resources(child(resources, "limits"))},
        mounts={**mounts(child(service, "volumeMounts"), "mountPoint"), **own.mounts},
        probes={**own.probes, **probes(service)},
        node=main or service,
        span=span if main is None else own.span,
    )


def _frontend_sidecar(service: Mapping) -> Iterator[Container]:
    node = tree.mapping(child(service, "frontendSidecar"))
    if node is not None:
        secrets = (child(node, "envFromSecret"),)
        env = environment(node, before=(child(node, "envs"),), secrets=secrets, injected=_INJECTED)
        yield read_container(node, env, is_main=False)


def _resources(node: Node | None) -> dict[str, Scalar]:
    """Return a service's limits or requests by the resource names of Kubernetes."""
    found = scalars(node)
    kind, count = found.pop("gpuType", None), found.pop("gpu", None)
    name = _GPU if kind is None else known(kind)
    if name and count:
        found[name] = count
    return found | scalars(child(node, "custom"))


def _service_memory(service: Mapping) -> tuple[Scalar | None, bool] | None:
    memory = child(service, "sharedMemory")
    if memory is None:
        return None
    if known(tree.scalar(child(memory, "disabled"))) == "true":
        return None, False
    size = tree.scalar(child(memory, "size"))
    return size, size is not None or is_open(memory)


def _component(graph: Object, node: Mapping, graph_env: Node | None) -> Workload:
    """Return the workload of a v1beta1 component."""
    template = child(node, "podTemplate")
    spec = tree.mapping(child(template, "spec"))
    pod = read_pod(spec, _INJECTED, main="main", main_env=(graph_env,))
    cache = child(node, "compilationCache")
    claim = tree.scalar(child(cache, "pvcName"))
    if claim and (claim_name := known(claim)):
        pod = replace(pod, claims={**pod.claims, claim_name: claim})
    size = tree.scalar(child(node, "sharedMemorySize"))
    memory, is_mounted = (size, quantity(size.text.value) != 0) if size else read_shared_memory(pod)
    nodes, is_nodes_known = _node_count(node)
    name = tree.scalar(child(node, "name"))
    return Workload(
        object=graph,
        name=known(name),
        component=known(tree.scalar(child(node, "type"))),
        replicas=tree.number(child(node, "replicas")),
        nodes=nodes,
        part="",
        pod=pod,
        shared_memory=memory,
        node=node,
        span=name.span if name else first_line(node.span),
        has_shared_memory=is_mounted,
        is_nodes_known=is_nodes_known,
    )


def _node_count(node: Mapping) -> tuple[int, bool]:
    """Return how many nodes one replica has, and whether that is known."""
    multinode = child(node, "multinode")
    if not isinstance(multinode, Mapping):
        return 1, not is_open(multinode)
    written = child(multinode, "nodeCount")
    if written is None:
        return (_DEFAULT_NODE_COUNT, True) if multinode.is_complete else (1, False)
    count = tree.number(written)
    return (1, False) if count is None else (max(1, count), True)
