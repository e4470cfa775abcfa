"""Published measurements that the performance model is held against, and which of them it was fitted with.

The split was written down before anything was fitted, and `rates/deepseek.json` says of each fitted point why it is
one: fitted are one prefill and one decode rate of an engine and generation, one pair that differs in expert balance
alone, and one or two columns of each kernel table; every other comparable point is held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

_FOLDER = Path(__file__).parent / "rates"


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One published figure.

    kind: "prefill" (prompt tokens a second a prefill GPU), "decode" (output tokens a second a decode GPU), "mixed"
    (output tokens a second a GPU that does both), "matrix", "moe", "prefill attention" and "mla" (seconds of one
    kernel). use: "fit", "held out", or "not comparable" (`why` says what is missing). read: how the figure was read.
    batch: requests a rank; 0 where as many as KV has room for. tokens: of a prefill step or a kernel, a rank.
    """

    name: str
    kind: Literal["prefill", "decode", "mixed", "matrix", "moe", "prefill attention", "mla"]
    use: Literal["fit", "held out", "not comparable"]
    why: str = ""
    value: float
    accelerator: str
    engine: str = "vllm"
    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1
    weight_dtype: str = "fp8"
    attention_dtype: str = ""
    kv_dtype: str = "bfloat16"
    all2all: str = "none"
    num_redundant_experts: int = 0
    has_overlap: bool = False
    has_eplb: bool = False
    is_balanced: bool = False
    mtp_tokens: int = 0
    mtp_acceptance: float = 0.0
    batch: float = 0
    isl: float = 0
    osl: float = 0
    tokens: float = 0
    into: int = 0
    out: int = 0
    conditions: str = ""
    source: str
    read: Literal["text", "figure", "secondary", "derived"]

    @property
    def context(self) -> float:
        """Tokens of KV in the middle of an answer."""
        return self.isl + self.osl / 2


def load_rates() -> tuple[Rate, ...]:
    """Read all points, in the order of their files."""
    return tuple(
        rate
        for path in sorted(_FOLDER.glob("*.json"))
        for rate in msgspec.json.decode(path.read_bytes(), type=list[Rate])
    )
