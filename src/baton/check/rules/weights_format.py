"""Weights that are not in the format the recipe says.

The engine loads a checkpoint in the format it is stored in; only BF16 weights can be turned into FP8 while they load.
A recipe that says otherwise is believed by everything that counts memory, and the GPUs then hold something else: the
published DeepSeek-R1 is FP8, so `quantization: none` neither makes it BF16 nor doubles its size.

Say the format that the repository has, or name a repository that has the format: a BF16 conversion of DeepSeek-R1 has
one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import checkpoints, mla
from baton.check.finding import Finding, Fix, Harm
from baton.perf.memory import total_bytes, weights

HARM = Harm.NOT_STARTING
SEE = ("https://huggingface.co/deepseek-ai/DeepSeek-R1",)
FIRES = """\
baton: 1
name: r1
model:
  name: deepseek-ai/DeepSeek-R1
  repo: deepseek-ai/DeepSeek-R1
  revision: 56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad
  dtype: bfloat16
  quantization: none
  max_model_len: 16384
engine: {version: 0.32.0}
hardware: {accelerator: gb300, fabric: nvlink}
kv_transfer: {buffer_device: cuda}
roles:
  prefill: {nodes: 2, gpus_per_node: 4, dp_size: 8, expert_parallel: true}
  decode: {nodes: 2, gpus_per_node: 4, dp_size: 8, expert_parallel: true}
"""
SILENT = FIRES.replace("quantization: none", "quantization: fp8")
_MADE_WHILE_LOADING = ("bfloat16", "fp8")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every recipe whose repository is known to store another format."""
    seen = set()
    for launch in bundle.engines:
        stored = checkpoints.of_repo(launch.repo.value) if launch.repo is not None else None
        model, stated = mla.model(launch), launch.weights
        if stored is None or model is None or stated is None or launch.repo is None or stated.span in seen:
            continue
        kinds = (stored.kind, "bfloat16" if stated.value == "float16" else stated.value)
        if kinds[0] == kinds[1] or kinds == _MADE_WHILE_LOADING:
            continue
        seen.add(stated.span)
        sizes = [total_bytes(weights(model, dtype=kind, tp_size=1, dp_size=1, ep_size=1)) for kind in kinds]
        yield Finding(
            span=stated.span,
            message=f"{launch.repo.value} is stored in {kinds[0]}, and the engine does not make {stated.value} of it",
            evidence=(
                stored.in_words,
                *(f"in {kind} one copy holds {size / 1e9:,.0f} GB" for kind, size in zip(kinds, sizes, strict=True)),
            ),
            fix=Fix(f"set model.quantization to {_written(kinds[0])}, or model.repo to one stored in {stated.value}"),
        )


def _written(kind: str) -> str:
    return "none" if kind == "bfloat16" else kind
