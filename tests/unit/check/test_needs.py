"""What objects need of a cluster is named with the object, once, and nothing is named for files without needs."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from baton.check.bundle import of_sources
from baton.check.needs import needs
from baton.check.report.document import to_json
from baton.check.report.sarif import to_sarif
from baton.check.report.terminal import print_report
from baton.check.run import Report, check
from baton.check.text import Source

POD = """
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: main
      image: busybox:1.37
      %s
"""
LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: decode}
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate: &pod
      spec:
        containers:
          - {name: a, image: "vllm/vllm-openai:v0.32.0", resources: {limits: {nvidia.com/gpu: 8, rdma/ib: 8}}}
    workerTemplate: *pod
"""


def found(*texts: str) -> dict[str, list[str]]:
    bundle = of_sources([Source(f"{at}.yaml", text) for at, text in enumerate(texts)])
    return {need.what: [f"{each.kind} {each.name}" for each in need.objects] for need in needs(bundle)}


def of_kind(kind: str, version: str, rest: str = "") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n{rest}"


def pod(line: str) -> str:
    return POD % line


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (of_kind("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1"), "the LeaderWorkerSet controller, 0.7.0 or newer"),
        (of_kind("DynamoGraphDeployment", "nvidia.com/v1alpha1"), "the Dynamo platform (nvidia.com/v1alpha1)"),
        (of_kind("DynamoGraphDeployment", "nvidia.com/v1beta1"), "the Dynamo platform, 1.4.0 or newer"),
        (of_kind("ComputeDomain", "resource.nvidia.com/v1beta1"), "NVIDIA's DRA driver for GPUs, on Kubernetes 1.32"),
        (of_kind("PodMonitor", "monitoring.coreos.com/v1"), "the Prometheus operator"),
        (of_kind("NetworkPolicy", "networking.k8s.io/v1"), "a network plugin that enforces NetworkPolicy"),
        (pod("resources: {limits: {nvidia.com/gpu: 8}}"), "NVIDIA's GPU operator"),
        (pod("resources: {requests: {nvidia.com/gpu: '1'}}"), "NVIDIA's GPU operator"),
        (pod("resources: {limits: {rdma/ib: 8}}"), "an RDMA device plugin that offers rdma/ib"),
        (pod("env: [{name: NVSHMEM_IB_ENABLE_IBGDA, value: 'true'}]"), "IBGDA on every node"),
        (pod("env: [{name: NVSHMEM_REMOTE_TRANSPORT, value: ibgda}]"), "IBGDA on every node"),
        (pod("command: [vllm, serve, m, --all2all-backend, deepep_low_latency]"), "IBGDA on every node"),
        (
            of_kind("PersistentVolumeClaim", "v1", "spec: {accessModes: [ReadWriteMany]}"),
            "a default storage class whose volumes many nodes write to",
        ),
        (
            of_kind("PersistentVolumeClaim", "v1", "spec: {accessModes: [ReadWriteMany], storageClassName: nfs}"),
            "a storage class nfs whose volumes",
        ),
        (
            pod("env: [{name: T, valueFrom: {secretKeyRef: {name: hf-token-secret, key: HF_TOKEN}}}]"),
            "a Secret hf-token-secret with the key HF_TOKEN (`baton secret` makes it)",
        ),
        (pod("envFrom: [{secretRef: {name: hf-token}}]"), "a Secret hf-token (`baton secret` makes it)"),
        (pod("envFrom: [{secretRef: {name: shelf}}]"), "a Secret shelf, which no file here makes"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {imagePullSecrets: [{name: pull}], containers: []}",
            "a Secret pull to pull images with",
        ),
    ],
)
def test_each_need_is_named(text: str, what: str) -> None:
    assert [need for need in found(text) if need.startswith(what)], found(text)
    assert len(found(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b",
        "baton: 1\nname: x",
        pod("command: [sleep, infinity]"),
        pod("resources: {limits: {nvidia.com/gpu: 0, rdma/ib: 0, cpu: 1}}"),
        pod("env: [{name: NVSHMEM_IB_ENABLE_IBGDA, value: '0'}]"),
        pod("command: [vllm, serve, m, --all2all-backend, allgather_reducescatter]"),
        of_kind("LeaderWorkerSet", "example.com/v1"),
        of_kind("PersistentVolumeClaim", "v1", "spec: {accessModes: [ReadWriteOnce]}"),
        of_kind("Secret", "v1"),
    ],
)
def test_what_needs_nothing_is_silent(text: str) -> None:
    assert found(text) == {}
    assert "needed in the cluster" not in printed(report(text))


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: nvidia.com/v1beta1\nkind: ComputeDomain\nmetadata: 3\nspec: []",
        of_kind("PersistentVolumeClaim", "v1", "spec: {accessModes: ReadWriteMany, storageClassName: [a]}"),
        of_kind("DynamoGraphDeployment", "nvidia.com/v1alpha1", "spec: {services: [1], pvcs: {a: b}}"),
        pod("envFrom: {secretRef: hf}"),
        pod("resources: {limits: {nvidia.com/gpu: {a: b}, rdma/ib: '{{ .Values.n }}'}}"),
        pod("env: [{name: A, valueFrom: {secretKeyRef: [x]}}, {secretRef: 1}]"),
        pod("image: {{ .Values.image }}\n      env: {{- toYaml .Values.env }}"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: '{{ .Release.Name }}'}\n---"
        + pod("envFrom: [{secretRef: {}}]"),
    ],
)
def test_odd_files_do_not_break_it(text: str) -> None:
    found(text)


def test_a_secret_or_a_claim_that_another_file_makes_is_not_needed() -> None:
    reference = pod("env: [{name: T, valueFrom: {secretKeyRef: {name: hf, key: HF_TOKEN}}}]")
    assert found(reference) != {}
    assert found(reference, "apiVersion: v1\nkind: Secret\nmetadata: {name: hf}") == {}
    mounts = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: []\n" + (
        "  volumes: [{name: v, persistentVolumeClaim: {claimName: cache}}]"
    )
    assert list(found(mounts)) == ["a PersistentVolumeClaim cache, which no file here makes"]
    assert found(mounts, "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: cache}") == {}


def test_an_object_stands_once_for_each_need_and_all_objects_stand_together() -> None:
    both = found(LWS, LWS.replace("decode", "prefill"))
    assert all(names == ["LeaderWorkerSet decode", "LeaderWorkerSet prefill"] for names in both.values())
    assert len(both) == 3


def report(text: str) -> Report:
    return check(of_sources([Source("a.yaml", text)]))


def printed(found: Report, *, quiet: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as shown:
        print_report(console, found, quiet=quiet)
    return shown.get()


def test_the_text_has_a_line_a_need_and_quiet_has_none() -> None:
    text = printed(report(LWS))
    header = text.index("needed in the cluster")
    assert text[header:].splitlines()[1] == (
        "  the LeaderWorkerSet controller, 0.7.0 or newer (leaderworkerset.x-k8s.io/v1): LeaderWorkerSet decode"
    )
    assert "needed in the cluster" not in printed(report(LWS), quiet=True)


def test_json_has_the_needs_and_sarif_has_not() -> None:
    found = json.loads(to_json(report(LWS)))["needs"]
    assert [len(need["objects"]) for need in found] == [1, 1, 1]
    assert found[0]["objects"][0] == {
        "kind": "LeaderWorkerSet", "name": "decode", "file": "a.yaml", "line": 4, "column": 18,
    }  # fmt: skip
    assert "device plugin" not in to_sarif(report(LWS))
    assert json.loads(to_json(report("")))["needs"] == []


def test_a_gateway_that_no_registry_has_is_named_with_what_to_set() -> None:
    door = (POD % "command: [baton]").replace("busybox:1.37", "baton:0.1.0")
    (what,) = found(door)
    assert what.startswith("the gateway's image baton:0.1.0 in a registry of yours")
    assert what.endswith("set cluster.gateway_image")
    assert not found(door.replace("baton:0.1.0", "registry.example/baton:0.1.0"))


def test_a_need_is_no_finding() -> None:
    assert report(of_kind("PodMonitor", "monitoring.coreos.com/v1")).findings == ()


def test_the_page_it_points_at_has_a_section_for_each() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text(encoding="utf-8")
    for word in ("LeaderWorkerSet", "Dynamo platform", "DRA driver", "Prometheus", "NetworkPolicy", "GPU operator"):
        assert word in page
    for word in ("RDMA", "NVreg_EnableStreamMemOPs=1", "PeerMappingOverride=1", "ReadWriteMany", "baton secret"):
        assert word in page
