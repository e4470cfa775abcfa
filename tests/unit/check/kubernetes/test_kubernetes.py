"""Kubernetes objects and workloads of every kind, from their YAML."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton.check.kubernetes import manifests as kubernetes
from baton.check.kubernetes.manifests import Object, Workload
from baton.check.text import Source, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Entry, Mapping, Node, Scalar, Sequence

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: llama
  namespace: serving
spec:
  replicas: 2
  template:
    spec:
      initContainers:
        - name: fetch
          image: busybox
      containers:
        - name: proxy
          image: envoy
        - name: vllm
          image: vllm/vllm-openai:v0.11.0
          command: ["vllm", serve]
          args: [meta-llama/Llama-3.1-8B, --port, 8000]
          envFrom:
            - secretRef: {name: hf-token}
            - configMapRef: {name: settings}
          resources:
            limits: {nvidia.com/gpu: "8", memory: 80Gi}
            requests: {rdma/ib: 1, nvidia.com/gpu: 4}
          startupProbe: {periodSeconds: 10, failureThreshold: 60}
          securityContext: {privileged: true}
          volumeMounts:
            - {name: shm, mountPath: /dev/shm/}
            - {name: weights, mountPath: /models}
      volumes:
        - name: shm
          emptyDir: {medium: Memory, sizeLimit: 16Gi}
        - name: weights
          persistentVolumeClaim: {claimName: model-cache}
"""

LEADER_WORKER_SET = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: r1}
spec:
  replicas: 3
  leaderWorkerTemplate:
    size: 4
    leaderTemplate:
      spec:
        containers:
          - name: leader
            image: vllm/vllm-openai
            args: [--data-parallel-address, $(LWS_LEADER_ADDRESS)]
    workerTemplate:
      spec:
        containers: [{name: worker, image: vllm/vllm-openai}]
"""

STORM_SERVICE = """\
apiVersion: orchestration.aibrix.ai/v1alpha1
kind: StormService
metadata: {name: pool}
spec:
  replicas: 1
  template:
    spec:
      roles:
        - name: prefill
          replicas: 2
          podGroupSize: 2
          template:
            spec:
              containers:
                - name: main
                  image: vllm/vllm-openai
                  args: [--rank, $(ANYTHING)]
        - name: decode
          template:
            spec:
              containers: [{name: main, command: [vllm]}]
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  containers: [{name: a, image: vllm/vllm-openai}, {name: b, image: sidecar}]
"""

CRON_JOB = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  jobTemplate:
    spec:
      parallelism: 3
      template:
        spec:
          containers: [{name: bench, image: bench}]
"""

VOLCANO_JOB = """\
apiVersion: batch.volcano.sh/v1alpha1
kind: Job
metadata: {name: train}
spec:
  tasks:
    - name: head
      replicas: 1
      template: {spec: {containers: [{name: x, image: vllm/vllm-openai}]}}
"""

ALL = (DEPLOYMENT, LEADER_WORKER_SET, STORM_SERVICE, POD, CRON_JOB, VOLCANO_JOB)


def objects(text: str) -> tuple[Object, ...]:
    return kubernetes.objects(tree.read(Source("deploy.yaml", text)).documents)


def workloads(text: str) -> tuple[Workload, ...]:
    return kubernetes.workloads(objects(text))


def test_deployment_gives_one_workload() -> None:
    (found,) = workloads(DEPLOYMENT)
    assert (found.name, found.object.namespace, found.component, found.part) == ("llama", "serving", None, "")
    assert (found.replicas, found.nodes, found.is_nodes_known, found.is_dynamo) == (2, 1, True, False)
    assert found.span.written == "llama"
    assert (found.span.line, found.span.column) == (4, 9)
    assert [(c.name, c.is_init, c.is_main) for c in found.pod.containers] == [
        ("fetch", True, False),
        ("proxy", False, False),
        ("vllm", False, True),
    ]


def test_container_is_read_with_places() -> None:
    main = workloads(DEPLOYMENT)[0].pod.main
    assert main is not None
    assert main.image is not None
    assert main.image.text.value == "vllm/vllm-openai:v0.11.0"
    assert (main.image.span.line, main.image.span.column) == (17, 18)
    assert main.command is not None
    assert main.args is not None
    assert [w.value for w in (*main.command, *main.args)] == [
        "vllm",
        "serve",
        "meta-llama/Llama-3.1-8B",
        "--port",
        "8000",
    ]
    assert main.command[0].span.written == '"vllm"'
    assert main.command[0].text.span().written == "vllm"
    assert [name.text.value for name in main.env_from] == ["hf-token", "settings"]
    assert not main.is_env_complete
    assert {k: v.text.value for k, v in main.limits.items()} == {"nvidia.com/gpu": "8", "memory": "80Gi"}
    assert {k: v.text.value for k, v in main.requests.items()} == {"rdma/ib": "1", "nvidia.com/gpu": "4"}
    assert list(main.probes) == ["startup"]
    assert tree.string(main.security, "privileged") == "true"
    assert {path: name.text.value for path, name in main.mounts.items()} == {"/dev/shm/": "shm", "/models": "weights"}


def test_volumes_give_claims_and_shared_memory() -> None:
    (found,) = workloads(DEPLOYMENT)
    assert {name: claim.text.value for name, claim in found.pod.claims.items()} == {"weights": "model-cache"}
    assert found.shared_memory is not None
    assert found.shared_memory.span.written == "16Gi"
    assert found.has_shared_memory


def test_shared_memory_without_a_size_is_told_from_none() -> None:
    unlimited = workloads(DEPLOYMENT.replace(", sizeLimit: 16Gi", ""))[0]
    assert (unlimited.shared_memory, unlimited.has_shared_memory) == (None, True)
    elsewhere = workloads(DEPLOYMENT.replace("/dev/shm/", "/scratch"))[0]
    assert (elsewhere.shared_memory, elsewhere.has_shared_memory) == (None, False)


@pytest.mark.parametrize(
    ("name", "count"),
    [("nvidia.com/gpu", 8), ("rdma/ib", 1), ("memory", 80 * 2**30), ("amd.com/gpu", None)],
)
def test_resource_is_of_limits_then_requests(name: str, count: int | None) -> None:
    assert workloads(DEPLOYMENT)[0].resource(name) == count


@pytest.mark.parametrize(("written", "count"), [("half", None), ("500m", None), ("", 4), ("[1]", 4)])
def test_limit_that_is_no_whole_number_is_not_known(written: str, count: int | None) -> None:
    (found,) = workloads(DEPLOYMENT.replace('nvidia.com/gpu: "8"', f"nvidia.com/gpu: {written}"))
    assert found.resource("nvidia.com/gpu") == count


def test_main_container_is_the_annotated_one_before_the_one_with_a_gpu() -> None:
    annotation = "kubectl.kubernetes.io/default-container"
    text = DEPLOYMENT.replace("  template:\n", f"  template:\n    metadata: {{annotations: {{{annotation}: proxy}}}}\n")
    main = workloads(text)[0].pod.main
    assert main is not None
    assert main.name == "proxy"


def test_main_container_without_any_gpu_is_the_first() -> None:
    (found,) = workloads(POD)
    assert [(c.name, c.is_main) for c in found.pod.containers] == [("a", True), ("b", False)]
    assert found.replicas is None


def test_leader_worker_set_gives_leader_and_worker() -> None:
    leader, worker = workloads(LEADER_WORKER_SET)
    assert [(w.part, w.nodes, w.replicas, w.name) for w in (leader, worker)] == [
        ("leader", 4, 3, "r1"),
        ("worker", 4, 3, "r1"),
    ]
    assert leader.pod.main is not None
    assert leader.pod.main.args is not None
    assert [w.is_known for w in leader.pod.main.args] == [True, False]


def test_leader_worker_set_without_leader_template_is_one() -> None:
    (found,) = workloads(LEADER_WORKER_SET.replace("leaderTemplate:", "other:"))
    assert (found.part, found.nodes) == ("", 4)


def test_leader_worker_set_size_of_a_template_is_not_known() -> None:
    found = workloads(LEADER_WORKER_SET.replace("size: 4", 'size: "{{ .Values.size }}"'))[0]
    assert (found.nodes, found.is_nodes_known) == (1, False)


def test_unknown_kind_is_searched_for_pods() -> None:
    prefill, decode = workloads(STORM_SERVICE)
    assert [(w.name, w.replicas, w.nodes) for w in (prefill, decode)] == [("prefill", 2, 2), ("decode", 1, 1)]
    assert (prefill.span.written, prefill.span.line) == ("prefill", 9)
    assert prefill.pod.main is not None
    assert prefill.pod.main.args is not None
    assert not prefill.pod.main.args[1].is_known


def test_other_groups_kind_of_a_built_in_name_is_searched() -> None:
    assert [(w.name, w.replicas) for w in workloads(VOLCANO_JOB)] == [("head", 1)]


def test_cron_job_runs_its_job_template() -> None:
    (found,) = workloads(CRON_JOB)
    assert (found.name, found.replicas, found.nodes) == ("nightly", 3, 1)
    assert found.pod.main is not None


@pytest.mark.parametrize("kind", ["StatefulSet", "ReplicaSet", "DaemonSet"])
def test_kinds_shaped_like_a_deployment(kind: str) -> None:
    (found,) = workloads(DEPLOYMENT.replace("kind: Deployment", f"kind: {kind}"))
    assert (found.object.kind, found.resource("nvidia.com/gpu")) == (kind, 8)


def test_list_is_opened_in_order() -> None:
    text = """\
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Secret, metadata: {name: a}}
  - {apiVersion: v1, kind: ConfigMap, metadata: {namespace: x}, data: {run.sh: vllm serve}}
---
apiVersion: v1
kind: Secret
"""
    found = objects(text)
    assert [(o.kind, o.name, o.namespace) for o in found] == [
        ("Secret", "a", None),
        ("ConfigMap", None, "x"),
        ("Secret", None, None),
    ]
    assert found[2].span.written == "apiVersion: v1"
    assert kubernetes.workloads(found) == ()
    assert kubernetes.Manifests(found).of_kind("Secret") == (found[0], found[2])


@pytest.mark.parametrize("text", ["kind: Pod", "apiVersion: v1", "apiVersion: 1\nkind: Pod", "[1]", "a: b", "kind: []"])
def test_documents_without_version_and_kind_are_no_objects(text: str) -> None:
    assert objects(text) == ()


def test_name_of_a_template_is_not_known() -> None:
    (found,) = objects(POD.replace("name: one", 'name: "{{ .Release.Name }}-x"'))
    assert found.name is None
    assert found.span.line == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("500m", 0.5),
        ("15n", 15e-9),
        ("3u", 3e-6),
        ("15000m", 15.0),
        ("2k", 2e3),
        ("3M", 3e6),
        ("4G", 4e9),
        ("5T", 5e12),
        ("6P", 6e15),
        ("1E", 1e18),
        ("1E3", 1e3),
        ("1e-3", 1e-3),
        ("80Gi", 80 * 2**30),
        ("1Ki", 2**10),
        ("1Mi", 2**20),
        ("1.5Ti", 1.5 * 2**40),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
    ],
)
def test_quantity_is_a_number(text: str, value: float) -> None:
    assert kubernetes.quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "Gi", "80GB", "80 Gi", "1K", "1ki", "1e", "0x10", "1e999", "\u0661", "--1", "{{ x }}"]
)
def test_quantity_is_none_for_anything_else(text: str) -> None:
    assert kubernetes.quantity(text) is None


@given(st.text())
def test_quantity_never_raises(text: str) -> None:
    kubernetes.quantity(text)


def broken(node: Node, draw: st.DataObject) -> Node:
    """Return a tree with some nodes replaced by something of another shape, or decided by a template."""
    choice = draw.draw(st.integers(0, 30))
    text = Text.at(draw.draw(st.sampled_from(["", "3", "-2", "$(A)", "true", "{{ x }}"])), node.span)
    if choice == 0:
        return Scalar(text, text.value, node.span, draw.draw(st.booleans()))
    if choice == 1:
        return Sequence((node, Scalar(text, None, node.span)), node.span, draw.draw(st.booleans()))
    if choice == 2:
        key = Scalar(text, text.value, node.span)
        return Mapping({text.value: Entry(key, node, node.span)}, node.span, draw.draw(st.booleans()))
    if isinstance(node, Sequence):
        return replace(node, items=tuple(broken(item, draw) for item in node.items))
    if isinstance(node, Mapping):
        entries = {key: replace(entry, value=broken(entry.value, draw)) for key, entry in node.entries.items()}
        return replace(node, entries=entries, is_complete=choice != 3)
    return node


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_any_tree_gives_a_result(text: str, data: st.DataObject) -> None:
    documents = tree.read(Source("deploy.yaml", text)).documents
    for found in kubernetes.workloads(kubernetes.objects(tuple(broken(d, data) for d in documents))):
        assert found.nodes >= 1
        assert found.resource("nvidia.com/gpu") is None or found.pod.main is not None
        assert str(found.span)


def test_tree_that_holds_itself_ends() -> None:
    (document,) = tree.read(Source("deploy.yaml", VOLCANO_JOB)).documents
    assert isinstance(document, Mapping)
    document.entries["loop"] = replace(document.entries["spec"], value=document)
    assert len(kubernetes.workloads(kubernetes.objects((document,)))) == 1
