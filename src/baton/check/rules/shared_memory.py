"""Engine processes that talk through a /dev/shm of 64 MiB.

The processes of one engine hand each other work and answers through shared memory. A pod gets 64 MiB of it unless it
mounts more; vLLM wants 240 MiB for each worker's answers (10 chunks of 24 MiB). From 0.28 on the engine checks, and
stops with `Insufficient space in /dev/shm`; older ones die of SIGBUS once the pages are touched. NCCL uses it as well.

Mount an emptyDir of medium Memory at /dev/shm, and count it into the memory limit.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child, known
from baton.check.kubernetes.manifests import Container, Workload, quantity
from baton.check.kubernetes.workload import SHARED_MEMORY_PATH
from baton.check.text import Span
from baton.check.yaml import tree

HARM = Harm.NOT_STARTING
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, /models/qwen, --tensor-parallel-size, "2"]
      resources: {limits: {nvidia.com/gpu: 2}}
"""
FIRES = _POD
SILENT = f"""\
{_POD}      volumeMounts: [{{name: shm, mountPath: /dev/shm}}]
  volumes:
    - name: shm
      emptyDir: {{medium: Memory, sizeLimit: 16Gi}}
"""
_MIB = 2**20
_DEFAULT_BYTES = 64 * _MIB
_ANSWERS_BYTES = 10 * 24 * _MIB  # MessageQueue's max_chunks and max_chunk_bytes, 0.11.0 to 0.33.0
_CHECKED_SINCE = "0.28.0"  # check_shm_free_space in shm_broadcast.py
_PLAIN = ("v1", "apps", "batch", "leaderworkerset.x-k8s.io")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine of several processes whose shared memory is too small for them."""
    seen: set[int] = set()
    for launch in bundle.engines:
        workload, container = launch.workload, launch.container
        if workload is None or container is None or id(container.node) in seen:
            continue
        size = _size(workload, container)
        processes = _processes(launch)
        if size is None or processes is None or size[0] >= _ANSWERS_BYTES:
            continue
        seen.add(id(container.node))
        yield _finding(launch, size, processes)


def _finding(launch: Launch, size: tuple[float, Span], processes: str) -> Finding:
    is_refused = launch.is_between(_CHECKED_SINCE) and (launch.tp_size or 1) * (launch.pp_size or 1) > 1
    mib = size[0] / _MIB
    result = "the engine stops: Insufficient space" if is_refused else "SIGBUS, or NCCL fails, once it is used"
    return Finding(
        span=size[1],
        message=f"shared memory (/dev/shm) of {mib:.0f} MiB for {processes}: {result}",
        evidence=(
            f"10 chunks x 24 MiB = {_ANSWERS_BYTES / _MIB:.0f} MiB for each worker's answers, {mib:.0f} MiB are there",
        ),
        fix=Fix("mount an emptyDir with medium: Memory and sizeLimit: 16Gi at /dev/shm"),
        harm=HARM if is_refused else Harm.FRAGILE,
    )


def _size(workload: Workload, container: Container) -> tuple[float, Span] | None:
    """Bytes of /dev/shm and where to point; None if not known."""
    written = workload.shared_memory if container.is_main else None
    if written is not None:
        size = quantity(known(written) or "")
        return None if size is None else (size, written.span)
    is_plain = workload.object.api_version.split("/")[0] in _PLAIN and workload.pod.spec is not None
    has_ipc = known(tree.scalar(child(workload.pod.spec, "hostIPC"))) == "true"
    is_mounted = any(path.rstrip("/") == SHARED_MEMORY_PATH for path in container.mounts)
    is_open = not container.node.is_complete or (workload.pod.spec is not None and not workload.pod.spec.is_complete)
    mounts = child(container.node, "volumeMounts")
    if not is_plain or has_ipc or is_mounted or is_open or (mounts is not None and not _is_list(mounts)):
        return None
    return _DEFAULT_BYTES, container.span


def _is_list(node: tree.Node) -> bool:
    return isinstance(node, tree.Sequence) and node.is_complete


def _processes(launch: Launch) -> str | None:
    """What makes an engine several processes of one pod; None if nothing is known to."""
    tp, pp, dp = launch.tp_size or 1, launch.pp_size or 1, launch.dp_size or 1
    if tp * pp > 1 and launch.value("--distributed-executor-backend") in (None, "mp"):
        return f"{tp * pp} worker processes"
    local = launch.value("--data-parallel-size-local")
    is_one = local == 1 or launch.given("--data-parallel-rank") is not None
    is_sure = launch.is_complete or (launch.gpus_per_node or 0) > 1
    return f"{local or launch.gpus_per_node or dp} data-parallel engines" if dp > 1 and not is_one and is_sure else None
