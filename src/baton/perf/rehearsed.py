"""What rehearsals on one GPU say of predicted steps: how much longer they are measured to be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from baton.catalogue.calibration import Calibration, Point
from baton.catalogue.factors import Factors
from baton.catalogue.hardware import Accelerator
from baton.catalogue.model import Model
from baton.perf.cost import total_s
from baton.perf.layout import Layout
from baton.perf.step_time import Rank, Rehearsed


class Compared(NamedTuple):
    """A rehearsed point beside its prediction."""

    point: Point
    predicted_s: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.point.step_s / self.predicted_s


def compare(found: Calibration, model: Model, gpu: Accelerator, factors: Factors) -> list[Compared]:
    """Return every point of a rehearsal with what the model predicts for it: one rank that sends nothing."""
    layout = Layout(experts_held=found.experts_held, weight_dtype=found.weight_dtype, kv_dtype=found.kv_dtype)
    rank = Rank(model, gpu, factors, layout, found.engine)
    return [
        Compared(p, total_s(rank.decode(p.batch, p.context) if p.role == "decode" else rank.prefill(p.tokens, p.isl)))
        for p in found.points
    ]


def ratios(compared: Sequence[Compared]) -> dict[str, list[float]]:
    """Return measured over predicted of each role's points, for the roles that have some."""
    by_role: dict[str, list[float]] = {}
    for one in compared:
        by_role.setdefault(one.point.role, []).append(one.ratio)
    return by_role


def rehearsed(compared: Sequence[Compared]) -> Rehearsed:
    """Return by how much the steps of each role are longer than predicted, in the median; 1 where none was measured."""
    return Rehearsed(**{role: median(of_role) for role, of_role in ratios(compared).items()})
