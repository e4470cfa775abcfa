"""An engine that runs privileged.

A privileged container may do anything on its node. Clusters with Pod Security at `baseline` or `restricted` refuse the
pod, so the manifest works on the cluster it was written for and on few others; and whoever breaks into the server has
the node.

For RDMA the capability IPC_LOCK and the device plugin's resource are enough. Only IBGDA on some drivers wants more: say
so beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.devices import is_privileged
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child
from baton.check.yaml import tree

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/pull/12915", "https://github.com/sgl-project/sglang/issues/12533")
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
      securityContext: {%s}
"""
FIRES = _POD % "privileged: true"
SILENT = _POD % "capabilities: {add: [IPC_LOCK]}"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine's container with every right on its node."""
    seen: set[int] = set()
    for launch in bundle.engines:
        container = launch.container
        if container is None or id(container.node) in seen or not is_privileged(container):
            continue
        seen.add(id(container.node))
        written = tree.scalar(child(container.security, "privileged"))
        if written is not None:
            yield Finding(
                span=written.span,
                message="the engine runs privileged: clusters with Pod Security refuse it, and it owns its node",
                evidence=("baseline and restricted both forbid privileged containers",),
                fix=Fix(
                    "write securityContext: {capabilities: {add: [IPC_LOCK]}} instead, unless IBGDA needs more here"
                ),
            )
