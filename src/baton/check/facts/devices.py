"""What gives a container an RDMA network device, and what lets it pin memory for one."""

from __future__ import annotations

import re

from baton.check.bundle import Bundle
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Container, Workload
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar

_RDMA = re.compile(r"rdma|/efa$|/hca|infiniband|roce|/ib\b|mlnx|mellanox|sriov|nic$", re.IGNORECASE)
_NETWORKS = re.compile(r"cni\.cncf\.io/networks|pod-networks|networking\.gke\.io/interfaces")
GPUS = ("nvidia.com/gpu", "amd.com/gpu")


def rdma_resource(container: Container) -> Scalar | None:
    """Return the count of the RDMA resource that a container asks for; None if it asks for none that is known."""
    asked = {**container.requests, **container.limits}
    return next((value for name, value in asked.items() if _RDMA.search(name)), None)


def lacks_rdma(bundle: Bundle, workload: Workload, container: Container) -> bool:
    """Say for sure that nothing in the manifest gives a container of GPUs an RDMA device."""
    asked = {**container.requests, **container.limits}
    has_gpu = any(name in asked for name in GPUS)
    spec = workload.pod.spec
    if not has_gpu or rdma_resource(container) is not None or is_privileged(container):
        return False
    if known(tree.scalar(child(spec, "hostNetwork"))) == "true" or _has_networks(workload):
        return False
    resources = child(container.node, "resources")
    is_open = isinstance(resources, tree.Mapping) and not resources.is_complete
    return not is_open and not _has_other_claims(bundle, workload)


def is_privileged(container: Container) -> bool:
    """Whether a container has every right on its node."""
    return known(tree.scalar(child(container.security, "privileged"))) == "true"


def capabilities(container: Container) -> set[str]:
    """Return the capabilities that a container adds, without CAP_."""
    added = tree.items(child(child(container.security, "capabilities"), "add"))
    return {(known(tree.scalar(item)) or "").upper().removeprefix("CAP_") for item in added}


def domain_templates(bundle: Bundle) -> set[str]:
    """Return the names of the resource claim templates that ComputeDomains make: NVLink between nodes, no network."""
    path = "spec.channel.resourceClaimTemplate.name"
    names = (tree.string(domain.node, path) for domain in bundle.manifests.of_kind("ComputeDomain"))
    return {name for name in names if name}


def _has_other_claims(bundle: Bundle, workload: Workload) -> bool:
    templates = domain_templates(bundle)
    claims = tree.items(child(workload.pod.spec, "resourceClaims"))
    return any(known(tree.scalar(child(c, "resourceClaimTemplateName"))) not in templates for c in claims)


def _has_networks(workload: Workload) -> bool:
    return _NETWORKS.search(workload.object.node.span.written) is not None
