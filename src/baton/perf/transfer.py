"""How long a prompt's KV takes from a prefill rank to a decode rank."""

from __future__ import annotations

from baton.perf.step_time import Rank

_SHARE = 0.45
"""of the NIC that NIXL over UCX reached: 4 GB in 362 ms over 200 Gb/s. Source: UCCL, comparison of KV transfer"""
_START_S = 2e-3
"""the decode rank's look-up of the remote blocks, and the notice that they have come"""


def transfer_s(rank: Rank, tokens: float) -> float:
    """Return the seconds for the KV of `tokens` tokens over the NICs of one rank."""
    per_token = rank.model.kv_bytes_per_token(rank.layout.kv_dtype)
    rate = rank.gpu.nic_bytes_per_s.value * rank.gpu.nics_per_gpu.value * rank.layout.tp_size * _SHARE
    return _START_S + tokens * per_token / rate
