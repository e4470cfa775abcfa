"""The Cluster: what a recipe must know of the Kubernetes cluster it is rendered for.

Everything a person would otherwise edit in rendered YAML is a field here. The defaults are the published recipes'
names, so that the commands in everybody's notes work.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from baton.recipe.document import Strict

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""a name that every kind of object takes, Services included (RFC 1035)"""
ObjectName = Annotated[
    str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$")
]
"""a name that most kinds of object take (RFC 1123 subdomain)"""
Quantity = Annotated[
    str,
    BeforeValidator(lambda given: str(given) if type(given) is int else given),
    StringConstraints(pattern=r"^[1-9][0-9]{0,8}([kMGTP]|[KMGTP]i)?$"),
]
"""a Kubernetes quantity such as 130, 850Gi or 2000Gi"""
ImageRef = Annotated[
    str,
    StringConstraints(
        max_length=512,
        pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$",
    ),
]
"""repository[:tag][@digest], as the distribution specification writes it"""
Registry = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*$")
]
_PREFIXED = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?"
ResourceName = Annotated[
    str, StringConstraints(pattern=rf"^{_PREFIXED}[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$")
]
"""a qualified name: of an extended resource, a label, a taint"""
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
"""a plain name: NCCL alone knows lists and exclusions, Gloo crashes on them"""
MountPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=200)]


def _no_dots_up(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("expected a path without '..'")
    return path


class ModelCache(Strict):
    """The volume that holds checkpoints, shared by all nodes."""

    claim: ObjectName = Field(default="model-cache", description="PersistentVolumeClaim, ReadWriteMany.")
    create: bool = Field(default=True, description="Render the claim; false where one is there already.")
    size: Quantity = Field(
        default="2000Gi", description="Room for both published checkpoints (0.7 and 0.4 TB), and more."
    )
    storage_class: ObjectName | None = Field(default=None, description="The cluster's default when not given.")
    mount_path: Annotated[MountPath, AfterValidator(_no_dots_up)] = "/model-cache"
    read_bytes_per_s: Annotated[int, Field(gt=0)] = Field(
        default=1_000_000_000, description="What one node reads from it, at worst; start-up probes wait accordingly."
    )


class HfSecret(Strict):
    """The Secret with the Hugging Face token; `baton secret` makes it, no file ever holds it."""

    name: ObjectName = "hf-token-secret"
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "HF_TOKEN"


class Toleration(Strict):
    """A taint that engine pods may run on."""

    key: ResourceName | None = Field(default=None, description="Every taint when not given.")
    value: LabelValue | None = Field(default=None, description="Any value when not given.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _says_whose_value(self) -> Self:
        if self.key is None and self.value is not None:
            raise ValueError(f"`value: {self.value}` needs `key`, the taint it is the value of")
        return self


class Dynamo(Strict):
    """The release the `dynamo` targets are rendered for."""

    version: str = Field(default="1.6.1", pattern=r"^\d+\.\d+\.\d+$", description="Release of ai-dynamo.")
    image: ImageRef | None = Field(default=None, description="Runtime image; NVIDIA's of that release when not given.")


class Cluster(Strict):
    """Names, sizes and places of one Kubernetes cluster."""

    namespace: DnsLabel = Field(
        default="dynamo-system", description="Lower-case letters, digits and hyphens, from a letter on."
    )
    image: ImageRef | None = Field(
        default=None, description="The engine's image; vLLM's of the recipe's release when not given."
    )
    gateway_image: ImageRef = Field(default="baton:0.1.0", description="Built from the rendered Containerfile.")
    registry: Registry | None = Field(default=None, description="Put before every image: a mirror.")
    image_pull_secrets: tuple[ObjectName, ...] = Field(default=(), strict=False)
    gateway_replicas: Annotated[int, Field(gt=0, le=1000)] = 2
    model_cache: ModelCache = ModelCache()
    hf_secret: HfSecret = HfSecret()
    network_interface: Interface = Field(
        default="eth0", description="Where pods reach each other over TCP: Gloo, NCCL's and NVSHMEM's first contact."
    )
    rdma_resource: ResourceName | None = Field(
        default=None,
        description="The RDMA device plugin's resource, such as rdma/ib; none is asked for when not given.",
    )
    rdma_devices_per_node: Annotated[int, Field(ge=0, le=1000)] = 0
    shared_memory: Quantity = Field(default="64Gi", description="Size of /dev/shm in engine pods.")
    cpu: Quantity | None = Field(default=None, description="CPU request of an engine pod.")
    memory: Quantity | None = Field(default=None, description="Memory request of an engine pod; there is no limit.")
    node_selector: dict[ResourceName, LabelValue] = Field(default={})
    tolerations: tuple[Toleration, ...] = Field(default=(), strict=False)
    monitoring_namespace: DnsLabel | None = Field(
        default="monitoring", description="Namespace whose Prometheus scrapes the pods; no PodMonitors when null."
    )
    dynamo: Dynamo = Dynamo()

    @model_validator(mode="after")
    def _has_devices(self) -> Self:
        if self.rdma_resource is not None and self.rdma_devices_per_node == 0:
            raise ValueError(
                f"rdma_devices_per_node: got 0 with rdma_resource {self.rdma_resource}: a pod would get no device, and "
                "without one engines end at their start; say how many a pod gets, or set rdma_resource to null"
            )
        return self
