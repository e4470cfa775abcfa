"""Shared memory that takes nearly all of the memory limit.

/dev/shm is a tmpfs: what is written there counts against the container's memory limit. With a limit of 850Gi and
800Gi of shared memory, the processes themselves have 50Gi left once it is full, and the kernel kills one of them.

Keep the size below what the limit leaves beside the engine itself; tens of GiB are enough for NCCL and the engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import known
from baton.check.kubernetes.manifests import quantity

HARM = Harm.FRAGILE
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, /models/qwen]
      resources: {limits: {nvidia.com/gpu: 1, memory: 64Gi}}
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
  volumes:
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: %s}
"""
FIRES = _POD % "60Gi"
SILENT = _POD % "16Gi"
_MOST = 0.8
_GIB = 2**30


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every /dev/shm of more than four fifths of the memory limit."""
    for workload in bundle.manifests.workloads:
        size, main = workload.shared_memory, workload.pod.main
        limit = main.limits.get("memory") if main is not None else None
        if size is None or limit is None:
            continue
        size_bytes, limit_bytes = quantity(known(size) or ""), quantity(known(limit) or "")
        if not size_bytes or not limit_bytes or size_bytes <= _MOST * limit_bytes:
            continue
        left = (limit_bytes - size_bytes) / _GIB
        yield Finding(
            span=size.span,
            message=f"shared memory may take {size.text.value} of the {limit.text.value} that the container may use",
            evidence=(f"tmpfs counts against the limit: {left:,.0f} GiB are left for the processes once it is full",),
            fix=Fix(f"set 64Gi or less, or raise the memory limit above {size.text.value} plus what the engine needs"),
            also=((limit.span, "the memory limit"),),
        )
