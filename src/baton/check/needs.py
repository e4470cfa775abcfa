"""What Kubernetes objects need of the cluster they are applied to: controllers, drivers, devices, storage, Secrets.

A need is no fault: nothing here says whether a cluster has it. docs/cluster.md says how to get each.

Sources: lws.sigs.k8s.io, "Labels, Annotations and Environment Variables" (LWS_WORKER_INDEX) and docs.nvidia.com/dynamo,
installation guide (LeaderWorkerSet 0.7.0 or newer); docs.nvidia.com/dynamo/v1.4.0, "DynamoGraphDeployment Reference"
(v1beta1); kubernetes-sigs/dra-driver-nvidia-gpu, "Prerequisites"; deepseek-ai/DeepEP, docs/nvshmem.md (IBGDA).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.facts import storage
from baton.check.facts.devices import rdma_resource
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Container, Object
from baton.check.kubernetes.workload import quantity
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

_GPU = "nvidia.com/gpu"
_KINDS = (
    (
        "LeaderWorkerSet",
        "leaderworkerset.x-k8s.io/",
        "the LeaderWorkerSet controller, 0.7.0 or newer (leaderworkerset.x-k8s.io/v1)",
    ),
    ("DynamoGraphDeployment", "nvidia.com/v1alpha1", "the Dynamo platform (nvidia.com/v1alpha1)"),
    ("DynamoGraphDeployment", "nvidia.com/v1beta1", "the Dynamo platform, 1.4.0 or newer (nvidia.com/v1beta1)"),
    ("DynamoComponentDeployment", "nvidia.com/", "the Dynamo platform"),
    (
        "ComputeDomain",
        "resource.nvidia.com/",
        "NVIDIA's DRA driver for GPUs, on Kubernetes 1.32 or newer with resource.k8s.io (on by default from 1.34)",
    ),
    ("PodMonitor", "monitoring.coreos.com/", "the Prometheus operator (monitoring.coreos.com/v1)"),
    ("ServiceMonitor", "monitoring.coreos.com/", "the Prometheus operator (monitoring.coreos.com/v1)"),
    (
        "NetworkPolicy",
        "networking.k8s.io/",
        "a network plugin that enforces NetworkPolicy; under any other they do nothing",
    ),
)
_GPU_WORDS = f"NVIDIA's GPU operator, or its driver and device plugin ({_GPU})"
_IBGDA_WORDS = (
    "IBGDA on every node: the NVIDIA driver loaded with NVreg_EnableStreamMemOPs=1 and PeerMappingOverride=1, which "
    "takes a reboot, or GDRCopy's gdrdrv"
)
_DEEPEP = ("deepep_high_throughput", "deepep_low_latency")
_OFF = ("", "0", "false", "no", "off")
_SECRET_MAKERS = ("Secret", "ExternalSecret", "SealedSecret")
_HUGGING_FACE = re.compile(r"(^|[^a-z])hf([^a-z]|$)|hugging", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that must be in the cluster, and the objects that need it, in order, each once."""

    what: str
    objects: tuple[Object, ...]


def needs(bundle: Bundle) -> tuple[Need, ...]:
    """Return what the Kubernetes objects of a bundle need; () for files without any."""
    found: dict[str, dict[int, Object]] = {}
    for reader in _READERS:
        for what, each in reader(bundle):
            found.setdefault(what, {}).setdefault(id(each.node), each)
    return tuple(Need(what, tuple(objects.values())) for what, objects in found.items())


def _of_kinds(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    for kind, version, what in _KINDS:
        for found in bundle.manifests.of_kind(kind):
            if found.api_version.startswith(version):
                yield what, found


def _of_devices(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    for container, owner in _containers(bundle):
        gpus = container.limits.get(_GPU) or container.requests.get(_GPU)
        if gpus is not None and quantity(known(gpus) or "") != 0:
            yield _GPU_WORDS, owner
    for container, owner in _containers(bundle):
        count = rdma_resource(container)
        asked = {**container.requests, **container.limits}
        name = next((name for name, value in asked.items() if value is count), None)
        if count is not None and quantity(known(count) or "") != 0:
            yield f"an RDMA device plugin that offers {name} (NVIDIA's network operator has one)", owner


def _of_ibgda(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    for launch in bundle.engines:
        if launch.workload is not None and launch.all2all in _DEEPEP:
            yield _IBGDA_WORDS, launch.workload.object
    for container, owner in _containers(bundle):
        if _value(container, "NVSHMEM_IB_ENABLE_IBGDA") not in _OFF or (
            _value(container, "NVSHMEM_REMOTE_TRANSPORT") == "ibgda"
        ):
            yield _IBGDA_WORDS, owner


def _of_storage(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    for claim in bundle.manifests.of_kind(storage.CLAIM):
        modes = [known(tree.scalar(mode)) for mode in tree.items(claim.node, "spec.accessModes")]
        if "ReadWriteMany" in modes:
            name = known(tree.scalar(claim.node, "spec.storageClassName"))
            which = f"a storage class {name}" if name else "a default storage class"
            yield f"{which} whose volumes many nodes write to (ReadWriteMany)", claim
    made = storage.claims(bundle)
    for reference, owner in storage.references(bundle):
        name = known(reference)
        if name is not None and name not in made:
            yield f"a PersistentVolumeClaim {name}, which no file here makes", owner


def _of_images(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    """The gateway's image, which nobody publishes: by a name without a registry no node finds it."""
    for container, owner in _containers(bundle):
        image = known(container.image)
        if image is not None and "/" not in image and [word.value for word in container.command or ()] == ["baton"]:
            what = (
                f"the gateway's image {image} in a registry of yours: build it from the rendered Containerfile, push it"
            )
            yield f"{what}, and set cluster.gateway_image", owner


def _of_secrets(bundle: Bundle) -> Iterator[tuple[str, Object]]:
    makers = [found for kind in _SECRET_MAKERS for found in bundle.manifests.of_kind(kind)]
    made = {found.name for found in makers}
    if None in made:
        return
    for owner in bundle.manifests.objects:
        if owner.kind in _SECRET_MAKERS:
            continue
        for node in tree.walk(owner.node):
            for name, what in _secrets(node):
                if name not in made:
                    yield what, owner


def _secrets(node: Node) -> Iterator[tuple[str, str]]:
    """The Secrets that a mapping names, and what to say of each."""
    if not isinstance(node, Mapping):
        return
    for item in tree.items(child(node, "imagePullSecrets")):
        name = _text(child(item, "name"))
        if name is not None:
            yield name, f"a Secret {name} to pull images with (`kubectl create secret docker-registry`)"
    source = child(node, "secretKeyRef")
    key = _text(child(source, "key"))
    named = (
        _text(child(source, "name")),
        _text(child(child(node, "secretRef"), "name")),
        _text(child(node, "envFromSecret")),
        _text(child(child(node, "secret"), "secretName")),
    )
    for name in named:
        if name is not None:
            what = f"a Secret {name}" + (f" with the key {key}" if key is not None else "")
            is_token = _HUGGING_FACE.search(f"{name} {key or ''}".replace("_", " "))
            yield name, what + (" (`baton secret` makes it)" if is_token else ", which no file here makes")


def _containers(bundle: Bundle) -> Iterable[tuple[Container, Object]]:
    return ((c, workload.object) for workload in bundle.manifests.workloads for c in workload.pod.containers)


def _value(container: Container, variable: str) -> str:
    found = container.env.get(variable)
    return found.word.value.strip().lower() if found is not None and found.word.is_known else ""


def _text(node: Node | None) -> str | None:
    return known(node) if isinstance(node, Scalar) else None


_READERS: tuple[Callable[[Bundle], Iterator[tuple[str, Object]]], ...] = (
    _of_kinds,
    _of_devices,
    _of_ibgda,
    _of_storage,
    _of_images,
    _of_secrets,
)
