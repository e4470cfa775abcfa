"""A ComputeDomain that does not fit the workloads in it.

A ComputeDomain opens NVLink memory between nodes; pods join it by a resource claim whose template it makes. Under a
name that no ComputeDomain makes, the pods stay in Pending. Where the driver waits for `numNodes` daemons
(IMEXDaemonsWithDNSNames off, and every older driver), pods are held back until that many nodes have joined, and more
than that many lead to "unexpected behavior".

Name the template as the ComputeDomain does, and make numNodes the sum of nodes x replicas over all that claim it, or 0
where the driver allows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.facts.devices import GPUS, domain_templates
from baton.check.facts.similar import similar
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Object, Workload
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/grove/issues/209",)
_FILES = """\
apiVersion: resource.nvidia.com/v1beta1
kind: ComputeDomain
metadata: {name: domain}
spec:
  numNodes: %s
  channel: {resourceClaimTemplate: {name: domain-channel}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: workers}
spec:
  replicas: 2
  serviceName: workers
  selector: {matchLabels: {app: workers}}
  template:
    metadata: {labels: {app: workers}}
    spec:
      resourceClaims: [{name: channel, resourceClaimTemplateName: domain-channel}]
      containers:
        - name: worker
          image: busybox:1.37
          command: [sleep, infinity]
          resources: {limits: {nvidia.com/gpu: 4}}
"""
FIRES = _FILES % "4"
SILENT = _FILES % "2"
_MOST_OF_A_NODE = 3  # GPUs of the four that a node of a multi-node NVLink domain has: two such pods take two nodes
_RUNS_LATER = ("Job", "CronJob")


@dataclass(frozen=True, slots=True)
class _Claim:
    workload: Workload
    template: Scalar


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield findings for templates that nothing makes, and for sums that do not add up."""
    domains = bundle.manifests.of_kind("ComputeDomain")
    if not domains:
        return
    claims = list(_claims(bundle))
    yield from _unmade(bundle, claims, domains)
    for domain in domains:
        template = _template(domain)
        is_lone = sum(_template(other) == template for other in domains) == 1
        users = [c.workload for c in claims if known(c.template) == template] if is_lone else []
        written = tree.scalar(domain.node, "spec.numNodes")
        count = tree.number(written)
        if template and users and written is not None and count:
            yield from _sum(domain, written, count, users)


def _template(domain: Object) -> str | None:
    return tree.string(domain.node, "spec.channel.resourceClaimTemplate.name")


def _claims(bundle: Bundle) -> Iterator[_Claim]:
    for workload in bundle.manifests.workloads:
        for item in tree.items(child(workload.pod.spec, "resourceClaims")):
            template = tree.scalar(child(item, "resourceClaimTemplateName"))
            if template is not None and template.is_known:
                yield _Claim(workload, template)


def _unmade(bundle: Bundle, claims: list[_Claim], domains: tuple[Object, ...]) -> Iterator[Finding]:
    made = domain_templates(bundle)
    if len(made) < len(domains):
        return
    made |= {found.name for found in bundle.manifests.of_kind("ResourceClaimTemplate") if found.name}
    for claim in claims:
        name = claim.template.text.value
        meant = similar(name, made)
        if name not in made and meant is not None:
            yield Finding(
                span=claim.template.span,
                message=f"no ComputeDomain here makes the template {name!r}, but {meant!r}: the pods stay in Pending",
                evidence=("a claim of a template that does not exist is never made",),
                fix=Fix(f"write {meant}", fixes.replace_text(claim.template.text, meant)),
                harm=Harm.NOT_STARTING,
            )


def _sum(domain: Object, written: Scalar, count: int, users: list[Workload]) -> Iterator[Finding]:
    parts = [_nodes(workload) for workload in users]
    if None in parts:
        return
    total = sum(nodes for nodes, _ in filter(None, parts))
    if count == total or (count < total and not all(_fills_a_node(workload) for workload in users)):
        return
    words = " + ".join(said for _, said in filter(None, parts))
    yield Finding(
        span=written.span,
        message=f"numNodes is {count}, but the workloads that claim {domain.name!r} run on {total} nodes",
        evidence=(f"{words} = {total}", "where the driver gates on numNodes, pods wait until that many have joined"),
        fix=Fix(f"write numNodes: {total}", fixes.replace_text(written.text, str(total))),
        also=tuple((workload.span, "claims it") for workload in users),
    )


def _nodes(workload: Workload) -> tuple[int, str] | None:
    """Nodes that a workload takes, and the sum in words; None if not known."""
    replicas = workload.replicas
    if replicas is None and child(tree.mapping(workload.node, "spec") or workload.node, "replicas") is not None:
        return None
    is_late = workload.object.kind in _RUNS_LATER
    if not workload.is_nodes_known or is_late or (replicas is None and not workload.node.is_complete):
        return None
    replicas = 1 if replicas is None else replicas
    nodes = {"leader": 1, "worker": workload.nodes - 1}.get(workload.part, workload.nodes)
    return replicas * nodes, f"{workload.name}{f' ({workload.part})' if workload.part else ''} {replicas} x {nodes}"


def _fills_a_node(workload: Workload) -> bool:
    counts = [workload.resource(name) for name in GPUS]
    return any(count is not None and count >= _MOST_OF_A_NODE for count in counts)
