"""What one rank's steps took when they were rehearsed on a real GPU: conditions, and every point with its spread."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

_FOLDER = Path(__file__).parent / "calibration"


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One measured step: the median of `num_steps`, and its quartiles, seconds.

    decode: `batch` requests with `context` tokens of KV each, in the mean. prefill: `tokens` of prompts of `isl`.
    """

    role: Literal["prefill", "decode"]
    step_s: float
    p25_s: float
    p75_s: float
    num_steps: int
    batch: float = 0
    context: float = 0
    tokens: float = 0
    isl: float = 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of the GPU."""
        return (self.batch if self.role == "decode" else self.tokens) / self.step_s


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rehearsal: what ran on what, and its points.

    experts_held: routed experts of the rank, 1 / ep_size of the model's. has_all2all is False on one GPU: tokens go
    nowhere. flags: of the engine, where they are not the engine's own defaults.
    """

    model: str
    accelerator: str
    gpu: str
    engine: str
    engine_version: str
    torch_version: str
    date: str
    num_layers: int
    ep_size: int
    experts_held: int
    weight_dtype: str
    kv_dtype: str
    has_all2all: bool
    attention_backend: str
    moe_backend: str
    routing: str
    flags: tuple[str, ...]
    notes: tuple[str, ...] = ()
    points: tuple[Point, ...]


def load_calibrations() -> tuple[Calibration, ...]:
    """Read all rehearsals of the catalogue."""
    return tuple(msgspec.json.decode(path.read_bytes(), type=Calibration) for path in sorted(_FOLDER.glob("*.json")))
