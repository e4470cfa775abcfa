"""More ranks than GPUs, or GPUs that no rank uses.

Every rank has a GPU of its own: data x tensor x pipeline parallel size of them over all nodes, or on one node
`--data-parallel-size-local` x tensor x pipeline. Where a node has fewer, the engine exits after its other ranks started
("DP adjusted local rank 8 is out of bounds", "World size is larger than the number of available GPUs"). Without a local
size every rank is started on the first node. Where it has more, the rest is paid for and idle.

Ask for as many GPUs as there are ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, parallel
from baton.check.finding import Finding, Fix, Harm
from baton.check.yaml.tree import Scalar

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/llm-d/llm-d/issues/373",)
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: chat}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, m, --tensor-parallel-size, "4"]
      resources: {limits: {nvidia.com/gpu: 2}}
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
  volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}]
"""
SILENT = FIRES.replace("gpu: 2", "gpu: 4")
_GPUS = ("nvidia.com/gpu", "amd.com/gpu")
_MOST = 10**6  # a slip of the pen is another rule's
_BRANCH = re.compile(r"\b(?:if|fi|else|elif|case|esac|exit|exec|wait|kill|done|return)\b|;;")
_SEVERAL = re.compile(
    r"(?<![-\w])(?:for|while|until|xargs|parallel|CUDA_VISIBLE_DEVICES|mpirun|torchrun|supervisord?)(?![-\w])"
)


@dataclass(frozen=True, slots=True)
class _Need:
    """ranks: GPUs needed of `gpus`; words: how they come about."""

    launch: Launch
    ranks: int
    gpus: int
    words: str


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine, or engines side by side, that do not use exactly the GPUs given."""
    groups: dict[object, list[Launch]] = {}
    for launch in bundle.engines:
        where = launch.container if launch.container is not None else launch.start.source
        groups.setdefault((id(where), launch.nodes, launch.gpus_per_node), []).append(launch)
    for together in groups.values():
        needs = [need for launch in together if (need := _need(launch)) is not None]
        if len(together) > 1 and len(needs) == len(together) and _are_side_by_side(together):
            needs = [_total(needs)]
        is_all = (
            len(needs) == 1 and (len(together) == 1 or _are_side_by_side(together)) and not _may_repeat(together[0])
        )
        for need in needs:
            if need.ranks > need.gpus or (need.ranks < need.gpus and is_all):
                yield _finding(need)


def _need(launch: Launch) -> _Need | None:
    """What one engine needs on its node, or over all of them; None if that is not known."""
    replica, dp, gpus, nodes = parallel.replica_size(launch), launch.dp_size, launch.gpus_per_node, launch.nodes
    if replica is None or dp is None or not gpus or nodes is None or not _is_countable(launch):
        return None
    if max(replica, dp, gpus, nodes) > _MOST:
        return None
    if launch.all_given("--nnodes"):
        told = launch.value("--nnodes")
        nodes = max(nodes, told) if isinstance(told, int) and told <= _MOST else nodes
    local, is_part = parallel.local_size(launch), launch.given("--data-parallel-size-local") is not None
    if launch.given("--data-parallel-rank") is not None or parallel.is_given(launch, "--data-parallel-external-lb"):
        dp, nodes, is_part = 1, (nodes if replica > gpus else 1), False
    elif is_part and (local is None or local > _MOST):
        return None
    elif is_part and local is not None and replica <= gpus:
        words = f"local DP {local} x {replica} GPUs of a rank"
        return _Need(launch, local * replica, gpus, words) if local else None
    elif not _is_spread(launch, replica, gpus):
        nodes = 1
    words = f"{parallel.sum_in_words(launch)} on {nodes} x {gpus} GPUs" if nodes > 1 else parallel.sum_in_words(launch)
    return _Need(launch, dp * replica, nodes * gpus, words)


def _is_spread(launch: Launch, replica: int, gpus: int) -> bool:
    """Whether the ranks are meant for all nodes: by the operator, by flags, or because one node is too small."""
    is_hybrid = parallel.is_given(launch, "--data-parallel-hybrid-lb")
    return (
        parallel.is_completed_by_operator(launch) or is_hybrid or bool(launch.all_given("--nnodes")) or replica > gpus
    )


def _is_countable(launch: Launch) -> bool:
    """Whether the GPUs given are those of this engine, and no Ray cluster brings others."""
    workload, container = launch.workload, launch.container
    if workload is not None and (container is not workload.pod.main or not workload.is_nodes_known):
        return False
    if workload is not None and workload.object.kind.startswith("Ray"):
        return False
    values = (launch.value("--distributed-executor-backend"), launch.value("--data-parallel-backend"))
    words = [word.value for word in ((*(container.command or ()), *(container.args or ())) if container else ())]
    is_ray = "ray" in values or any(re.search(r"\bray\s+start\b|ray_cluster", word) for word in words)
    return machine.is_cuda(launch) and not is_ray and not parallel.is_given(launch, "--enable-elastic-ep")


def _are_side_by_side(launches: Sequence[Launch]) -> bool:
    """Whether a script starts engines one after another in the background, none in place of another."""
    first, last = launches[0].start, launches[-1].start
    if any(launch.start.source is not first.source for launch in launches):
        return False
    between = first.source.text[first.start : last.start]
    return len(re.findall(r"(?<!&)&\s*\n", between)) >= len(launches) - 1 and not _BRANCH.search(between)


def _may_repeat(launch: Launch) -> bool:
    """Whether the command may be run several times on a node, or beside others: in a loop, or by srun."""
    container = launch.container
    words = (*(container.command or ()), *(container.args or ())) if container is not None else ()
    return container is None or any(_SEVERAL.search(word.value) for word in words)


def _total(needs: Sequence[_Need]) -> _Need:
    words = " + ".join(f"{need.ranks} of {need.launch.title}" for need in needs)
    return _Need(needs[0].launch, sum(need.ranks for need in needs), needs[0].gpus, words)


def _finding(need: _Need) -> Finding:
    launch, is_short = need.launch, need.ranks > need.gpus
    option, given = parallel.deciding(launch), _gpus(launch)
    idle = need.gpus - need.ranks
    ranks, gpus = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((need.ranks, "rank"), (need.gpus, "GPU")))
    return Finding(
        span=option.span if option is not None else launch.start,
        message=f"{ranks} on {gpus}: " + ("the engine does not start" if is_short else f"{idle} of them idle"),
        evidence=(f"{need.words} = {ranks}, each with a GPU of its own; {gpus} are given",),
        fix=Fix(f"ask for {need.ranks} GPUs, or change the parallel sizes"),
        also=((given.span, "the GPUs of one node"),) if given is not None else (),
        harm=None if is_short else Harm.WASTED,
    )


def _gpus(launch: Launch) -> Scalar | None:
    limits = launch.container.limits if launch.container is not None else {}
    return next((limits[name] for name in _GPUS if name in limits), None)
