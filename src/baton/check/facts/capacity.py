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
from baton.perf.memory import Term, host_offload, low_latency_buffer, total_bytes, weights

NOT_COUNTED = "not counted: activations, CUDA graphs, the CUDA context and NCCL, some GB more"
_OTHER_WEIGHTS = re.compile(r"awq|gptq|int[48]|w4a|gguf|bnb|bitsandbytes|-4bit|-8bit|mxfp|fp4-v\d", re.IGNORECASE)
_OFFLOADS = (
    "--offload-group-size",
    "--cpu-offload-params",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--decode-context-parallel-size",
    "--load-format",
)
_OFFLOAD, _OFFLOAD_STAYS = "--cpu-offload-gb", "0.17.0"
"""before, weights that are rewritten after loading came back to the GPU (model_loader/utils.py, 0.14.1 and 0.17.1)"""
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

    def sum(self, accelerator: str) -> str:
        """Return the terms' sum beside what there is: "together 61.0 GB, of 0.9 x 85.5 GB = 77.0 GB"."""
        there = memory_bytes(accelerator)
        held, budget = total_bytes(self.terms) / 1e9, there * self.utilization / 1e9
        return f"together {held:.1f} GB, of {self.utilization:g} x {there / 1e9:.1f} GB = {budget:.1f} GB"


@cache
def memory_bytes(accelerator: str) -> float:
    """Return the memory of an accelerator of the catalogue."""
    return load_accelerator(accelerator).memory_bytes.value


def capacity(launch: Launch, *, dp_size: int | None = None) -> Capacity | None:
    """Return what a launch holds; None if the model or a size is not known, or something moves it elsewhere.

    dp_size: as if it were that of the launch.
    """
    model, dtype = mla.model(launch), _weight_dtype(launch)
    tp, dp, ep, longest = launch.tp_size, dp_size or launch.dp_size, launch.ep_size, launch.value("--max-model-len")
    kv_dtype, offload = _kv_dtype(launch), _offload_gib(launch)
    if model is None or dtype is None or kv_dtype is None or tp is None or dp is None or ep is None or offload is None:
        return None
    ep = dp * tp if ep > 1 else 1
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
        terms=(*held, *_buffers(launch, ep, redundant), *((host_offload(held, offload),) if offload else ())),
        utilization=share if isinstance(share, float) else _HIGHEST_DEFAULT,
        kv_bytes=model.kv_bytes_per_token(kv_dtype),
        kv_dtype=kv_dtype,
        max_model_len=longest,
        is_whole=launch.all2all != parallel.LOW_LATENCY or dispatch_tokens(launch) is not None,
    )


def _offload_gib(launch: Launch) -> float | None:
    """GiB of weights that --cpu-offload-gb keeps in host memory; None if that is not known."""
    if launch.lacks(_OFFLOAD):
        return 0
    value = launch.value(_OFFLOAD)
    is_known = isinstance(value, int | float) and 0 <= value <= _LARGEST and launch.is_between(_OFFLOAD_STAYS)
    return float(value) if is_known else None


def _weight_dtype(launch: Launch) -> str | None:
    model = mla.model(launch)
    words = [launch.model.value if launch.model is not None else "", str(launch.value("--quantization") or "")]
    if model is None or any(_OTHER_WEIGHTS.search(word) for word in words) or not launch.lacks("--hf-overrides"):
        return None
    stated = launch.weights.value if launch.weights is not None else None
    return launch.weight_dtype or ("bfloat16" if stated == "float16" else stated) or model.weight_dtype


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
