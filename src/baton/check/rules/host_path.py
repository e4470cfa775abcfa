"""A folder of the node mounted into an engine's pod.

What a hostPath holds is there on the nodes where somebody put it. On any other the folder is empty (or the pod is
refused), so a pod that moves finds no weights, and downloads them again or stops. `/dev/infiniband` mounted by hand
is worse: beside an EFA resource it hides the devices that the plugin gives, and all traffic goes over TCP.

Mount a claim for weights, and ask for the RDMA resource in the place of device files.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child, known
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar

HARM = Harm.FRAGILE
SEE = ("https://github.com/aws-samples/aws-do-eks/issues/63",)
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, /models/qwen]
      volumeMounts: [{name: models, mountPath: /models}]
  volumes:
    - name: models
      %s
"""
FIRES = _POD % "hostPath: {path: /dev/infiniband}"
SILENT = _POD % "persistentVolumeClaim: {claimName: models}"
_DEVICES = "/dev/infiniband"
_EFA = "vpc.amazonaws.com/efa"
_OF_THE_SYSTEM = (
    "/dev",
    "/sys",
    "/proc",
    "/run",
    "/var/run",
    "/etc",
    "/usr",
    "/lib",
    "/opt/nvidia",
    "/home/kubernetes",
)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every hostPath of an engine's pod, those of the system's own files left out."""
    seen: set[int] = set()
    for launch in bundle.engines:
        spec = launch.workload.pod.spec if launch.workload is not None else None
        if spec is None or id(spec) in seen:
            continue
        seen.add(id(spec))
        for volume in tree.items(child(spec, "volumes")):
            path = tree.scalar(child(child(volume, "hostPath"), "path"))
            written = known(path)
            if path is not None and written is not None:
                yield from _findings(launch, path, written.rstrip("/") or "/")


def _findings(launch: Launch, path: Scalar, written: str) -> Iterator[Finding]:
    if written == _DEVICES:
        has_efa = launch.container is not None and _EFA in launch.container.limits
        result = "EFA is switched off, and traffic goes over TCP" if has_efa else "it hides what a device plugin gives"
        yield Finding(
            span=path.span,
            message=f"{_DEVICES} is mounted from the node: {result}",
            evidence=("mounted by hand, the devices are not allowed to the container's cgroup",),
            fix=Fix("remove the volume and its mount, and ask for the RDMA resource in the limits"),
            harm=Harm.WASTED if has_efa else None,
        )
    elif not any(written == root or written.startswith(root + "/") for root in _OF_THE_SYSTEM):
        yield Finding(
            span=path.span,
            message=f"{written} of the node is mounted: it holds what it should only on nodes prepared for it",
            evidence=(
                "a hostPath is made for no node and moves with no pod; which nodes are prepared is not known here",
            ),
            fix=Fix("mount a claim, or select the prepared nodes by a label"),
            harm=Harm.UNKNOWN,
        )
