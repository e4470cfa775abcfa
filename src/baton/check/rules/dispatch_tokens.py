"""DeepEP's low-latency buffer, too small for the batch or too large for the GPU.

The low-latency kernels keep room on every rank for all tokens that all ranks may send at once. Up to vLLM 0.19 that
number was VLLM_MOE_DP_CHUNK_SIZE (256 by default), and a larger batch went through every MoE layer in several rounds.
Since 0.20 it is `--max-num-batched-tokens`, whatever that is: thousands, right for prefill, make a buffer of tens of
gigabytes.

Up to 0.19 set VLLM_MOE_DP_CHUNK_SIZE to `--max-num-seqs`; later give a decode engine `--max-num-batched-tokens` of
about its `--max-num-seqs`.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue.hardware import accelerators
from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, parallel
from baton.check.facts.capacity import memory_bytes, redundant_experts
from baton.check.facts.mla import model
from baton.check.finding import Finding, Fix, Harm
from baton.perf.memory import low_latency_buffer

HARM = Harm.WASTED
SEE = ("https://github.com/vllm-project/vllm/issues/47214",)
FIRES = """\
#!/bin/bash
docker run -e VLLM_MOE_DP_CHUNK_SIZE=256 vllm/vllm-openai:v0.14.1 --model m --data-parallel-size 8 \\
  --enable-expert-parallel --all2all-backend deepep_low_latency --max-num-seqs 512
"""
SILENT = """\
#!/bin/bash
docker run -e VLLM_MOE_DP_CHUNK_SIZE=512 vllm/vllm-openai:v0.14.1 --model m --data-parallel-size 8 \\
  --enable-expert-parallel --all2all-backend deepep_low_latency --max-num-seqs 512
"""
_CHUNK, _DEFAULT = "VLLM_MOE_DP_CHUNK_SIZE", 256
_LARGE_BYTES = 20e9
"""more than a quarter of what an 80 GB GPU has; 1,024 tokens for 288 experts are 17 GB"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every low-latency engine whose buffer and batch do not fit."""
    for launch in bundle.engines:
        if launch.all2all == parallel.LOW_LATENCY and parallel.is_wide(launch):
            found = _rounds(launch) if launch.is_between(before="0.20.0") else None
            found = _buffer(bundle, launch) if launch.is_between("0.20.0") else found
            if found is not None:
                yield found


def _rounds(launch: Launch) -> Finding | None:
    option, seqs, word = launch.given("--max-num-seqs"), launch.value("--max-num-seqs"), launch.env.get(_CHUNK)
    if option is None or not isinstance(seqs, int) or launch.side == "prefill":
        return None
    if word is None and not launch.is_env_complete:
        return None
    text = launch.variable(_CHUNK) if word is not None else str(_DEFAULT)
    if text is None or not text.isdecimal() or len(text) > 9 or launch.env.keys() & {"VLLM_ENABLE_MOE_DP_CHUNK"}:
        return None
    chunk = int(text)
    if not 0 < chunk < seqs:
        return None
    rounds = -(-seqs // chunk)
    return Finding(
        span=word.span if word is not None else option.span,
        message=f"{_CHUNK} {chunk} is less than --max-num-seqs {seqs}: {rounds} rounds in every MoE layer",
        evidence=(f"a full batch: {seqs} sequences / {chunk} tokens = {rounds} rounds of dispatch and combine",),
        fix=Fix(f"set {_CHUNK} to {seqs}, or lower --max-num-seqs to {chunk}"),
        also=((option.span, "asks for the sequences"),) if word is not None else (),
    )


def _buffer(bundle: Bundle, launch: Launch) -> Finding | None:
    option, tokens, shape = (
        launch.given("--max-num-batched-tokens"),
        launch.value("--max-num-batched-tokens"),
        model(launch),
    )
    ranks = launch.ep_size
    if option is None or not isinstance(tokens, int) or not 0 < tokens < 10**9 or shape is None or ranks is None:
        return None
    term = low_latency_buffer(
        shape, num_dispatch_tokens=tokens, ep_size=ranks, num_redundant_experts=redundant_experts(launch)
    )
    if term.size_bytes <= _LARGE_BYTES:
        return None
    names = machine.candidates(bundle, launch) or accelerators()
    is_impossible = all(term.size_bytes > memory_bytes(name) for name in names)
    size = f"{term.size_bytes / 1e9:.1f} GB"
    return Finding(
        span=option.span,
        message=f"--max-num-batched-tokens {tokens} makes a low-latency buffer of {size} on every GPU",
        evidence=(f"{term.reason} = {size}", "since vLLM 0.20 the buffer has room for every token of a step"),
        fix=Fix("give about as many tokens as --max-num-seqs, or prefill over deepep_high_throughput"),
        harm=Harm.NOT_STARTING if is_impossible else None,
    )
