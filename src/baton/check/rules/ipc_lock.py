"""RDMA devices without the right to pin memory.

Registering memory with an RDMA device pins it. Without the capability IPC_LOCK the container may pin no more than
`ulimit -l` allows, which is 64 KiB or 8 MiB on many nodes: `ibv_reg_mr` fails with ENOMEM, and the transfer falls back
to TCP or the engine stops. Nodes whose container runtime sets no limit hide the fault.

Add IPC_LOCK to the container's capabilities; `privileged: true` would do, and much more.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.devices import capabilities, is_privileged, rdma_resource
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/pull/12915",)
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, /models/qwen]
      resources: {limits: {nvidia.com/gpu: 1, rdma/ib: 1}}
"""
FIRES = _POD
SILENT = f"""\
{_POD}      securityContext: {{capabilities: {{add: [IPC_LOCK]}}}}
"""
_EFA = "vpc.amazonaws.com/efa"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every container that has RDMA devices and may not lock memory."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            device = rdma_resource(container)
            if device is None or _EFA in container.limits or is_privileged(container):
                continue
            is_open = not container.node.is_complete or (container.security and not container.security.is_complete)
            if not is_open and not capabilities(container) & {"IPC_LOCK", "ALL"}:
                yield Finding(
                    span=device.span,
                    message="an RDMA device without IPC_LOCK: memory registration is held to ulimit -l",
                    evidence=("ibv_reg_mr fails with ENOMEM where the container runtime limits locked memory",),
                    fix=Fix("add to the container: securityContext: {capabilities: {add: [IPC_LOCK]}}"),
                )
