from __future__ import annotations

from dataclasses import replace

import pytest

from baton.catalogue.calibration import load_calibrations
from baton.catalogue.factors import load_factors
from baton.catalogue.hardware import load_accelerator
from baton.catalogue.model import load_model
from baton.perf.cost import total_s
from baton.perf.layout import Layout
from baton.perf.rehearsed import compare, rehearsed
from baton.perf.step_time import AS_PREDICTED, Rank, Rehearsed

FOUND = load_calibrations()[0]
MODEL, GPU, FACTORS = load_model("deepseek-r1"), load_accelerator("h200"), load_factors("h200")
ONE = Rank(MODEL, GPU, FACTORS, Layout(experts_held=16, weight_dtype="fp8", kv_dtype="bfloat16"))
WIDE = replace(ONE, layout=Layout(dp_size=16, ep_size=16, all2all="deepep_low_latency", has_eplb=True))


def test_a_point_stands_beside_its_prediction() -> None:
    compared = compare(FOUND, MODEL, GPU, FACTORS)
    assert [one.point for one in compared] == list(FOUND.points)
    assert all(0.9 < one.ratio < 1.1 for one in compared)  # the catalogue's are the ones the model is fitted with


def test_the_median_of_a_roles_ratios_is_what_was_rehearsed() -> None:
    compared = compare(FOUND, MODEL, GPU, FACTORS)
    longer = [one._replace(predicted_s=one.point.step_s / 1.5) for one in compared if one.point.role == "decode"]
    assert rehearsed(longer) == pytest.approx((1.5, 1.0))
    assert rehearsed([]) == AS_PREDICTED


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_rank_alone_takes_just_as_much_longer_as_rehearsed(factor: float) -> None:
    slow = replace(ONE, rehearsed=Rehearsed(decode=factor, prefill=factor))
    assert total_s(slow.decode(64, 2000)) == pytest.approx(factor * total_s(ONE.decode(64, 2000)))
    assert total_s(slow.prefill(8192, 2000)) == pytest.approx(factor * total_s(ONE.prefill(8192, 2000)))


def test_what_ranks_send_is_not_longer_for_it() -> None:
    slow = replace(WIDE, rehearsed=Rehearsed(decode=1.5))
    sent, sent_slowly = (
        [cost.time_s for cost in rank.decode(64, 2000) if cost.limit == "network"] for rank in (WIDE, slow)
    )
    assert sent == sent_slowly != []
    by_name = {cost.name: cost.time_s for cost in slow.decode(64, 2000)}
    assert by_name["longer as rehearsed"] > 0
    assert slow.prefill(8192, 2000) == WIDE.prefill(8192, 2000)
