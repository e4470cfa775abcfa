"""What is left for the KV cache after the weights.

A GPU gives the engine `--gpu-memory-utilization` of its memory (0.9, since vLLM 0.20 0.92). Weights come off that, and
DeepEP's buffers; the rest holds KV. If one sequence of `--max-model-len` does not fit, vLLM exits after it has loaded
the weights. If far fewer fit than `--max-num-seqs`, decoding preempts and recomputes sequences, and the batch never
fills.

More expert-parallel ranks leave more, and so do an FP8 cache, a shorter `--max-model-len`, fewer redundant experts and
a smaller low-latency buffer. Name the GPU with `--gpu` if the files do not.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue.hardware import load_accelerator
from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, mla
from baton.check.facts.capacity import NOT_COUNTED, Capacity, capacity, redundant_experts
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/vllm-project/vllm/issues/47982",)
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: chat}
spec:
  nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, deepseek-ai/DeepSeek-R1, --tensor-parallel-size, "8", --max-model-len, "16384"]
      resources: {limits: {nvidia.com/gpu: 8}}
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
  volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 64Gi}}]
"""
SILENT = FIRES.replace("NVIDIA-H100-80GB-HBM3", "NVIDIA-H200")
_FP8 = ("h100-80gb", "h200", "b200", "gb200", "gb300")
_FP4 = _FP8[2:]
_SHARE_OF_CONTEXT, _SHARE_OF_SEQUENCES = 4, 2
"""warned of: fewer than half of --max-num-seqs fit even if they are a quarter of --max-model-len long"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that has no room for KV, or little; a note where no GPU is named."""
    for launch in bundle.engines:
        found = capacity(launch) if launch.known_model is not None and machine.is_cuda(launch) else None
        if found is None:
            continue
        names = machine.candidates(bundle, launch)
        if len(names) == 1:
            yield from _on(launch, found, names[0])
        else:
            order = names or (_FP4 if launch.weight_dtype == "nvfp4" else _FP8)
            yield _note(launch, found, order)


def _on(launch: Launch, found: Capacity, name: str) -> Iterator[Finding]:
    left, longest = found.left_bytes(name), found.max_model_len
    tokens = max(0, int(left / found.kv_bytes))
    sum_of = (f"{found.utilization:g} of {name}'s memory, less what one rank holds:", *found.lines(), found.sum(name))
    if tokens < longest:
        room = f"{left / 1e9:.1f} GB" if left > 0 else "nothing"
        option = launch.given("--max-model-len")
        yield Finding(
            span=option.span if option is not None and left > 0 else launch.start,
            message=f"on {name} {room} is left for KV, less than one sequence of {longest} tokens: the engine exits",
            evidence=(
                *sum_of,
                f"one sequence: {longest} tokens x {found.kv_bytes} bytes ({found.kv_dtype})",
                *_not_counted(found),
            ),
            fix=Fix(f"use {_that_fit(launch, found, name)}"),
        )
        return
    option, seqs = launch.given("--max-num-seqs"), launch.value("--max-num-seqs")
    length = max(1, longest // _SHARE_OF_CONTEXT)
    fit = tokens // length
    if option is None or not isinstance(seqs, int) or launch.side == "prefill" or fit * _SHARE_OF_SEQUENCES >= seqs:
        return
    yield Finding(
        span=option.span,
        message=f"on {name} KV holds {fit} sequences of {length} tokens, and --max-num-seqs is {seqs}",
        evidence=(*sum_of, _rest(found, name), *_not_counted(found)),
        fix=Fix(
            f"lower --max-num-seqs, give --kv-cache-dtype fp8, or use more ranks; {fit} sequences fit at that length"
        ),
        harm=Harm.WASTED,
    )


def _that_fit(launch: Launch, found: Capacity, name: str) -> str:
    """What would have room: the least DP size on this GPU, and the GPUs on which these sizes do."""
    more = _least_dp_size(launch, name)
    spread = "experts spread over all ranks" if launch.ep_size != 1 else "as many ranks"
    choices = [f"DP {more} ({spread}) on {name}"] if more is not None else []
    others = [other for other in (_FP4 if launch.weight_dtype == "nvfp4" else _FP8) if other != name]
    choices += [f"these sizes on {', '.join(fit)}"] if (fit := [o for o in others if _has_room(found, o)]) else []
    choices.append("fewer redundant experts, a smaller buffer, a shorter --max-model-len")
    return "; or ".join(choices)


def _least_dp_size(launch: Launch, name: str) -> int | None:
    """The least DP size above the launch's that has room, among those that split nodes and experts evenly."""
    model, dp, tp = mla.model(launch), launch.dp_size, launch.tp_size
    if model is None or dp is None or tp is None:
        return None
    experts = model.shape.n_routed_experts + redundant_experts(launch)
    node = int(load_accelerator(name).gpus_per_node.value)
    for size in range(dp + 1, experts + 1):
        ranks = size * tp
        if experts % ranks or (node % ranks and ranks % node):
            continue
        found = capacity(launch, dp_size=size)
        if found is not None and _has_room(found, name):
            return size
    return None


def _has_room(found: Capacity, name: str) -> bool:
    return found.left_bytes(name) >= found.max_model_len * found.kv_bytes


def _note(launch: Launch, found: Capacity, names: tuple[str, ...]) -> Finding:
    left = ((name, found.left_bytes(name)) for name in names)
    said = (
        f"on {name} {size / 1e9:.1f} GB are left" if size > 0 else f"on {name} nothing is left" for name, size in left
    )
    return Finding(
        span=launch.start,
        message=f"no GPU is named; for KV {', '.join(said)}",
        evidence=(
            f"{found.utilization:g} of the memory, less what one rank holds:",
            *found.lines(),
            *(_rest(found, name) for name in names),
            *_not_counted(found),
        ),
        fix=Fix("name the GPU with --gpu"),
        harm=Harm.UNKNOWN,
    )


def _rest(found: Capacity, name: str) -> str:
    """What is left on an accelerator, in bytes, tokens and sequences."""
    left = max(0.0, found.left_bytes(name))
    tokens = int(left / found.kv_bytes)
    return (
        f"{name} {left / 1e9:.1f} GB = {tokens:,} tokens of {found.kv_bytes} bytes ({found.kv_dtype}), "
        f"{tokens // found.max_model_len} sequences of {found.max_model_len}"
    )


def _not_counted(found: Capacity) -> tuple[str, ...]:
    unknown = "nor DeepEP's low-latency buffer: which release runs, and so how many tokens it holds, is not known"
    return (NOT_COUNTED,) if found.is_whole else (NOT_COUNTED, unknown)
