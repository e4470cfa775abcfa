"""How one replica of a role is laid out over GPUs: all that a step's time depends on beside model, GPU and batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from baton.base.errors import ConfigError

DEEPEP_LOW_LATENCY, DEEPEP_HIGH_THROUGHPUT = "deepep_low_latency", "deepep_high_throughput"
FLASHINFER = ("flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided", "flashinfer_all2allv")
ALLGATHER = ("allgather_reducescatter", "naive")
ALL2ALL = (DEEPEP_LOW_LATENCY, DEEPEP_HIGH_THROUGHPUT, *FLASHINFER, *ALLGATHER, "pplx", "none")
"""vLLM's names; "none" leaves the exchange out, as one rank alone does in a rehearsal"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Parallel sizes, number formats and options of one replica.

    weight_dtype: of the large matrices ("bfloat16", "fp8", "nvfp4"; under nvfp4 attention's are those of
    nvidia/DeepSeek-R1-FP4, kept in bfloat16 but for `attention_dtype`). ep_size: 1 without expert parallelism.
    experts_held: routed experts of one rank if that does not follow from ep_size (a rehearsal). is_balanced: routing
    was made even (a test). has_overlap: two microbatches, one computing while the other communicates (DBO, TBO).
    mtp_tokens: drafted a step; mtp_acceptance: the
    share of them accepted. Raises ConfigError for an unknown all2all backend.
    """

    dp_size: int = 1
    tp_size: int = 1
    ep_size: int = 1
    weight_dtype: str = "fp8"
    attention_dtype: str = ""
    kv_dtype: str = "bfloat16"
    all2all: str = "none"
    num_redundant_experts: int = 0
    experts_held: int = 0
    has_eplb: bool = False
    is_balanced: bool = False
    has_overlap: bool = False
    mtp_tokens: int = 0
    mtp_acceptance: float = 0.0
    offload_gib: float = 0.0

    def __post_init__(self) -> None:
        if self.all2all not in ALL2ALL:
            raise ConfigError(f"all2all backend {self.all2all!r} cannot be predicted; these can: {', '.join(ALL2ALL)}")

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return self.dp_size * self.tp_size

    @property
    def of_attention(self) -> str:
        """Number format of the attention's projections."""
        return self.attention_dtype or ("bfloat16" if self.weight_dtype == "nvfp4" else self.weight_dtype)

    @property
    def tokens_a_step(self) -> float:
        """Output tokens one request gains in a decode step: its own and the accepted drafts, one after the other."""
        return 1 + sum(self.mtp_acceptance**n for n in range(1, self.mtp_tokens + 1))

    @property
    def spread_log2(self) -> float:
        """How far experts are spread, 0 on one rank and 1 on 32: what imbalance grows with."""
        return math.log2(self.ep_size) / 5
