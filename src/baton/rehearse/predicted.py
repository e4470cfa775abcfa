"""What the performance model says of a rehearsed point, to stand beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from baton.base.errors import ConfigError
from baton.catalogue.factors import load_factors
from baton.catalogue.hardware import load_accelerator
from baton.catalogue.model import load_model, name_of
from baton.perf.cost import total_s
from baton.perf.layout import Layout
from baton.perf.step_time import Rank
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role

Predict = Callable[[Mapping[str, Any]], float | None]


def predictor(deployment: Deployment, role: Role, experts_held: int) -> Predict:
    """Return what gives a point's seconds, or None for a model or an accelerator that cannot be predicted."""
    model, name = deployment.model, name_of(deployment.model.name)
    try:
        factors, gpu = load_factors(deployment.hardware.accelerator), load_accelerator(deployment.hardware.accelerator)
        layout = Layout(
            experts_held=experts_held,
            weight_dtype="bfloat16" if model.quantization == "none" else model.quantization,
            kv_dtype=model.kv_dtype or model.dtype,
        )
        rank = Rank(load_model(name), gpu, factors, layout)
    except ConfigError:
        return lambda _: None
    if role is Role.DECODE:
        return lambda point: total_s(rank.decode(point["batch"], point["mean_context"]))
    return lambda point: total_s(rank.prefill(point["tokens_a_step"], point["isl"]))
