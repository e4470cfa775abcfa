"""Tensor-parallel sizes or block sizes of a pair between which NIXL cannot hand KV over.

Each decode rank reads the KV heads it needs from the prefill ranks that hold them, whole blocks at a time. The larger
TP size must be a multiple of the smaller; up to vLLM 0.12 decode's may not be the smaller. Decode's block size must be
a multiple of prefill's. Nothing checks it at start: pods are green, and the first request fails with an AssertionError
in the decode engine.

Data-parallel sizes need not agree.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle, Pair
from baton.check.facts import disaggregation as disagg
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_SERVING
SEE = (
    "https://github.com/vllm-project/vllm/issues/43523",
    "https://github.com/vllm-project/vllm/issues/42895",
)
_SCRIPT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen --tensor-parallel-size %s \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}' &
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen --tensor-parallel-size 4 \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}' &
"""
FIRES = _SCRIPT % "3"
SILENT = _SCRIPT % "2"
_TP, _BLOCK = "--tensor-parallel-size", "--block-size"
# Released files nixl_connector.py: 0.11.0 and 0.12.0 refuse a smaller decode TP, 0.14.1 does not; 0.13 was not read.
_ANY_TP = "0.13"
_BLOCK_KEPT = (
    "0.18"  # platforms/cuda.py up to 0.17.1 puts its own block size in the place of one that MLA does not take
)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every pair whose TP or block sizes do not fit."""
    for pair in bundle.pairs:
        if disagg.uses_nixl(pair.prefill) and disagg.uses_nixl(pair.decode):
            yield from _ranks(pair)
            yield from _blocks(pair)


def _ranks(pair: Pair) -> Iterator[Finding]:
    prefill, decode = pair.prefill.tp_size, pair.decode.tp_size
    if prefill is None or decode is None:
        return
    if max(prefill, decode) % min(prefill, decode):
        yield _finding(pair, _TP, prefill, decode, "the larger is no multiple of the smaller")
    elif decode < prefill and pair.decode.is_between(before=_ANY_TP):
        yield _finding(pair, _TP, prefill, decode, 'decode refuses it: "Decode TP cannot be smaller than prefill TP"')


def _blocks(pair: Pair) -> Iterator[Finding]:
    sides = (pair.prefill, pair.decode)
    prefill, decode = (side.value(_BLOCK) if side.given(_BLOCK) else None for side in sides)
    if not (isinstance(prefill, int) and isinstance(decode, int) and prefill > 0 and decode > 0):
        return
    if decode % prefill and all(side.is_between(first=_BLOCK_KEPT) for side in sides):
        yield _finding(pair, _BLOCK, prefill, decode, "decode's is no multiple of prefill's")


def _finding(pair: Pair, flag: str, prefill: int, decode: int, why: str) -> Finding:
    return Finding(
        span=disagg.place(pair.decode, flag),
        message=f"{flag} is {prefill} on prefill and {decode} on decode: {why}, and the first request fails",
        evidence=(
            f"{max(prefill, decode)} / {min(prefill, decode)} = {max(prefill, decode) / min(prefill, decode):g}",
        ),
        fix=Fix(f"write the same {flag} on both sides, or a multiple on decode"),
        also=((disagg.place(pair.prefill, flag), "the prefill side"),),
    )
