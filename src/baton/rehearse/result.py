"""What a rehearsal found: its points as a calibration that the performance model is fitted with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from baton.catalogue.calibration import Calibration, Point
from baton.recipe.deployment import Deployment
from baton.rehearse.one_rank import OneRank


def calibration(
    deployment: Deployment,
    rank: OneRank,
    events: Sequence[dict[str, Any]],
    log: str,
    *,
    date: str,
    routing: str,
    num_layers: int,
) -> Calibration | None:
    """Return the measured points and their conditions, kernels as flags or log name them; None if there are none."""
    found = {event["event"]: event for event in events}
    points = tuple(_point(event) for event in events if event["event"] == "point")
    if not points:
        return None
    starting = found["starting"]
    return Calibration(
        model=deployment.model.name,
        accelerator=deployment.hardware.accelerator,
        gpu=starting["gpu"],
        engine="vllm",
        engine_version=starting["vllm"],
        torch_version=starting["torch"],
        date=date,
        num_layers=num_layers,
        ep_size=rank.ep_size,
        experts_held=rank.experts_held,
        weight_dtype=deployment.model.dtype
        if deployment.model.quantization == "none"
        else deployment.model.quantization,
        kv_dtype=deployment.model.kv_dtype or deployment.model.dtype,
        has_all2all=False,
        attention_backend=_asked(rank, "--attention-backend") or _named(r"Using (\w+) attention backend", log),
        moe_backend=_named(r"Using (\w+) \w+ MoE backend", log),
        routing=routing,
        flags=rank.argv[2:],
        points=points,
    )


def _asked(rank: OneRank, flag: str) -> str:
    return rank.argv[rank.argv.index(flag) + 1] if flag in rank.argv else ""


def _named(pattern: str, log: str) -> str:
    match = re.search(pattern, log)
    return match.group(1) if match else "not in the log"


def _point(event: dict[str, Any]) -> Point:
    times = {"step_s": event["step_s"], "p25_s": min(event["p25_s"], event["step_s"]), "p75_s": event["p75_s"]}
    if event["role"] == "decode":
        return Point(role="decode", **times, num_steps=event["n"], batch=event["batch"], context=event["mean_context"])
    return Point(role="prefill", **times, num_steps=event["n"], tokens=event["tokens_a_step"], isl=event["isl"])
