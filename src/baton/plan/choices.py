"""The setups that a search tries for a role: replica sizes that lie on whole nodes or share one, and their limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from baton.perf.layout import DEEPEP_HIGH_THROUGHPUT, DEEPEP_LOW_LATENCY, FLASHINFER, Layout
from baton.plan.question import Question
from baton.plan.setup import MTP_ACCEPTANCE, Setup
from baton.recipe.recipe import Role

CHUNKS = (4096, 8192, 16384, 32768)
_REDUNDANT_SHARE = 1 / 8
"""redundant experts beside the model's own, as the published deployments have (32 of 256)"""
_TP_SIZES = (1, 2, 4, 8)
_SEQS = (64, 256, 1024)
_KV_DTYPES = ("bfloat16", "fp8")


def usual(question: Question, role: Role) -> Setup:
    """Return the settings that every size is tried with: those of the committed recipes of this generation."""
    is_hopper = "fp4" not in question.gpu.dense_flops_per_s
    kind = _hopper_all2all(role) if is_hopper else FLASHINFER[0]
    layout = Layout(
        weight_dtype=question.model.weight_dtype if is_hopper or not question.model.num_moe_layers else "nvfp4",
        kv_dtype="bfloat16" if is_hopper else "fp8",
        all2all=kind,
        has_eplb=True,
        has_overlap=is_hopper,
    )
    return Setup(
        role=role,
        layout=layout,
        replicas=1,
        nodes=1,
        max_num_seqs=256 if is_hopper else 512,
        max_num_batched_tokens=16384,
    )


def sizes(question: Question, base: Setup) -> Iterator[Setup]:
    """Yield the setup at every replica size that the GPUs allow, all else equal."""
    node = int(question.gpu.gpus_per_node.value)
    for num_gpus in _replica_sizes(node, question.num_gpus):
        if question.model.num_moe_layers and num_gpus > 1:
            redundant = _redundant(question.model.shape.n_routed_experts, num_gpus, base.layout.has_eplb)
            layout = replace(
                base.layout, dp_size=num_gpus, tp_size=1, ep_size=num_gpus, num_redundant_experts=redundant
            )
        elif num_gpus in _TP_SIZES:
            layout = replace(
                base.layout,
                dp_size=1,
                tp_size=num_gpus,
                ep_size=1,
                num_redundant_experts=0,
                has_eplb=False,
                has_overlap=False,
            )
        else:
            continue
        yield replace(base, layout=layout, nodes=-(-num_gpus // node))


def limits(question: Question, setup: Setup) -> Iterator[Setup]:
    """Yield a setup with other limits (tokens of a step, requests of a rank), KV dtypes and drafts, and with less.

    Less are DBO and redundant experts. The search pairs what can hand over to one another.
    """
    least = _redundant(question.model.shape.n_routed_experts, setup.layout.ep_size, has_eplb=False)
    spares = {setup.layout.num_redundant_experts, least if setup.layout.ep_size > 1 else 0}
    overlaps = {setup.layout.has_overlap, False}
    less = [replace(setup.layout, num_redundant_experts=spare, has_overlap=has) for spare in spares for has in overlaps]
    layouts = {other for layout in less for other in (layout, *(changed for _, changed in _formats(question, layout)))}
    layouts |= {both for layout in layouts for _, both in _formats(question, layout)}
    for layout in sorted(layouts, key=repr):
        if setup.role is Role.PREFILL:
            for chunk in CHUNKS:
                yield replace(setup, layout=layout, max_num_batched_tokens=chunk)
        else:
            for seqs in _SEQS:
                yield replace(setup, layout=layout, max_num_seqs=seqs)


def other_formats(question: Question, prefill: Setup, decode: Setup) -> Iterator[tuple[str, Setup, Setup]]:
    """Yield single changes to what is handed over, which both roles must share: a name and the changed setups."""
    theirs = dict(_formats(question, prefill.layout))
    for name, layout in _formats(question, decode.layout):
        if name in theirs:
            yield name, replace(prefill, layout=theirs[name]), replace(decode, layout=layout)


def _formats(question: Question, layout: Layout) -> Iterator[tuple[str, Layout]]:
    """Yield the other KV dtypes, and drafts on or off.

    Drafts need the checkpoint's MTP layers, which NVFP4's (nvidia/DeepSeek-R1-FP4) has not, and exclude DBO: vLLM's new
    runner takes no "dual batch overlap with speculative decoding" (0.32.0, vllm/config/vllm.py).
    """
    for dtype in _KV_DTYPES:
        if dtype != layout.kv_dtype:
            yield f"KV cache in {dtype}", replace(layout, kv_dtype=dtype)
    model = question.model
    if layout.mtp_tokens:
        yield "without MTP", replace(layout, mtp_tokens=0, mtp_acceptance=0.0)
    elif model.shape.num_nextn_predict_layers and layout.weight_dtype == model.weight_dtype:
        drafted = replace(layout, mtp_tokens=1, mtp_acceptance=MTP_ACCEPTANCE, has_overlap=False)
        yield f"MTP, one draft, {MTP_ACCEPTANCE:.0%} accepted, no DBO", drafted


def other_settings(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield single changes to a setup that a plan tells the gain of: a name and the changed setup."""
    layout = setup.layout
    if layout.ep_size > 1:
        if not layout.mtp_tokens:
            yield (
                ("without DBO" if layout.has_overlap else "with DBO"),
                replace(setup, layout=replace(layout, has_overlap=not layout.has_overlap)),
            )
        yield (
            ("without EPLB" if layout.has_eplb else "with EPLB"),
            replace(setup, layout=replace(layout, has_eplb=not layout.has_eplb)),
        )
    if setup.role is Role.DECODE:
        yield (
            f"twice the requests a rank ({2 * setup.max_num_seqs})",
            replace(setup, max_num_seqs=2 * setup.max_num_seqs),
        )
    else:
        for chunk in CHUNKS:
            if chunk != setup.max_num_batched_tokens:
                yield f"prefill steps of {chunk} tokens", replace(setup, max_num_batched_tokens=chunk)


def _replica_sizes(node: int, num_gpus: int) -> list[int]:
    parts = [size for size in range(1, node + 1) if node % size == 0]
    return [size for size in [*parts, *range(2 * node, num_gpus + 1, node)] if size < num_gpus]


def _redundant(experts: int, ranks: int, has_eplb: bool) -> int:
    """The number nearest to the usual one with which experts divide over ranks."""
    wanted = experts * _REDUNDANT_SHARE if has_eplb else 0
    fitting = [extra for extra in range(experts + 1) if (experts + extra) % ranks == 0]
    return min(fitting, key=lambda extra: (abs(extra - wanted), extra))


def _hopper_all2all(role: Role) -> str:
    return DEEPEP_HIGH_THROUGHPUT if role is Role.PREFILL else DEEPEP_LOW_LATENCY
