"""What one GPU of a deployment must hold, as a sum whose every term has a name and a reason.

Counts what follows from the model's shape and the parallel sizes. What only a run shows (the CUDA context, activations,
captured graphs, the allocator's waste) is not a term here; whoever compares with a GPU says how much he leaves for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from baton.catalogue.model import Model

_BF16_BYTES = 2
_WEIGHT_BYTES = {"fp8": 1 + 4 / 128**2, "nvfp4": 0.5 + 1 / 16, "bfloat16": 2.0, "float32": 4.0}
"""bytes of one weight with its share of the scales: FP8 one float32 for 128 x 128, NVFP4 one FP8 for 16"""
_OF_LAYERS = ("routed experts", "attention", "shared experts and dense layers", "router and norms")


@dataclass(frozen=True, slots=True)
class Term:
    """One summand: what it is, its bytes, and how they come about."""

    name: str
    size_bytes: float
    reason: str


def weights(
    model: Model, *, dtype: str, tp_size: int, dp_size: int, ep_size: int, num_redundant_experts: int = 0
) -> tuple[Term, ...]:
    """Return the weights that one rank holds.

    dtype: of the routed experts and the other large matrices ("fp8", "nvfp4", "bfloat16", "float32"); under nvfp4 the
    attention is counted in bfloat16, which is how nvidia/DeepSeek-R1-FP4 stores it. ep_size: 1 without expert
    parallelism; the experts are then cut over tp x dp ranks all the same (vLLM's fused MoE). Attention is cut by
    tensor parallelism alone, and every data-parallel rank has a copy.
    """
    parts, shape = model.parts(), model.shape
    of_dtype, of_attention = _WEIGHT_BYTES[dtype], _WEIGHT_BYTES["bfloat16" if dtype == "nvfp4" else dtype]
    ranks = ep_size if ep_size > 1 else tp_size * dp_size
    experts = (shape.n_routed_experts + num_redundant_experts) / ranks
    heads = shape.num_hidden_layers * shape.num_attention_heads
    absorbed = heads * shape.kv_lora_rank * (shape.qk_nope_head_dim + shape.v_head_dim)
    split = f" / {tp_size} ranks of a tensor-parallel group" if tp_size > 1 else ""
    return (
        Term(
            "routed experts",
            experts * model.num_moe_layers * parts.one_expert * of_dtype,
            f"({shape.n_routed_experts} + {num_redundant_experts} redundant) / {ranks} ranks x {model.num_moe_layers} "
            f"layers x {parts.one_expert / 1e6:.1f}M weights x {of_dtype:.4g} bytes",
        ),
        Term(
            "attention",
            parts.attention / tp_size * of_attention,
            f"{parts.attention / 1e9:.2f}G weights{split} x {of_attention:.4g} bytes",
        ),
        Term(
            "attention, absorbed form",
            absorbed / tp_size * _BF16_BYTES,
            f"{absorbed / 1e9:.2f}G weights of the KV up-projection again, for decode{split} x {_BF16_BYTES} bytes",
        ),
        Term(
            "shared experts and dense layers",
            (parts.shared_experts + parts.dense_mlp) / tp_size * of_dtype,
            f"{(parts.shared_experts + parts.dense_mlp) / 1e9:.2f}G weights{split} x {of_dtype:.4g} bytes",
        ),
        Term(
            "embedding and head",
            (parts.embedding + parts.head) / tp_size * _BF16_BYTES,
            f"{(parts.embedding + parts.head) / 1e9:.2f}G weights{split} x {_BF16_BYTES} bytes",
        ),
        Term(
            "router and norms",
            (parts.router + parts.norms) * _BF16_BYTES,
            f"{(parts.router + parts.norms) / 1e6:.0f}M weights x {_BF16_BYTES} bytes",
        ),
    )


def low_latency_buffer(model: Model, *, num_dispatch_tokens: int, ep_size: int, num_redundant_experts: int = 0) -> Term:
    """Return DeepEP's low-latency buffer of one rank.

    Two sets of send and receive buffers: every token can come from every rank for every expert, dispatched in FP8 with
    scales or BF16, combined in BF16. Source: deepseek-ai/DeepEP, csrc/config.hpp, LowLatencyLayout.
    """
    hidden, experts = model.shape.hidden_size, model.shape.n_routed_experts + num_redundant_experts
    dispatch = 16 + max(hidden * _BF16_BYTES, hidden + hidden // 128 * 4)
    combine = hidden // 128 * 4 + hidden * _BF16_BYTES
    send = max(num_dispatch_tokens * dispatch, experts * num_dispatch_tokens * combine)
    receive = experts * num_dispatch_tokens * max(dispatch, combine)
    return Term(
        "DeepEP low-latency buffer",
        2 * (send + receive),
        f"2 x (send + receive) for {num_dispatch_tokens} tokens x {experts} experts x {hidden} values in bfloat16",
    )


def host_offload(terms: tuple[Term, ...], gib: float) -> Term:
    """Return what vLLM's `--cpu-offload-gb` takes off one GPU: a negative term, at most the weights of its layers.

    Layers are moved in order until that many GiB of their parameters lie in pinned host memory; embedding, head and
    what is derived from weights after loading stay. Source: vllm/model_executor/offloader/uva.py (0.17.1 to 0.33.0).
    """
    movable = sum(term.size_bytes for term in terms if term.name in _OF_LAYERS)
    taken = min(gib * 2**30, movable)
    limit = f", of the {movable / 1e9:.1f} GB that its layers have" if taken == movable else ""
    return Term(
        "weights in host memory",
        -taken,
        f"--cpu-offload-gb {gib:g} GiB{limit}; less where a kernel makes new weights of the loaded ones",
    )


def total_bytes(terms: tuple[Term, ...]) -> float:
    """Return the sum of terms."""
    return sum(term.size_bytes for term in terms)
