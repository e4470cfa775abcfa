"""DynamoGraphDeployments of both versions as workloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from baton.check.kubernetes import manifests as kubernetes
from baton.check.kubernetes.manifests import Workload
from baton.check.text import Source
from baton.check.yaml import tree

ALPHA = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata:
  name: vllm-dsr1
spec:
  backendFramework: vllm
  pvcs:
    - name: model-cache
      create: false
  envs:
    - {name: NCCL_DEBUG, value: INFO}
    - {name: MODEL, value: /model-cache/graph}
  services:
    Frontend:
      componentType: frontend
      replicas: 1
      extraPodSpec:
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.8.0
          startupProbe: {timeoutSeconds: 1800, failureThreshold: 60}
        containers: []
    decode:
      envFromSecret: hf-token-secret
      componentType: worker
      subComponentType: decode
      replicas: 1
      multinode:
        nodeCount: 2
      resources:
        limits:
          gpu: "8"
          memory: 850Gi
          custom:
            rdma/ib: "8"
        claims: [{name: channel}]
      envs:
        - {name: MODEL, value: /model-cache/service}
        - {name: GLOO_SOCKET_IFNAME, value: eth0}
      volumeMounts:
        - {name: model-cache, mountPoint: /model-cache}
      sharedMemory:
        size: 80Gi
      livenessProbe: {periodSeconds: 30}
      frontendSidecar:
        image: nvcr.io/nvidia/ai-dynamo/frontend:1.0.0
        args: [-m, dynamo.frontend, --router-mode, direct]
        envFromSecret: other
      extraPodSpec:
        initContainers: [{name: fetch, image: busybox}]
        containers:
          - {name: watcher, image: dcgm}
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.8.0
          workingDir: /workspace/dynamo
          command: [python3, -m, dynamo.vllm]
          args: [--model, $(MODEL), --node-rank, $(GROVE_PCLQ_POD_INDEX), --typo, $(MODLE)]
          env:
            - {name: MODEL, value: /model-cache/deepseek-r1}
          livenessProbe: {periodSeconds: 5}
          resources: {limits: {memory: 1Gi, cpu: "130"}}
"""

BETA = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: vllm-dsr1}
spec:
  env: [{name: MODEL, value: m}]
  components:
    - name: prefill
      type: prefill
      replicas: 2
      multinode: {}
      sharedMemorySize: 80Gi
      frontendSidecar: door
      compilationCache: {pvcName: cache, mountPath: /cache}
      podTemplate:
        spec:
          containers:
            - name: door
              image: frontend
              env: [{name: MODEL, value: d}]
            - name: main
              image: vllm-runtime
              args: [--model, $(MODEL)]
              resources: {limits: {nvidia.com/gpu: 8}}
          volumes:
            - {name: weights, persistentVolumeClaim: {claimName: model-cache}}
    - name: epp
      type: epp
      sharedMemorySize: "0"
"""

COMPONENT = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoComponentDeployment
metadata: {name: worker}
spec:
  componentType: worker
  resources: {requests: {gpu: 1, gpuType: gpu.intel.com/xe}}
  extraPodSpec: {mainContainer: {image: vllm-runtime}}
"""


def workloads(text: str) -> tuple[Workload, ...]:
    return kubernetes.workloads(kubernetes.objects(tree.read(Source("dgd.yaml", text)).documents))


def decode(text: str = ALPHA) -> Workload:
    return next(w for w in workloads(text) if w.name == "decode")


def test_services_are_workloads() -> None:
    frontend, worker = workloads(ALPHA)
    assert [(w.name, w.component, w.replicas, w.nodes) for w in (frontend, worker)] == [
        ("Frontend", "frontend", 1, 1),
        ("decode", "decode", 1, 2),
    ]
    assert frontend.is_dynamo
    assert (frontend.span.written, frontend.span.line, frontend.span.column) == ("Frontend", 14, 5)
    assert frontend.pod.main is not None
    assert frontend.pod.main.command is None
    assert list(frontend.pod.main.probes) == ["startup"]
    assert (frontend.shared_memory, frontend.has_shared_memory) == (None, False)


def test_main_container_is_put_together_from_the_service_and_its_own() -> None:
    found = decode()
    main = found.pod.main
    assert main is not None
    assert {k: v.text.value for k, v in main.limits.items()} == {
        "memory": "850Gi",
        "cpu": "130",
        "nvidia.com/gpu": "8",
        "rdma/ib": "8",
    }
    assert (found.resource("nvidia.com/gpu"), found.resource("rdma/ib")) == (8, 8)
    assert tree.number(main.probes["liveness"], "periodSeconds") == 30
    assert {path: name.text.value for path, name in main.mounts.items()} == {"/model-cache": "model-cache"}
    assert list(found.pod.claims) == ["model-cache"]
    assert found.shared_memory is not None
    assert found.shared_memory.span.written == "80Gi"
    assert [name.text.value for name in main.env_from] == ["hf-token-secret"]
    assert main.image is not None
    assert main.image.span.line == 53


def test_container_variables_win_over_the_service_and_that_over_the_graph() -> None:
    main = decode().pod.main
    assert main is not None
    assert {name: v.word.value for name, v in main.env.items()} == {
        "NCCL_DEBUG": "INFO",
        "MODEL": "/model-cache/deepseek-r1",
        "GLOO_SOCKET_IFNAME": "eth0",
    }
    frontend = workloads(ALPHA)[0].pod.main
    assert frontend is not None
    assert frontend.env["MODEL"].word.value == "/model-cache/graph"


def test_variables_of_the_operator_are_not_known_and_typos_are() -> None:
    text = ALPHA.replace("      envFromSecret: hf-token-secret\n", "")
    main = decode(text).pod.main
    assert main is not None
    assert main.args is not None
    assert [(w.value, w.is_known) for w in main.args[1::2]] == [
        ("/model-cache/deepseek-r1", True),
        ("$(GROVE_PCLQ_POD_INDEX)", False),
        ("$(MODLE)", True),
    ]


def test_sidecars_are_not_main() -> None:
    containers = decode().pod.containers
    assert [(c.name, c.is_init, c.is_main) for c in containers] == [
        ("fetch", True, False),
        (None, False, True),
        ("watcher", False, False),
        (None, False, False),
    ]
    sidecar = containers[-1]
    assert sidecar.args is not None
    assert [w.value for w in sidecar.args][:2] == ["-m", "dynamo.frontend"]
    assert [name.text.value for name in sidecar.env_from] == ["other"]


@pytest.mark.parametrize(
    ("written", "nodes", "is_known"),
    [
        ("multinode: {nodeCount: 4}", 4, True),
        ("multinode: {}", 2, True),
        ("multinode:", 1, True),
        ('multinode: {nodeCount: "{{ .Values.nodes }}"}', 1, False),
        ("multinode: {nodeCount: many}", 1, False),
        ("multinode: 3", 1, True),
    ],
)
def test_nodes_of_a_replica(written: str, nodes: int, is_known: bool) -> None:
    found = decode(ALPHA.replace("multinode:\n        nodeCount: 2", written))
    assert (found.nodes, found.is_nodes_known) == (nodes, is_known)


def test_disabled_shared_memory_is_none() -> None:
    found = decode(ALPHA.replace("size: 80Gi", "disabled: true"))
    assert (found.shared_memory, found.has_shared_memory) == (None, False)


def test_service_without_a_pod_still_has_its_variables() -> None:
    text = ALPHA[: ALPHA.index("      extraPodSpec:\n        mainContainer")] + "      envs: [{name: A, value: b}]\n"
    (found,) = workloads(text)
    assert found.pod.spec is None
    assert found.pod.main is not None
    assert found.pod.main.image is None
    assert found.pod.main.env["A"].word.value == "b"
    assert found.pod.main.node is found.node


def test_components_are_workloads() -> None:
    prefill, epp = workloads(BETA)
    assert (prefill.name, prefill.component, prefill.replicas, prefill.nodes) == ("prefill", "prefill", 2, 2)
    assert (prefill.span.written, prefill.span.line) == ("prefill", 7)
    main = prefill.pod.main
    assert main is not None
    assert (main.name, prefill.resource("nvidia.com/gpu")) == ("main", 8)
    assert main.args is not None
    assert main.args[1].value == "m"
    assert [c.name for c in prefill.pod.containers if not c.is_main] == ["door"]
    assert {k: v.text.value for k, v in prefill.pod.claims.items()} == {"weights": "model-cache", "cache": "cache"}
    assert prefill.shared_memory is not None
    assert prefill.shared_memory.text.value == "80Gi"
    assert (epp.component, epp.nodes, epp.pod.main, epp.has_shared_memory) == ("epp", 1, None, False)


def test_single_component_is_a_workload() -> None:
    (found,) = workloads(COMPONENT)
    assert (found.name, found.component, found.is_dynamo) == ("worker", "worker", True)
    assert (found.resource("gpu.intel.com/xe"), found.resource("nvidia.com/gpu")) == (1, None)


@pytest.mark.parametrize("spec", ["", "[]", "{services: []}", "{services: {a: , b: 1}}", "{components: {a: {}}}"])
def test_graph_of_another_shape_has_no_workloads(spec: str) -> None:
    assert workloads(f"apiVersion: nvidia.com/v1alpha1\nkind: DynamoGraphDeployment\nspec: {spec}\n") == ()


def crd_versions() -> dict[str, Any]:
    beside = Path(__file__).parents[5] / "shared" / "crds"
    path = Path(os.environ.get("BATON_CRDS", beside)) / "dynamographdeployments.yaml"
    if not path.is_file():
        pytest.skip(f"no CRD schemas at {path.parent}; set BATON_CRDS to the folder that has them")
    crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return {v["name"]: v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"]}


def unknown_fields(value: object, schema: dict[str, Any], path: str = "") -> list[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        return [bad for item in value for bad in unknown_fields(item, schema.get("items", {}), path)]
    if not isinstance(value, dict):
        return []
    open_values = schema.get("additionalProperties")
    found = []
    for key, below in value.items():
        field = schema.get("properties", {}).get(key, open_values)
        found += [f"{path}.{key}"] if field is None else unknown_fields(below, field, f"{path}.{key}")
    return found


def test_fields_read_here_are_those_of_the_real_schemas() -> None:
    versions = crd_versions()
    for text, version in ((ALPHA, "v1alpha1"), (BETA, "v1beta1")):
        spec = yaml.safe_load(text)["spec"]
        assert unknown_fields({"spec": spec}, {"properties": versions[version]["properties"]}) == []
