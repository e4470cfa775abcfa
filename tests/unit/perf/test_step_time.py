"""Step times: ledgers that sum, limits that hold, and what each choice of a layout changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import ConfigError
from baton.catalogue.factors import load_factors
from baton.catalogue.hardware import load_accelerator
from baton.catalogue.model import load_model
from baton.perf.cost import Cost, shares, total_s
from baton.perf.layout import Layout
from baton.perf.step_time import Rank
from baton.perf.transfer import transfer_s

R1 = load_model("deepseek-r1")
WIDE = Layout(dp_size=16, ep_size=16, all2all="deepep_low_latency", has_eplb=True, num_redundant_experts=32)


def rank(layout: Layout = WIDE, accelerator: str = "h200", model: str = "deepseek-r1") -> Rank:
    return Rank(load_model(model), load_accelerator(accelerator), load_factors(accelerator), layout)


def named(costs: tuple[Cost, ...]) -> dict[str, float]:
    return {cost.name: cost.time_s for cost in costs}


def test_every_term_has_a_reason_and_a_limit_and_shares_sum_to_one() -> None:
    for costs in (rank().decode(128, 2000), rank().prefill(8192, 2000)):
        assert all(cost.reason and cost.limit for cost in costs)
        assert len({cost.name for cost in costs}) == len(costs)
        assert sum(share for _, share in shares(costs)) == pytest.approx(1)


@given(st.integers(1, 512), st.integers(16, 16_000))
def test_more_requests_or_longer_ones_never_take_less(batch: int, context: int) -> None:
    one = total_s(rank().decode(batch, context))
    assert total_s(rank().decode(batch + 16, context)) >= one
    assert total_s(rank().decode(batch, context + 512)) >= one


@given(st.integers(1, 512), st.integers(16, 16_000))
def test_no_step_is_faster_than_reading_what_it_must_read(batch: int, context: int) -> None:
    """Weights of a rank and its KV at the datasheet's bandwidth."""
    parts = R1.parts()
    weights = parts.attention + parts.shared_experts + parts.dense_mlp + 2 * parts.head
    kv = batch * context * R1.kv_bytes_per_token("bfloat16")
    floor_s = (weights + kv) / load_accelerator("h200").hbm_bytes_per_s.value
    assert total_s(rank().decode(batch, context)) > floor_s


@given(st.integers(256, 32_768), st.sampled_from([512, 2048, 8192]))
def test_no_prefill_is_faster_than_its_arithmetic_at_the_datasheets_peak(tokens: int, isl: int) -> None:
    """Two operations for each of 37 G active weights and token, FP8."""
    floor_s = 2 * 36e9 * tokens / load_accelerator("h200").dense_flops_per_s["fp8"].value
    assert total_s(rank().prefill(tokens, isl)) > floor_s


def test_more_ranks_hold_fewer_experts_and_read_less() -> None:
    few, many = (named(rank(replace(WIDE, dp_size=n, ep_size=n)).decode(64, 2000)) for n in (8, 32))
    assert many["routed experts, up"] < few["routed experts, up"] / 2
    assert many["all2all dispatch"] > few["all2all dispatch"]


def test_two_microbatches_hide_at_most_the_shorter_of_computing_and_sending() -> None:
    apart, together = (named(rank(replace(WIDE, has_overlap=on)).decode(256, 2000)) for on in (False, True))
    sent = apart["all2all dispatch"] + apart["all2all combine"]
    assert 0 < -together["hidden by two microbatches"] <= sent
    assert sum(together.values()) < sum(apart.values())


def test_balance_shortens_and_imbalance_lengthens_only_what_follows_from_routing() -> None:
    even, eplb, none = (
        named(rank(replace(WIDE, **kwargs)).prefill(8192, 2000))
        for kwargs in ({"is_balanced": True}, {"has_eplb": True}, {"has_eplb": False})
    )
    assert even["routed experts, up"] < eplb["routed experts, up"] < none["routed experts, up"]
    assert even["attention core"] == eplb["attention core"] == none["attention core"]


def test_drafts_gain_tokens_and_cost_their_layers() -> None:
    drafted = replace(WIDE, mtp_tokens=2, mtp_acceptance=0.5)
    assert drafted.tokens_a_step == pytest.approx(1 + 0.5 + 0.25)
    assert named(rank(drafted).decode(64, 2000))["draft layers"] > 0
    assert total_s(rank(drafted).decode(64, 2000)) > total_s(rank().decode(64, 2000))


def test_weights_in_host_memory_cost_their_way_back() -> None:
    offloaded = named(rank(replace(WIDE, offload_gib=10), "gb200").decode(64, 2000))
    assert offloaded["weights from host memory"] == pytest.approx(10 * 2**30 / 225e9)


def test_cached_tokens_are_not_computed_but_attended_to() -> None:
    cold, warm = (total_s(rank().prefill(1000, 4000, cached)) for cached in (0, 3000))
    assert warm > cold, "the same number of new tokens, with more before them"
    assert total_s(rank().prefill(1000, 4000, 3000)) < total_s(rank().prefill(4000, 4000))


@pytest.mark.parametrize("kind", ["allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "pplx"])
def test_every_exchange_costs_more_with_more_tokens(kind: str) -> None:
    few, many = (named(rank(replace(WIDE, all2all=kind)).decode(n, 2000)) for n in (16, 512))
    assert 0 < few["all2all dispatch"] < many["all2all dispatch"]
    assert 0 < few["all2all combine"] < many["all2all combine"]


def test_experts_on_one_rank_send_nothing_and_wait_for_nobody() -> None:
    alone = named(rank(Layout(experts_held=16)).decode(64, 2000))
    assert not {"all2all dispatch", "all-reduce", "waiting for the slowest rank, gaps"} & set(alone)


def test_dense_models_with_grouped_queries_have_no_experts_and_cut_by_tensor_parallelism() -> None:
    layouts: list[dict[str, Any]] = [{"tp_size": 1}, {"tp_size": 8}]
    one, eight = (
        named(rank(Layout(weight_dtype="bfloat16", **kwargs), model="qwen3-32b").decode(8, 1000)) for kwargs in layouts
    )
    assert not [name for name in one if "expert" in name or "all2all" in name]
    assert eight["dense layers, up"] < one["dense layers, up"] / 4
    assert eight["all-reduce"] > 0


def test_kv_is_handed_over_at_what_a_nic_reaches() -> None:
    """2,000 tokens of 70,272 bytes over 0.45 x 50 GB/s."""
    assert transfer_s(rank(), 2000) == pytest.approx(2e-3 + 2000 * 70272 / 22.5e9)


def test_an_accelerator_without_factors_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no factors for accelerator 'mi300x'"):
        load_factors("mi300x")


def test_an_exchange_that_is_not_known_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'carrier_pigeon' cannot be predicted; these can: deepep_low_latency"):
        Layout(all2all="carrier_pigeon")
