"""What a launch leaves for its KV cache on one GPU: the budget, the weights, DeepEP's buffers, and the rest in tokens.

For models of the catalogue whose every size is known. Not counted: activations, CUDA graphs, the CUDA context and NCCL,
so what is left here is the most that can be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from baton.catalogue.hardware import load_accelerator
from baton.check.commands.launch import Launch
from baton.check.facts import mla, parallel
from baton.perf.memory import Term, low_latency_buffer, total_bytes, weights

NOT_COUNTED = "not counted: activations, CUDA graphs, the CUDA context and NCCL, some GB more"
_OTHER_WEIGHTS = re.compile(r"awq|gptq|int[48]|w4a|gguf|bnb|bitsandbytes|-4bit|-8bit|mxfp|fp4-v\d", re.IGNORECASE)
_OFFLOADS = (
    "--cpu-offload-gb",
    "--offload-group-size",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--decode-context-parallel-size",
    "--load-format",
)
_HIGHEST_DEFAULT = 0.92
_LARGEST = 10**9
"""no size is larger; a slip of the pen may be"""
_CHUNK, _BUFFER_MB = "VLLM_MOE_DP_CHUNK_SIZE", "VLLM_DEEPEP_BUFFER_SIZE_MB"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one rank holds and may use.

    terms: what it holds. utilization: the share of the GPU it may use. kv_bytes: of one token, in `kv_dtype`.
    max_model_len: as given, else the model's. is_whole: False if DeepEP's low-latency buffer is not among the terms.
    """

    terms: tuple[Term, ...]
    utilization: float
    kv_bytes: int
    kv_dtype: str
    max_model_len: int
    is_whole: bool

    def left_bytes(self, accelerator: str) -> float:
        """Return what is left for KV on an accelerator of the catalogue; negative if the terms alone do not fit."""
        return memory_bytes(accelerator) * self.utilization - total_bytes(self.terms)

    def lines(self) -> tuple[str, ...]:
        """Return every term as a line: "routed experts 46.0 GB: (256 + 32 redundant) / 16 ranks x ..."."""
        return tuple(f"{term.name} {term.size_bytes / 1e9:.1f} GB: {term.reason}" for term in self.terms)


@cache
def memory_bytes(accelerator: str) -> float:
    """Return the memory of an accelerator of the catalogue."""
    return load_accelerator(accelerator).memory_bytes.value


def capacity(launch: Launch) -> Capacity | None:
    """Return what a launch holds; None if the model or a size is not known, or something moves it elsewhere."""
    model, dtype = mla.model(launch), _weight_dtype(launch)
    tp, dp, ep, longest = launch.tp_size, launch.dp_size, launch.ep_size, launch.value("--max-model-len")
    kv_dtype = _kv_dtype(launch)
    if model is None or dtype is None or kv_dtype is None or tp is None or dp is None or ep is None:
        return None
    if launch.given("--max-model-len") is None and launch.lacks("--max-model-len"):
        longest = model.shape.max_position_embeddings
    is_whole = launch.pp_size == 1 and parallel.context_size(launch) == 1 and launch.lacks(*_OFFLOADS)
    if not is_whole or not isinstance(longest, int) or longest < 1 or max(longest, tp, dp) > _LARGEST:
        return None
    redundant = redundant_experts(launch)
    held = weights(model, dtype=dtype, tp_size=tp, dp_size=dp, ep_size=ep, num_redundant_experts=redundant)
    share = launch.value("--gpu-memory-utilization")
    given = launch.given("--gpu-memory-utilization") is not None
    if (given and share is None) or (isinstance(share, float) and not 0 < share <= 1):
        return None
    return Capacity(
        terms=(*held, *_buffers(launch, ep, redundant)),
        utilization=share if isinstance(share, float) else _HIGHEST_DEFAULT,
        kv_bytes=model.kv_bytes_per_token(kv_dtype),
        kv_dtype=kv_dtype,
        max_model_len=longest,
        is_whole=launch.all2all != parallel.LOW_LATENCY or dispatch_tokens(launch) is not None,
    )


def _weight_dtype(launch: Launch) -> str | None:
    model = mla.model(launch)
    words = [launch.model.value if launch.model is not None else "", str(launch.value("--quantization") or "")]
    if model is None or any(_OTHER_WEIGHTS.search(word) for word in words) or not launch.lacks("--hf-overrides"):
        return None
    return launch.weight_dtype or model.weight_dtype


def _kv_dtype(launch: Launch) -> str | None:
    """The KV cache's data type; of an NVFP4 checkpoint's "auto", which may mean either, the smaller."""
    value = launch.value("--kv-cache-dtype")
    if value == "auto":
        return "fp8" if launch.weight_dtype == "nvfp4" else "bfloat16"
    known = {"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_ds_mla": "fp8_ds_mla", "bfloat16": "bfloat16"}
    return known.get(str(value))


def redundant_experts(launch: Launch) -> int:
    """Return the redundant experts of EPLB, also where they are written as a string; 0 without EPLB."""
    value = launch.config("--eplb-config", "num_redundant_experts") if launch.is_on("--enable-eplb") else 0
    return int(value) if str(value).isdecimal() and len(str(value)) < 6 else 0


def _buffers(launch: Launch, ep_size: int, redundant: int) -> tuple[Term, ...]:
    """DeepEP's buffers (all2all.py of vLLM 0.11.0 to 0.33.0)."""
    if not parallel.is_wide(launch) or launch.all2all not in (parallel.LOW_LATENCY, parallel.HIGH_THROUGHPUT):
        return ()
    word = launch.env.get(_BUFFER_MB)
    text = word.value if word is not None else "1024"
    size = int(text) * 2**20 if text.isdecimal() and len(text) < 9 and (word is None or word.is_known) else 0
    nvlink = Term("DeepEP NVLink buffer", float(size), f"{_BUFFER_MB} {text} MiB")
    if launch.all2all == parallel.HIGH_THROUGHPUT:
        is_internode = launch.gpus_per_node is not None and ep_size > launch.gpus_per_node
        rdma = Term("DeepEP RDMA buffer", float(size), f"{_BUFFER_MB} {text} MiB, between nodes")
        return (nvlink, rdma) if is_internode else (nvlink,)
    model, tokens = mla.model(launch), dispatch_tokens(launch)
    if model is None or tokens is None:
        return (nvlink,)
    return (
        low_latency_buffer(model, num_dispatch_tokens=tokens, ep_size=ep_size, num_redundant_experts=redundant),
        nvlink,
    )


def dispatch_tokens(launch: Launch) -> int | None:
    """Return the tokens one rank dispatches at once over deepep_low_latency; None if the release is not known."""
    if launch.is_between(before="0.20.0"):
        text = launch.variable(_CHUNK) if _CHUNK in launch.env else "256"
        return int(text) if text is not None and text.isdecimal() and len(text) < 9 else None
    if launch.is_between("0.20.0"):
        value = launch.value("--max-num-batched-tokens")
        is_default = launch.lacks("--max-num-batched-tokens") and launch.is_on("--enable-chunked-prefill") is not False
        if isinstance(value, int):
            return value if 0 < value < _LARGEST else None
        return 256 if is_default else None
    return None
