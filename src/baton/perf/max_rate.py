"""The most requests a second that a prefill and a decode pool serve within limits on TTFT and TPOT."""

from __future__ import annotations

import math
from dataclasses import dataclass

from baton.perf.decode_queue import DecodePool, DecodeWait
from baton.perf.prefill_queue import PoolWait, PrefillPool

_HALVINGS = 14


@dataclass(frozen=True, slots=True)
class MaxRate:
    """The largest rate, requests a second, what both pools give at it, and what keeps it from being larger.

    binds: "prefill queue", "decode tpot", "decode KV room" or "decode batch limit"; with a rate of 0, "prefill step" or
    "decode step": a request that is alone is too slow.
    """

    rate_per_s: float
    binds: str
    prefill: PoolWait
    decode: DecodeWait


def max_rate(
    prefill: PrefillPool, decode: DecodePool, *, ttft_s: float = math.inf, tpot_s: float = math.inf,
    percentile: int = 50, handoff_s: float = 0.0,
) -> MaxRate:  # fmt: skip
    """Return the largest rate whose percentiles of TTFT and TPOT are within their limits.

    TTFT is the prefill pool's, `handoff_s` of KV transfer, and the admission to decode, each at the percentile and
    added, as if a request were slow in all of them: for high percentiles the rate errs to the low side. Raises
    ConfigError for a percentile other than 50, 90 and 99.
    """

    def too_slow(rate_per_s: float) -> str:
        front, back = prefill.at(rate_per_s), decode.at(rate_per_s)
        if front.ttft_s.at(percentile) + handoff_s > ttft_s or math.isinf(front.ttft_s.p50_s):
            return "prefill queue"
        if back.utilisation >= 1:
            return f"decode {back.limit}"
        if back.tpot_s.at(percentile) > tpot_s:
            return "decode tpot"
        admission_s = back.admission_s.at(percentile)
        if front.ttft_s.at(percentile) + handoff_s + admission_s <= ttft_s:
            return ""
        return f"decode {back.limit}" if admission_s > front.queue_s.at(percentile) else "prefill queue"

    low, high, binds = 0.0, min(prefill.saturation_per_s, decode.saturation_per_s), ""
    if at_rest := too_slow(high * 1e-6):
        binds = "prefill step" if at_rest == "prefill queue" else "decode step"
        return MaxRate(0.0, binds, prefill.at(0.0), decode.at(0.0))
    binds = too_slow(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if found := too_slow(middle):
            high, binds = middle, found
        else:
            low = middle
    return MaxRate(low, binds, prefill.at(low), decode.at(low))
