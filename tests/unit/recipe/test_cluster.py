"""What a recipe says of its cluster is only what Kubernetes takes, so that no render is refused for a name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from baton.recipe.cluster import Cluster


def test_the_published_names_are_the_defaults() -> None:
    cluster = Cluster()
    assert cluster.namespace == "dynamo-system"
    assert (cluster.model_cache.claim, cluster.model_cache.mount_path) == ("model-cache", "/model-cache")
    assert (cluster.hf_secret.name, cluster.hf_secret.key) == ("hf-token-secret", "HF_TOKEN")


def fields(path: str, value: Any) -> dict[str, Any]:
    """A cluster's fields with one set, such as model_cache.size."""
    *folders, name = path.split(".")
    found: dict[str, Any] = {name: value}
    for folder in reversed(folders):
        found = {folder: found}
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("namespace", "a"),
        ("namespace", "a" * 63),
        ("image", "vllm/vllm-openai:v0.33.0"),
        ("image", "localhost:5000/a__b/c--d:Tag_1"),
        ("image", "r.io/x@sha256:" + "0a" * 32),
        ("registry", "mirror.example:5000/team"),
        ("rdma_resource", "rdma/ib"),
        ("rdma_resource", "nvidia.com/hostdev"),
        ("network_interface", "enp12s0f0np0"),
        ("node_selector", {"nvidia.com/gpu.product": "NVIDIA-H200", "pool": ""}),
        ("tolerations", [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {}]),
        ("shared_memory", "80Gi"),
        ("cpu", "130"),
        ("monitoring_namespace", None),
        ("model_cache.mount_path", "/mnt/models.v1/a-b"),
        ("model_cache.storage_class", "fast-rwx"),
        ("model_cache.storage_class", "csi.vendor.example"),
        ("hf_secret.name", "0-token.of-us"),
        ("hf_secret.key", "token"),
    ],
)
def test_what_clusters_have_is_taken(path: str, value: Any) -> None:
    assert Cluster.model_validate({"rdma_devices_per_node": 8, **fields(path, value)}) != Cluster()


def test_an_rdma_resource_of_which_nobody_gets_a_device_is_refused() -> None:
    with pytest.raises(ValidationError, match="got 0 with rdma_resource rdma/ib: a pod would get no device"):
        Cluster(rdma_resource="rdma/ib")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("namespace", "Serving"),
        ("namespace", "1a"),
        ("namespace", "a-"),
        ("namespace", "a" * 64),
        ("namespace", "a\n"),
        ("namespace", ""),
        ("image", "vllm/vllm openai"),
        ("image", "VLLM/x:1"),
        ("image", "x:1\n  command: [sh]"),
        ("image", "https://r.io/x"),
        ("image", "x@sha256:abc"),
        ("registry", "r.io/"),
        ("rdma_resource", "rdma/ib:8"),
        ("rdma_resource", "/ib"),
        ("network_interface", "=eth0,eth1"),
        ("network_interface", "eth0 eth1"),
        ("network_interface", "a" * 16),
        ("node_selector", {"pool": "a b"}),
        ("node_selector", {"po ol": "a"}),
        ("tolerations", [{"effect": "Never"}]),
        ("tolerations", [{"value": "a"}]),
        ("shared_memory", "80GB"),
        ("shared_memory", "0"),
        ("shared_memory", "-1Gi"),
        ("cpu", "1e3"),
        ("gateway_replicas", 0),
        ("rdma_devices_per_node", -1),
        ("model_cache.mount_path", "models"),
        ("model_cache.mount_path", "/"),
        ("model_cache.mount_path", "/a/../b"),
        ("model_cache.mount_path", "/a b"),
        ("model_cache.read_bytes_per_s", 0),
        ("hf_secret.key", "a.b"),
        ("dynamo.version", "1.6"),
        ("storage_class", "fast"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=path.split(".", maxsplit=1)[0]):
        Cluster.model_validate(fields(path, value))
