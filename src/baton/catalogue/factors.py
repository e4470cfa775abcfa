"""What a generation of GPUs reaches of its datasheet: the few numbers that the performance model was fitted with.

Everything else in that model is arithmetic on shapes and datasheets. `benchmarks/performance_model.py --fit` writes the
fitted ones from the points that catalogue/rates says are for fitting, and from what `baton rehearse` measured.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from baton.base.errors import ConfigError
from baton.catalogue import figures
from baton.catalogue.figures import Figure

_FOLDER = Path(__file__).parent / "factors"


class Factors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calibration of one generation.

    hbm, nvlink, nic: share of the stated bandwidth that large transfers reach. gemm, grouped_gemm: share of the dense
    peak by data type (bf16, fp8, fp4). mla, prefill_attention: share of the BF16 peak in the attention core.
    kernel_s: what one kernel costs beside its work, captured in a CUDA graph. small_kernels: launches a layer beside
    matrix products, attention and all2all. step_s, request_s: the host's part of a step, and of a request in it, that
    the GPU waits for. overlap: share of the shorter of computing and communicating that two microbatches hide.
    imbalance, imbalance_eplb: by how much the busiest rank's experts exceed the mean at 32 ranks, without and with load
    balancing. all2all_s: fixed cost of one dispatch or combine. system: by what a whole pool of an engine takes longer
    than its kernels and transfers (waiting for the slowest rank, gaps), by engine ("vllm", "sglang", "trtllm").
    spread: standard deviation of the logarithm of measured over predicted, by role, over points it was not fitted to.
    """

    accelerators: tuple[str, ...]
    hbm: Figure
    nvlink: Figure
    nic: Figure
    gemm: dict[str, Figure]
    grouped_gemm: dict[str, Figure]
    mla: Figure
    prefill_attention: Figure
    kernel_s: Figure
    small_kernels: Figure
    step_s: Figure
    request_s: Figure
    overlap: Figure
    imbalance: Figure
    imbalance_eplb: Figure
    all2all_s: Figure
    system: dict[str, Figure]
    spread: dict[str, Figure]


def load_factors(accelerator: str) -> Factors:
    """Read the factors of an accelerator's generation; raises ConfigError if there are none for it."""
    for name in figures.names(_FOLDER):
        found = figures.read(_FOLDER, name, Factors)
        if accelerator in found.accelerators:
            return found
    raise ConfigError(
        f"the performance model has no factors for accelerator {accelerator!r}: plan for a Hopper or Blackwell GPU"
    )
