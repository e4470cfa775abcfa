"""How long one step of one rank takes: every matrix, the attention core, the exchange of tokens, and the rest by name.

Ranks of a replica step together, so this is the step of all of them. Operations are counted as in the DeepSeek-V3
report (2412.19437) and its inference (absorbed attention in decode, plain attention in prefill).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from baton.catalogue.factors import Factors
from baton.catalogue.hardware import Accelerator
from baton.catalogue.model import Model
from baton.perf import all2all
from baton.perf.cost import Cost, total_s
from baton.perf.kernels import Kernels
from baton.perf.layout import Layout


class Rehearsed(NamedTuple):
    """By how much a rank's steps were longer than predicted when they were rehearsed on one GPU: 1 = as predicted.

    It counts for what a GPU and its host do by themselves. What ranks send each other was not rehearsed.
    """

    decode: float = 1.0
    prefill: float = 1.0


AS_PREDICTED = Rehearsed()


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of a replica: what computes what, and how it is laid out; `engine` picks the system factor."""

    model: Model
    gpu: Accelerator
    factors: Factors
    layout: Layout
    engine: str = "vllm"
    rehearsed: Rehearsed = AS_PREDICTED

    def decode(self, batch: float, context: float) -> tuple[Cost, ...]:
        """Return one decode step: `batch` requests of this rank, each with `context` tokens of KV.

        With MTP a request brings its drafts along, and their layers run after the model's.
        """
        drafts, layers = self.layout.mtp_tokens, self.model.shape.num_hidden_layers
        tokens = batch * (1 + drafts)
        costs = [*self._layers(tokens), self._absorbed(batch, 1 + drafts, context), *self._ends(tokens)]
        if drafts:
            one = total_s(self._layers(batch)) / layers + total_s(self._ends(batch))
            one += self._absorbed(batch, 1, context).time_s / layers
            costs.append(
                Cost(
                    "draft layers",
                    drafts * one,
                    "bandwidth",
                    f"{drafts} x (one layer and the head, {batch:.4g} tokens)",
                )
            )
        return self._whole(costs, tokens, batch, self.rehearsed.decode)

    def prefill(self, tokens: float, isl: float, cached: float = 0.0) -> tuple[Cost, ...]:
        """Return one prefill step: `tokens` new tokens of this rank, of prompts of `isl`, `cached` of it known.

        With MTP the draft layer passes over the prompt once too, so that decode finds its KV.
        """
        new = max(1.0, isl - cached)
        context = cached + new / 2
        costs = [*self._layers(tokens), *self._plain(tokens, context, new), *self._ends(tokens / new)]
        if self.layout.mtp_tokens:
            ends_s = total_s(self._ends(tokens / new))
            one = (total_s(costs) - ends_s) / self.model.shape.num_hidden_layers + ends_s
            costs.append(Cost("draft layer", one, "arithmetic", f"one layer more and the head, {tokens:.4g} tokens"))
        return self._whole(costs, tokens, tokens / new, self.rehearsed.prefill)

    # one pass over the layers ---------------------------------------------------------------------------------------

    def _kernels(self) -> Kernels:
        return Kernels(self.gpu, self.factors)

    def _layers(self, tokens: float) -> list[Cost]:
        return [*self._projections(tokens), *self._mlps(tokens), self._small(tokens)]

    def _projections(self, tokens: float) -> list[Cost]:
        """The matrices around the attention core."""
        k, s, layers, tp = self._kernels(), self.model.shape, self.model.shape.num_hidden_layers, self.layout.tp_size
        heads, dtype = max(1, s.num_attention_heads // tp), self.layout.of_attention
        out_dtype = self.layout.weight_dtype if self.layout.attention_dtype else dtype
        if not s.is_mla:
            kv = max(1, s.num_key_value_heads // tp)
            return [
                k.matrix(
                    "QKV projection",
                    rows=tokens,
                    into=s.hidden_size,
                    out=(heads + 2 * kv) * s.head_dim,
                    dtype=dtype,
                    count=layers,
                ),
                k.matrix(
                    "output projection",
                    rows=tokens,
                    into=heads * s.head_dim,
                    out=s.hidden_size,
                    dtype=dtype,
                    count=layers,
                ),
            ]
        query_out, down = heads * (s.qk_nope_head_dim + s.qk_rope_head_dim), s.kv_lora_rank + s.qk_rope_head_dim
        into = s.q_lora_rank or s.hidden_size
        return [
            k.matrix(
                "query and KV down-projection",
                rows=tokens,
                into=s.hidden_size,
                out=down + (s.q_lora_rank or 0),
                dtype=dtype,
                count=layers,
            ),
            k.matrix("query up-projection", rows=tokens, into=into, out=query_out, dtype=dtype, count=layers),
            k.matrix(
                "output projection",
                rows=tokens,
                into=heads * s.v_head_dim,
                out=s.hidden_size,
                dtype=out_dtype,
                count=layers,
            ),
        ]

    def _mlps(self, tokens: float) -> list[Cost]:
        """Dense layers, router, shared and routed experts."""
        k, s, layout = self._kernels(), self.model.shape, self.layout
        dtype, moe, dense, tp = (
            layout.weight_dtype,
            self.model.num_moe_layers,
            self.model.num_dense_layers,
            layout.tp_size,
        )
        costs = []
        if dense:
            inner = s.intermediate_size // tp
            costs += [
                k.matrix("dense layers, up", rows=tokens, into=s.hidden_size, out=2 * inner, dtype=dtype, count=dense),
                k.matrix("dense layers, down", rows=tokens, into=inner, out=s.hidden_size, dtype=dtype, count=dense),
            ]
        if not moe:
            return costs
        if s.n_shared_experts:
            inner = max(1, s.n_shared_experts * s.moe_intermediate_size // tp)
            costs += [
                k.matrix("shared experts, up", rows=tokens, into=s.hidden_size, out=2 * inner, dtype=dtype, count=moe),
                k.matrix("shared experts, down", rows=tokens, into=inner, out=s.hidden_size, dtype=dtype, count=moe),
            ]
        costs.append(
            k.matrix("router", rows=tokens, into=s.hidden_size, out=s.n_routed_experts, dtype="bfloat16", count=moe)
        )
        return [*costs, *self._experts(tokens)]

    def _experts(self, tokens: float) -> list[Cost]:
        """The two grouped products; the busiest rank sets the pace."""
        k, s, layout, moe = self._kernels(), self.model.shape, self.layout, self.model.num_moe_layers
        is_spread = layout.ep_size > 1
        held = layout.experts_held or (s.n_routed_experts + layout.num_redundant_experts) / layout.ep_size
        cut = 1 if is_spread or layout.experts_held else layout.tp_size * layout.dp_size
        in_group = tokens * layout.dp_size / (layout.ep_size if is_spread else 1)
        rows = (tokens if layout.experts_held else in_group) * s.num_experts_per_tok
        inner = max(1, s.moe_intermediate_size // cut)
        pair = (
            k.grouped(
                "routed experts, up",
                rows=rows,
                experts=held,
                into=s.hidden_size,
                out=2 * inner,
                dtype=layout.weight_dtype,
                count=moe,
            ),
            k.grouped(
                "routed experts, down",
                rows=rows,
                experts=held,
                into=inner,
                out=s.hidden_size,
                dtype=layout.weight_dtype,
                count=moe,
            ),
        )
        factor = self._imbalance()
        return [one.times(factor, "busiest rank") if one.limit == "arithmetic" and factor > 1 else one for one in pair]

    def _small(self, tokens: float) -> Cost:
        """Norms, rotary embedding, quantisation, routing, permutation, activation, sums: they only move values."""
        s, layers = self.model.shape, self.model.shape.num_hidden_layers
        heads = s.num_attention_heads // self.layout.tp_size
        query = heads * ((s.qk_nope_head_dim + s.qk_rope_head_dim) if s.is_mla else s.head_dim)
        output = heads * (s.v_head_dim if s.is_mla else s.head_dim)
        chosen, inner = (
            (s.num_experts_per_tok, s.moe_intermediate_size) if self.model.num_moe_layers else (1, s.intermediate_size)
        )
        # Two norms with their residuals (4 passes each of 2 bytes) and quantised outputs; query rotated; output
        # quantised; tokens copied to and summed from their experts; activations.
        values = 2 * 4 * 2 * s.hidden_size + 3 * s.hidden_size + 4 * query + 3 * output
        values += chosen * (4 * s.hidden_size + 5 * inner)
        return self._kernels().moved(
            "small kernels",
            num_bytes=tokens * values,
            kernels=self.factors.small_kernels.value,
            count=layers,
            reason=f"{tokens * values / 1e6:.3g} MB in {self.factors.small_kernels.value:.0f} kernels",
        )

    def _ends(self, tokens: float) -> list[Cost]:
        """The head, which only sampled positions pass."""
        s = self.model.shape
        out = s.vocab_size // self.layout.tp_size
        return [self._kernels().matrix("output head", rows=tokens, into=s.hidden_size, out=out, dtype="bfloat16")]

    # attention cores ------------------------------------------------------------------------------------------------

    def _absorbed(self, batch: float, queries: int, context: float) -> Cost:
        """Decode: each request's queries against its KV, read once."""
        k, s, layers = self._kernels(), self.model.shape, self.model.shape.num_hidden_layers
        heads = max(1, s.num_attention_heads // self.layout.tp_size)
        kv_bytes = self.model.kv_bytes_per_token(self.layout.kv_dtype) / layers
        if not s.is_mla:
            kv_bytes /= min(self.layout.tp_size, s.num_key_value_heads)
        width = 2 * s.kv_lora_rank + s.qk_rope_head_dim if s.is_mla else 2 * s.head_dim
        operations = 2 * heads * queries * batch * context * width
        core = k.attention(
            "attention core",
            operations=operations,
            num_bytes=batch * context * kv_bytes,
            is_mla=s.is_mla,
            count=layers,
            reason=f"{batch:.4g} requests x {context:.4g} tokens x {heads} heads",
        )
        if not s.is_mla:
            return core
        up = (
            2
            * k.matrix(  # queries into the latent, and values out of it: one small matrix a head
                "",
                rows=batch * queries,
                into=s.kv_lora_rank,
                out=heads * (s.qk_nope_head_dim + s.v_head_dim) // 2,
                dtype="bfloat16",
                count=layers,
            ).time_s
        )
        return Cost(
            core.name, core.time_s + up, core.limit, f"{core.reason}; with {up * 1e3:.3g} ms of absorbed up-projections"
        )

    def _plain(self, tokens: float, context: float, new: float) -> list[Cost]:
        """Prefill: causal attention of whole heads; the latent is projected up first."""
        k, s, layers, tp = self._kernels(), self.model.shape, self.model.shape.num_hidden_layers, self.layout.tp_size
        heads = max(1, s.num_attention_heads // tp)
        width = s.qk_nope_head_dim + s.qk_rope_head_dim + s.v_head_dim if s.is_mla else 2 * s.head_dim
        num_bytes = 2 * tokens * heads * width * 2
        core = k.attention(
            "attention core",
            operations=2 * heads * tokens * context * width,
            num_bytes=num_bytes,
            is_mla=False,
            count=layers,
            reason=f"{tokens:.4g} tokens x {context:.4g} before each x {heads} heads",
        )
        if not s.is_mla:
            return [core]
        # A chunk projects again what came before it of the same prompt.
        rows = tokens + max(0.0, new - tokens) / 2 + (context - new / 2) * tokens / new
        up = k.matrix(
            "KV up-projection",
            rows=rows,
            into=s.kv_lora_rank,
            out=heads * (s.qk_nope_head_dim + s.v_head_dim),
            dtype=self.layout.of_attention,
            count=layers,
        )
        keys = k.moved(
            "keys put together",
            num_bytes=rows * heads * width * 2 * 2,
            kernels=1,
            count=layers,
            reason="keys of all heads copied",
        )
        return [core, up, keys]

    # the whole step -------------------------------------------------------------------------------------------------

    def _imbalance(self) -> float:
        if self.layout.is_balanced or self.layout.all2all == "none":
            return 1.0
        worst = (self.factors.imbalance_eplb if self.layout.has_eplb else self.factors.imbalance).value
        return 1 + (worst - 1) * self.layout.spread_log2

    def _whole(self, costs: list[Cost], tokens: float, requests: float, rehearsed: float) -> tuple[Cost, ...]:
        k, layout = self._kernels(), self.layout
        sent = all2all.costs(self.model, k, layout, tokens / layout.tp_size, self._imbalance())
        host_s = self.factors.step_s.value + requests * self.factors.request_s.value
        costs.append(Cost("scheduler and sampler", host_s, "host", f"a step and {requests:.4g} requests"))
        if rehearsed != 1:
            more_s = (rehearsed - 1) * total_s(costs)
            costs.append(Cost("longer as rehearsed", more_s, "measured", f"x {rehearsed:.3g} of all above"))
        costs += all2all.tensor_parallel(self.model, k, layout, tokens)
        computing_s, sending_s = total_s(costs) - host_s, total_s(sent)
        costs += sent
        if layout.has_overlap and sent:
            hidden_s = self.factors.overlap.value * min(computing_s, sending_s)
            share = self.factors.overlap.value
            why = f"{share:.0%} of the shorter of {computing_s * 1e3:.3g} and {sending_s * 1e3:.3g} ms"
            costs.append(Cost("hidden by two microbatches", -hidden_s, "overlap", why))
        if layout.offload_gib:
            costs.append(self._from_host())
        if layout.num_gpus > 1:
            factor = self.factors.system[self.engine]
            waited_s = (factor.value - 1) * total_s(costs)
            costs.append(
                Cost(
                    "waiting for the slowest rank, gaps", waited_s, "latency", f"x {factor.value:.3g}: {factor.source}"
                )
            )
        return tuple(costs)

    def _from_host(self) -> Cost:
        rate = self.gpu.host_bytes_per_s.value
        num_bytes = self.layout.offload_gib * 2**30
        return Cost(
            "weights from host memory",
            num_bytes / rate,
            "network",
            f"{num_bytes / 1e9:.3g} GB at {rate / 1e9:.3g} GB/s",
        )
