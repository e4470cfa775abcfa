"""The memory sum against published numbers."""

from __future__ import annotations

import pytest

from baton.catalogue.model import load_model
from baton.perf.memory import host_offload, low_latency_buffer, total_bytes, weights

R1 = load_model("deepseek-r1")


def size_of(name: str, **sizes: int) -> float:
    terms = weights(R1, dtype="fp8", tp_size=1, dp_size=sizes["ep_size"], **sizes)
    return sum(term.size_bytes for term in terms if term.name == name) / 1e9


@pytest.mark.parametrize(("ep_size", "routed_gb"), [(8, 81.74), (16, 40.87), (32, 20.43)])
def test_routed_experts_of_a_rank(ep_size: int, routed_gb: float) -> None:
    """FP8 experts of DeepSeek-R1 on one rank of a wide-EP deployment; the scales are less than a per mille."""
    assert size_of("routed experts", ep_size=ep_size) == pytest.approx(routed_gb, rel=1e-3)


def test_redundant_experts_add_their_share() -> None:
    """32 redundant experts over 16 ranks: 18 physical experts on each in the place of 16."""
    plain, redundant = (size_of("routed experts", ep_size=16, num_redundant_experts=n) for n in (0, 32))
    assert redundant / plain == pytest.approx(18 / 16)


def test_all_weights_of_a_rank_of_16() -> None:
    """61.0 GB are resident at EP16, counting one copy of the KV up-projection, in bfloat16."""
    terms = weights(R1, dtype="fp8", tp_size=1, dp_size=16, ep_size=16)
    absorbed = next(t.size_bytes for t in terms if t.name == "attention, absorbed form")
    assert (total_bytes(terms) - absorbed / 2) / 1e9 == pytest.approx(61.0, rel=2e-3)


def test_all_ranks_together_hold_the_checkpoint() -> None:
    """671B parameters: one rank of one holds them all, and the absorbed form besides."""
    terms = weights(R1, dtype="fp8", tp_size=1, dp_size=1, ep_size=1)
    counted = total_bytes(tuple(t for t in terms if t.name != "attention, absorbed form")) / 1e9
    assert counted == pytest.approx(671, rel=0.01)


@pytest.mark.parametrize(
    ("tokens", "experts", "gib"), [(256, 0, 3.55), (384, 0, 5.33), (256, 32, 4.0), (1024, 32, 16.0)]
)
def test_low_latency_buffer(tokens: int, experts: int, gib: float) -> None:
    """DeepEP's LowLatencyLayout for DeepSeek-R1's 7,168 values and 256 experts."""
    term = low_latency_buffer(R1, num_dispatch_tokens=tokens, ep_size=16, num_redundant_experts=experts)
    assert term.size_bytes / 2**30 == pytest.approx(gib, rel=2e-3)


def test_fp4_experts_are_a_little_over_half() -> None:
    """NVFP4: four bits, and a scale of eight for every 16 weights."""
    fp4, fp8 = (weights(R1, dtype=d, tp_size=1, dp_size=8, ep_size=8)[0].size_bytes for d in ("nvfp4", "fp8"))
    assert fp4 / fp8 == pytest.approx(0.5625, rel=1e-3)


def test_attention_is_cut_by_tensor_parallelism_alone() -> None:
    one, four = (
        next(t.size_bytes for t in weights(R1, dtype="fp8", tp_size=tp, dp_size=4, ep_size=1) if t.name == "attention")
        for tp in (1, 4)
    )
    assert one == pytest.approx(4 * four)


@pytest.mark.parametrize(("gib", "gb"), [(10, 10.74), (1000, 117.1)])
def test_weights_in_host_memory_are_taken_off(gib: float, gb: float) -> None:
    """As many GiB as asked for, and at most what the layers hold: embedding, head and absorbed form stay."""
    held = weights(R1, dtype="nvfp4", tp_size=1, dp_size=4, ep_size=4)
    term = host_offload(held, gib)
    assert -term.size_bytes / 1e9 == pytest.approx(gb, rel=2e-3)
    assert total_bytes((*held, term)) > 0
