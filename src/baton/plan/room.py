"""What a rank's memory leaves for KV: weights, buffers, what a run needs beside them, and the rest in tokens."""

from __future__ import annotations

from dataclasses import dataclass

from baton.catalogue.hardware import Accelerator
from baton.catalogue.model import Model
from baton.perf.layout import DEEPEP_HIGH_THROUGHPUT, DEEPEP_LOW_LATENCY, Layout
from baton.perf.memory import Term, host_offload, low_latency_buffer, total_bytes, weights
from baton.plan.setup import Setup
from baton.recipe.recipe import Role

_FIXED_BYTES = 5e9
"""CUDA context, NCCL and captured graphs: an allowance; a rehearsal on one H200 (vLLM 0.22.1) left KV room of 60.2 GB
at EP16 and a share of 0.88, where these sums give about as much"""
_DEEPEP_BYTES = 2**30
"""VLLM_DEEPEP_BUFFER_SIZE_MB, 1024 unless set; twice where a replica spans nodes (vllm, all2all.py)"""


@dataclass(frozen=True, slots=True)
class Room:
    """What one rank holds, term by term, and the bytes and tokens left for KV (negative bytes: it does not fit)."""

    terms: tuple[Term, ...]
    budget_bytes: float
    kv_bytes_per_token: float

    @property
    def left_bytes(self) -> float:
        """Bytes for KV."""
        return self.budget_bytes - total_bytes(self.terms)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV that fit."""
        return max(0, int(self.left_bytes / self.kv_bytes_per_token))

    def explain(self) -> str:
        """Return the sum in one line: "weights ... + ... = 82.1 GB of 77.0 GB"."""
        parts = " + ".join(
            f"{term.name} {term.size_bytes / 1e9:.1f}" for term in self.terms if abs(term.size_bytes) > 5e7
        )
        return f"{parts} = {total_bytes(self.terms) / 1e9:.1f} GB of {self.budget_bytes / 1e9:.1f} GB"


def room(model: Model, gpu: Accelerator, setup: Setup) -> Room:
    """Return a rank's room for KV."""
    layout = setup.layout
    held = weights(
        model,
        dtype=layout.weight_dtype,
        tp_size=layout.tp_size,
        dp_size=layout.dp_size,
        ep_size=layout.ep_size,
        num_redundant_experts=layout.num_redundant_experts,
    )
    terms = [*held, *_buffers(model, setup), _activations(model, setup)]
    if layout.mtp_tokens:
        terms.append(_drafter(model, layout))
    terms.append(Term("context, NCCL, graphs", _FIXED_BYTES, "as seen on one H200"))
    if layout.offload_gib:
        terms.append(host_offload(held, layout.offload_gib))
    kv_bytes = float(model.kv_bytes_per_token(layout.kv_dtype))
    if not model.shape.is_mla:
        kv_bytes /= min(layout.tp_size, model.shape.num_key_value_heads)
    if layout.mtp_tokens:
        kv_bytes *= 1 + model.shape.num_nextn_predict_layers / model.shape.num_hidden_layers
    return Room(tuple(terms), gpu.memory_bytes.value * setup.gpu_memory_utilization, kv_bytes)


def _drafter(model: Model, layout: Layout) -> Term:
    """The MTP layers: experts spread as the model's own, the rest whole on each rank, at most; FP8 or BF16."""
    num_layers, one = model.shape.num_nextn_predict_layers, model.parts().one_expert
    experts = num_layers * model.shape.n_routed_experts * one
    here = num_layers * one * (model.shape.n_routed_experts + layout.num_redundant_experts)
    ranks = layout.ep_size if layout.ep_size > 1 else layout.num_gpus
    num_bytes = (here / ranks + model.parts().mtp - experts) * (2 if layout.weight_dtype == "bfloat16" else 1)
    return Term("MTP layers", num_bytes, f"{here / 1e9:.2f}G weights of experts over {ranks} ranks, and the rest")


def _activations(model: Model, setup: Setup) -> Term:
    """What one step needs at its widest: a layer's tokens copied to their experts, in and out, beside the residual."""
    s, tokens = model.shape, setup.max_num_batched_tokens if setup.role is Role.PREFILL else setup.max_num_seqs
    wide = (
        s.num_experts_per_tok * (2 * s.hidden_size + 3 * s.moe_intermediate_size) * 2
        if model.num_moe_layers
        else 6 * s.intermediate_size
    )
    num_bytes = tokens * (wide + 8 * s.hidden_size * 2)
    return Term("activations", num_bytes, f"{tokens} tokens x {wide + 16 * s.hidden_size} bytes in the widest layer")


def _buffers(model: Model, setup: Setup) -> list[Term]:
    layout = setup.layout
    if layout.ep_size == 1:
        return []
    if layout.all2all == DEEPEP_HIGH_THROUGHPUT:
        num = 2 if setup.nodes > 1 else 1
        return [Term("DeepEP buffers", num * _DEEPEP_BYTES, f"{num} of 1 GiB")]
    if layout.all2all == DEEPEP_LOW_LATENCY:
        tokens = setup.max_num_seqs * (1 + layout.mtp_tokens)
        low = low_latency_buffer(
            model,
            num_dispatch_tokens=tokens,
            ep_size=layout.ep_size,
            num_redundant_experts=layout.num_redundant_experts,
        )
        return [low, Term("DeepEP NVLink buffer", _DEEPEP_BYTES, "1 GiB")]
    return []
