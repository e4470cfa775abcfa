"""What experts on several GPUs cost: tokens to where their experts are, and the answers back, once a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from baton.catalogue.model import Model
from baton.perf.cost import Cost
from baton.perf.kernels import INPUT_BYTES, Kernels
from baton.perf.layout import ALLGATHER, DEEPEP_HIGH_THROUGHPUT, FLASHINFER, Layout

_LOW_LATENCY_US: dict[int, tuple[float, float]] = {
    8: (77, 114),
    16: (118, 195),
    32: (155, 273),
    64: (173, 314),
    128: (192, 369),
    256: (194, 360),
}
"""dispatch and combine of 128 tokens, microseconds, by ranks. Source: deepseek-ai/DeepEP README, low-latency kernels,
H800 with ConnectX-7 at 400 Gb/s, hidden 7168, top 8, FP8 dispatch and bfloat16 combine"""
_LOW_LATENCY_TOKENS, _LOW_LATENCY_HIDDEN, _LOW_LATENCY_TOPK = 128, 7168, 8
_NORMAL_BYTES_PER_S = {8: (153e9, 158e9), 16: (43e9, 43e9), 32: (58e9, 57e9), 64: (51e9, 50e9)}
"""dispatch and combine of large batches, logical bytes a second, by ranks. Source: the same, normal kernels"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Dispatch and combine of one rank's tokens in one layer."""

    dispatch_s: float
    combine_s: float
    reason: str


def exchange(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> Exchange | None:
    """Return one layer's exchange of `tokens` tokens of each rank; None where experts need none."""
    if layout.ep_size == 1 or layout.all2all == "none" or not model.num_moe_layers:
        return None
    if layout.all2all in ALLGATHER:
        return _allgather(model, kernels, layout, tokens)
    domain = int(kernels.gpu.nvlink_domain_size.value)
    if layout.all2all in FLASHINFER or (layout.ep_size <= domain and domain > 8):
        return _nvlink(model, kernels, layout, tokens)
    if layout.all2all == DEEPEP_HIGH_THROUGHPUT:
        return _deepep_normal(model, kernels, layout, tokens)
    return _deepep_low_latency(model, kernels, layout, tokens)


def costs(model: Model, kernels: Kernels, layout: Layout, tokens: float, imbalance: float) -> tuple[Cost, ...]:
    """Return dispatch and combine over all layers; what the busiest rank receives sets the pace."""
    found = exchange(model, kernels, layout, tokens)
    if found is None:
        return ()
    fixed_s, layers = kernels.factors.all2all_s.value, model.num_moe_layers
    return tuple(
        Cost(
            name,
            layers * (fixed_s + max(0.0, time_s - fixed_s) * imbalance),
            "network",
            f"{layers} x ({found.reason}; busiest rank x {imbalance:.3g})",
        )
        for name, time_s in (("all2all dispatch", found.dispatch_s), ("all2all combine", found.combine_s))
    )


def tensor_parallel(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> tuple[Cost, ...]:
    """Return the sums over a tensor-parallel group: a ring all-reduce after attention and after the MLP."""
    n, layers = layout.tp_size, model.shape.num_hidden_layers
    if n == 1:
        return ()
    num_bytes = 2 * (n - 1) / n * tokens * model.shape.hidden_size * 2
    one_s = kernels.factors.all2all_s.value + num_bytes / _nvlink_bytes_per_s(kernels)
    reason = f"{2 * layers} x ({num_bytes / 1e6:.3g} MB a GPU in a ring of {n})"
    return (Cost("all-reduce", 2 * layers * one_s, "network", reason),)


def _deepep_low_latency(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> Exchange:
    """One copy for every chosen expert; the published times, in proportion to tokens above their fixed part."""
    fixed_s = kernels.factors.all2all_s.value
    size = tokens / _LOW_LATENCY_TOKENS * model.shape.hidden_size / _LOW_LATENCY_HIDDEN
    size *= model.shape.num_experts_per_tok / _LOW_LATENCY_TOPK
    each = [fixed_s + max(0.0, _between(_LOW_LATENCY_US, layout.ep_size, at) * 1e-6 - fixed_s) * size for at in (0, 1)]
    return Exchange(each[0], each[1], f"DeepEP low-latency, {tokens:.4g} tokens over {layout.ep_size} ranks")


def _deepep_normal(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> Exchange:
    """One copy for every node that has a chosen expert; the published logical rates."""
    hidden, fixed_s = model.shape.hidden_size, kernels.factors.all2all_s.value
    copies = _distinct(layout.ep_size, 8, model) if layout.ep_size > 8 else _distinct_ranks(layout.ep_size, model)
    rates = [_between(_NORMAL_BYTES_PER_S, layout.ep_size, at) for at in (0, 1)]
    dispatch_bytes, combine_bytes = tokens * copies * hidden * INPUT_BYTES["fp8"], tokens * copies * hidden * 2
    return Exchange(
        fixed_s + dispatch_bytes / rates[0],
        fixed_s + combine_bytes / rates[1],
        f"DeepEP normal, {tokens:.4g} tokens x {copies:.3g} copies over {layout.ep_size} ranks",
    )


def _nvlink(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> Exchange:
    """One copy for every rank that has a chosen expert, over NVLink; one that leaves the domain goes over the NIC."""
    hidden, fixed_s = model.shape.hidden_size, kernels.factors.all2all_s.value
    copies = _distinct_ranks(layout.ep_size, model) * (1 - 1 / layout.ep_size)
    sent = INPUT_BYTES[layout.weight_dtype] * hidden
    rate = _rate(kernels, layout)
    return Exchange(
        fixed_s + tokens * copies * sent / rate,
        fixed_s + tokens * copies * hidden * 2 / rate,
        f"{tokens:.4g} tokens x {copies:.3g} copies to other ranks of {layout.ep_size}",
    )


def _allgather(model: Model, kernels: Kernels, layout: Layout, tokens: float) -> Exchange:
    """Every rank receives every token, and sums over all of them afterwards, in bfloat16 or as quantised."""
    hidden, others, fixed_s = model.shape.hidden_size, layout.ep_size - 1, kernels.factors.all2all_s.value
    rate = _rate(kernels, layout)
    return Exchange(
        fixed_s + others * tokens * hidden * 2 / rate,
        fixed_s + others * tokens * hidden * 2 / rate,
        f"all-gather and reduce-scatter, {tokens:.4g} tokens to each of {others} others",
    )


def _rate(kernels: Kernels, layout: Layout) -> float:
    if layout.ep_size <= kernels.gpu.nvlink_domain_size.value:
        return _nvlink_bytes_per_s(kernels)
    return kernels.gpu.nic_bytes_per_s.value * kernels.factors.nic.value


def _nvlink_bytes_per_s(kernels: Kernels) -> float:
    return kernels.gpu.nvlink_bytes_per_s.value * kernels.factors.nvlink.value


def _distinct_ranks(ep_size: int, model: Model) -> float:
    return ep_size * (1 - (1 - 1 / ep_size) ** model.shape.num_experts_per_tok)


def _distinct(ep_size: int, per_node: int, model: Model) -> float:
    """Nodes that a token's experts lie on: top-k over at most `topk_group` of the groups, which nodes follow."""
    nodes = ep_size / per_node
    reach = min(nodes, model.shape.topk_group) if model.shape.n_group > 1 else nodes
    return reach * (1 - (1 - 1 / reach) ** model.shape.num_experts_per_tok) if reach > 1 else 1.0


def _between(table: dict[int, tuple[float, float]], ep_size: int, at: int) -> float:
    """Return a table's value, linear in the logarithm of ranks and level beyond its ends."""
    sizes = sorted(table)
    if ep_size <= sizes[0]:
        return table[sizes[0]][at]
    for low, high in pairwise(sizes):
        if ep_size <= high:
            share = math.log(ep_size / low) / math.log(high / low)
            return table[low][at] * (1 - share) + table[high][at] * share
    return table[sizes[-1]][at]
