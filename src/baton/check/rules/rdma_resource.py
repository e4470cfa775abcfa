"""KV or expert traffic between nodes without an RDMA device.

A container sees the RDMA devices of its node only if it asks for the resource that the cluster's device plugin offers
(rdma/ib, rdma/hca_shared_devices_a, vpc.amazonaws.com/efa, ...). Without, UCX and NCCL fall back to TCP and say so
nowhere: the first token of a long prompt takes 98 s instead of 0.2 to 0.5 s. NVLink between pods is no way around it
unless the transfer library is built and set for it.

Ask for the resource beside the GPUs, one for each. `kubectl describe node` says what it is called.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts.devices import lacks_rdma
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span

HARM = Harm.WASTED
SEE = ("https://github.com/ai-dynamo/dynamo/pull/6370", "https://github.com/ai-dynamo/dynamo/issues/4185")
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: decode}
spec:
  containers:
    - name: decode
      image: vllm/vllm-openai:v0.32.0
      args:
        - --model=/models/qwen
        - '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"fail"}'
      env:
        - name: VLLM_NIXL_SIDE_CHANNEL_HOST
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
      securityContext: {capabilities: {add: [IPC_LOCK]}}
      resources: {limits: {nvidia.com/gpu: 1%s}}
"""
FIRES = _POD % ""
SILENT = _POD % ", rdma/ib: 1"
_DEEPEP = ("deepep_high_throughput", "deepep_low_latency", "deepep_v2")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that sends to other nodes and is given no RDMA device."""
    seen: set[int] = set()
    paired = {id(launch) for pair in bundle.pairs for launch in (pair.prefill, pair.decode)}
    for launch in bundle.engines:
        workload, container = launch.workload, launch.container
        if workload is None or container is None or id(container) in seen:
            continue
        why = _traffic(launch, id(launch) in paired)
        if why is None or launch.variable("UCX_TLS") == "tcp" or not lacks_rdma(bundle, workload, container):
            continue
        seen.add(id(container))
        yield Finding(
            span=_span(launch),
            message=f"{why}, and no RDMA device is asked for: it goes over TCP, and nobody is told",
            evidence=("Dynamo's guide: about 98 s to the first token over TCP, 0.2 to 0.5 s over RDMA",),
            fix=Fix("add the cluster's RDMA resource (rdma/ib or the like) to the limits, one for each GPU"),
        )


def _traffic(launch: Launch, is_paired: bool) -> str | None:
    """What an engine sends to other pods; None if nothing, or not known."""
    config = launch.kv_transfer
    if "'NixlConnector'" in str(config):
        return "KV goes between pods by NIXL"
    if launch.engine == "dynamo.vllm" and is_paired and launch.lacks("--kv-transfer-config"):
        return f"a {launch.side} worker hands KV between pods"
    if launch.all2all in _DEEPEP and (launch.nodes or 1) > 1:
        return f"experts are spread over {launch.nodes} nodes with {launch.all2all}"
    return None


def _span(launch: Launch) -> Span:
    option = launch.given("--kv-transfer-config") or launch.given("--all2all-backend")
    return option.span if option is not None and option.name == "--kv-transfer-config" else launch.start
