"""The model beside what was measured: published pools it was not fitted to, and our own rehearsals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from baton.catalogue.calibration import load_calibrations
from baton.catalogue.hardware import accelerators
from baton.catalogue.rates import load_rates

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def output() -> str:
    """What the benchmark prints."""
    command = [sys.executable, "benchmarks/performance_model.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def medians(text: str) -> dict[str, tuple[int, float]]:
    found = re.findall(r"^([a-z ]+): (\d+) points, median absolute error ([\d.]+)%", text, re.MULTILINE)
    return {use: (int(count), float(error)) for use, count, error in found}


def test_at_least_twenty_published_pools_that_were_not_fitted_are_met_within_15_percent(output: str) -> None:
    pools = medians(output.split("## Kernels", maxsplit=1)[0])["held out"]
    assert pools[0] >= 20
    assert pools[1] <= 15


def test_every_rehearsed_step_is_met(output: str) -> None:
    rehearsed = medians(output.split("## Rehearsed")[1])
    assert rehearsed["decode"][1] <= 5
    assert rehearsed["prefill"][1] <= 5


def test_the_document_has_what_the_benchmark_prints(output: str) -> None:
    text = (ROOT / "docs" / "performance_model.md").read_text(encoding="utf-8")
    assert output.strip() in text, "run python benchmarks/performance_model.py and put its tables into the document"


def test_every_published_point_says_what_it_is() -> None:
    rates = load_rates()
    assert len({rate.name for rate in rates}) == len(rates)
    for rate in rates:
        assert rate.source
        assert rate.accelerator in accelerators()
        assert bool(rate.why) == (rate.use != "held out"), f"{rate.name}: why it is fitted or cannot be compared"


def test_rehearsals_have_conditions_and_points_with_spread() -> None:
    found = load_calibrations()
    assert {c.ep_size for c in found} == {8, 16, 32}
    for calibration in found:
        assert calibration.experts_held * calibration.ep_size == 256
        for point in calibration.points:
            assert 0 < point.p25_s <= point.step_s <= point.p75_s
            assert point.tokens_per_s > 0
