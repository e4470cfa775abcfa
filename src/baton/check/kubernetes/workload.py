"""Pods and the workloads that make them; how big their /dev/shm is and what they are given.

Does not know the kinds of objects: those are read in `kubernetes` and `dynamo`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from baton.check.kubernetes.container import Container, child, environment, first_line, known, read_container
from baton.check.text import Span
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

DYNAMO_KINDS = ("DynamoGraphDeployment", "DynamoComponentDeployment")
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - where Linux has it, not a file baton writes
_DEVICE = re.compile(r"gpu|/mig-|/xe$|npu|tpu|gaudi|neuron", re.IGNORECASE)
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i))?")
_EXPONENTS = {"n": "e-9", "u": "e-6", "m": "e-3", "k": "e3", "M": "e6", "G": "e9", "T": "e12", "P": "e15", "E": "e18"}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


@dataclass(frozen=True, slots=True, eq=False)
class Object:
    """One API object: `node` is the whole of it. name and namespace are None where absent or decided by a template."""

    api_version: str
    kind: str
    name: str | None
    namespace: str | None
    node: Mapping

    @property
    def span(self) -> Span:
        """Where to point when the object as a whole is meant: the value of metadata.name, else its first line."""
        name = tree.scalar(child(child(self.node, "metadata"), "name"))
        return name.span if name else first_line(self.node.span)


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """A pod spec: its containers (init containers among them), and the spec as written (None where a
    DynamoGraphDeployment gives none).

    claims: PersistentVolumeClaim's name by volume name; a DynamoGraphDeployment v1alpha1 mounts claims by their own.
    """

    containers: tuple[Container, ...]
    spec: Mapping | None
    claims: MappingOf[str, Scalar] = field(default_factory=dict)

    @property
    def main(self) -> Container | None:
        """The container the pod is about."""
        return next((c for c in self.containers if c.is_main and not c.is_init), None)


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Pods that one controller makes alike.

    name: the object's, for a DynamoGraphDeployment the service's. component: what a DynamoGraphDeployment says it is
    ("frontend", "worker", "prefill", "decode", "planner", "epp", ...; a worker's subComponentType counts). replicas:
    None if not given or not known. nodes: pods that make one replica (multinode, LeaderWorkerSet size; a
    StatefulSet or Job with parallelism is not one); 1 and is_nodes_known False where a template decides it.
    leader/worker templates of a LeaderWorkerSet are two workloads with the same `nodes`; `part` is "leader" or "worker"
    then, else "". shared_memory: size of /dev/shm where something sets it (sharedMemory.size, sharedMemorySize, an
    emptyDir of medium Memory mounted at /dev/shm); has_shared_memory: whether anything is mounted there, with or
    without a size. node: as written.
    """

    object: Object
    name: str | None
    component: str | None
    replicas: int | None
    nodes: int
    part: str
    pod: Pod
    shared_memory: Scalar | None
    node: Mapping
    span: Span
    has_shared_memory: bool = False
    is_nodes_known: bool = True

    @property
    def is_dynamo(self) -> bool:
        """Whether the Dynamo operator runs it, and so adds flags, probes and variables of its own."""
        return self.object.kind in DYNAMO_KINDS

    def resource(self, name: str) -> int | None:
        """Return how many of a countable resource the main container is given on one node; None if not known.

        None too if it is not mentioned: devices may come by other ways (a resource claim, a policy).
        """
        main = self.pod.main
        written = main and (main.limits.get(name) or main.requests.get(name))
        value = quantity(known(written) or "") if written else None
        return int(value) if value is not None and value.is_integer() else None


def read_pod(
    spec: Mapping | None,
    injected: re.Pattern[str],
    metadata: Node | None = None,
    main: str | None = None,
    main_env: Sequence[Node | None] = (),
) -> Pod:
    """Return the pod of a spec; `main` names its main container, `main_env` comes before that one's own env."""
    main = main or known(tree.scalar(child(child(metadata, "annotations"), _DEFAULT_CONTAINER)))
    nodes = [item for item in tree.items(child(spec, "containers")) if isinstance(item, Mapping)]
    containers = []
    for node in nodes:
        is_named = main is not None and known(tree.scalar(child(node, "name"))) == main
        env = environment(node, before=main_env if is_named else (), injected=injected)
        containers.append(read_container(node, env, is_main=is_named))
    if not any(c.is_main for c in containers):
        containers = _with_mains(containers)
    return Pod((*read_init_containers(spec, injected), *containers), spec, read_claims(spec))


def read_init_containers(spec: Mapping | None, injected: re.Pattern[str]) -> list[Container]:
    """Return the init containers of a pod spec."""
    nodes = [item for item in tree.items(child(spec, "initContainers")) if isinstance(item, Mapping)]
    return [read_container(n, environment(n, injected=injected), is_init=True, is_main=False) for n in nodes]


def read_claims(spec: Mapping | None) -> dict[str, Scalar]:
    """Return the claims that the volumes of a pod spec mount, by volume name."""
    found = (
        (known(tree.scalar(child(v, "name"))), tree.scalar(child(child(v, "persistentVolumeClaim"), "claimName")))
        for v in tree.items(child(spec, "volumes"))
    )
    return {name: claim for name, claim in found if name and claim}


def read_shared_memory(pod: Pod) -> tuple[Scalar | None, bool]:
    """Return the size of /dev/shm in the main container as the pod's volumes set it, and whether they set it at all."""
    mounted = pod.main.mounts.items() if pod.main else ()
    name = next((known(volume) for path, volume in mounted if path.rstrip("/") == SHARED_MEMORY_PATH), None)
    if name is None:
        return None, False
    volumes = tree.items(child(pod.spec, "volumes"))
    volume = next((v for v in volumes if known(tree.scalar(child(v, "name"))) == name), None)
    memory = child(volume, "emptyDir")
    is_memory = known(tree.scalar(child(memory, "medium"))) == "Memory"
    return (tree.scalar(child(memory, "sizeLimit")) if is_memory else None), True


def quantity(text: str) -> float | None:
    """Return a Kubernetes quantity ("80Gi", "500m", "1e3") as a plain number; None if it is not one."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return None
    number, exponent, suffix = found.groups()
    value = float(number + (exponent or _EXPONENTS.get(suffix, ""))) * _BINARY.get(suffix, 1)
    return value if math.isfinite(value) else None


def _with_mains(containers: list[Container]) -> list[Container]:
    """Mark those given a device as main ones; without any, the first."""
    flags = [_has_device(c) for c in containers]
    if not any(flags):
        flags = [at == 0 for at in range(len(containers))]
    return [replace(c, is_main=flag) for c, flag in zip(containers, flags, strict=True)]


def _has_device(container: Container) -> bool:
    names = (*container.limits, *container.requests)
    claims = tree.items(child(child(container.node, "resources"), "claims"))
    return bool(claims) or any(_DEVICE.search(name) for name in names)
