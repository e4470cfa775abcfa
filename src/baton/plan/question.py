"""What is asked of a plan: a model, GPUs, a workload and its limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from baton.base.errors import ConfigError
from baton.catalogue.factors import Factors, load_factors
from baton.catalogue.hardware import Accelerator, accelerators, load_accelerator
from baton.catalogue.model import Model
from baton.perf.queueing import Lengths
from baton.perf.step_time import AS_PREDICTED, Rehearsed

_GPUS = re.compile(r"(\d+)\s*x\s*([a-z0-9-]+)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`isl`, `osl`: prompt and output tokens, means of a workload; `hit_rate`: share of prompt tokens that are cached.

    ttft_s, tpot_s: limits on the time to the first token (at `percentile`: 50, 90 or 99) and per output token, None for
    none. rate_per_s: requests a second that must be served; None to ask for the most that can be. mix: the lengths of
    single requests where they differ. arrival_cv2: squared coefficient of variation of the gaps between them.
    rehearsed: what was measured of this model on this GPU.
    """

    model: Model
    accelerator: str
    num_gpus: int
    isl: float
    osl: float
    ttft_s: float | None = None
    tpot_s: float | None = None
    percentile: int = 50
    mix: Lengths | None = None
    arrival_cv2: float = 1.0
    rate_per_s: float | None = None
    hit_rate: float = 0.0
    engine: str = "vllm"
    rehearsed: Rehearsed = AS_PREDICTED

    @property
    def gpu(self) -> Accelerator:
        """The accelerator's datasheet."""
        return load_accelerator(self.accelerator)

    @property
    def factors(self) -> Factors:
        """What its generation reaches of it."""
        return load_factors(self.accelerator)

    @property
    def lengths(self) -> Lengths:
        """Prompts and answers as the queues meet them."""
        return self.mix or Lengths.fixed(self.isl, self.osl)

    @property
    def context(self) -> float:
        """Tokens of KV that a request has in the middle of its decode."""
        return self.isl + self.osl / 2


def read_gpus(text: str) -> tuple[int, str]:
    """Read "32xH200" as 32 and the catalogue's name; raises ConfigError with what there is."""
    match = _GPUS.fullmatch(text.strip())
    name = match.group(2).lower() if match else ""
    found = next((known for known in accelerators() if known == name or known.split("-")[0] == name), None)
    if match is None or found is None or int(match.group(1)) < 1:
        raise ConfigError(
            f"--gpus {text!r}: give a number and a GPU such as 32xH200; GPUs are {', '.join(accelerators())}"
        )
    return int(match.group(1)), found


def read_duration_s(option: str, text: str) -> float:
    """Read "2s" or "50ms" in seconds (a bare number is seconds); raises ConfigError naming the option."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match.group(1)) <= 0:
        raise ConfigError(f"{option} {text!r}: give a duration above 0 such as 50ms or 2s")
    return float(match.group(1)) * (1e-3 if match.group(2) == "ms" else 1.0)
