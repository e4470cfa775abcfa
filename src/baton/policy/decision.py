"""Why a request went where it did: what the router predicted for the pair it chose, in seconds."""

from __future__ import annotations

from typing import NamedTuple

from baton.policy.rank import Pair


class Decision(NamedTuple):
    """The chosen pair, the terms of its cost, and the best pair beside it; what was compared is `total_s`.

    queue_wait_s    until the prefill rank gets to this request
    prefill_s       computing what it does not hold, there; where `local`, on the decode rank
    transfer_s      the KV that the decode rank does not hold
    slot_wait_s     how long the decode rank then still has no room
    first_step_s    decode's first step
    decode_s        all further steps
    delay_s         what it costs the others: those behind it on the prefill rank, those beside it on the decode rank
    affinity_s      taken off because its session was served by this pair last
    """

    pair: Pair
    local: bool
    queue_wait_s: float
    prefill_s: float
    transfer_s: float
    slot_wait_s: float
    first_step_s: float
    decode_s: float
    delay_s: float
    affinity_s: float
    num_prompt_tokens: int
    num_prefill_hit_tokens: int
    num_decode_hit_tokens: int
    runner_up: Pair | None
    runner_up_s: float

    @property
    def ttft_s(self) -> float:
        """Predicted time to the first token."""
        return self.queue_wait_s + self.prefill_s + self.transfer_s + self.slot_wait_s + self.first_step_s

    @property
    def total_s(self) -> float:
        """What the pairs were compared by."""
        return self.ttft_s + self.decode_s + self.delay_s - self.affinity_s

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "prefill": None if self.local else str(self.pair.prefill),
            "decode": str(self.pair.decode),
            **{name: round(getattr(self, name), 6) for name in _TERMS},
            "ttft_s": round(self.ttft_s, 6),
            "total_s": round(self.total_s, 6),
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_prefill_hit_tokens": self.num_prefill_hit_tokens,
            "num_decode_hit_tokens": self.num_decode_hit_tokens,
            "runner_up": str(self.runner_up) if self.runner_up else None,
            "runner_up_s": round(self.runner_up_s, 6),
        }

    def text(self) -> str:
        """For a header: one line."""
        where = f"local->{self.pair.decode}" if self.local else str(self.pair)
        terms = ", ".join(f"{name}={getattr(self, name):.6f}" for name in _TERMS)
        hits = f"hit_tokens={self.num_prefill_hit_tokens}/{self.num_prompt_tokens}"
        beside = f", runner_up={self.runner_up} at {self.runner_up_s:.6f}" if self.runner_up else ""
        return f"{where}; total_s={self.total_s:.6f}, {terms}, {hits}{beside}"


_TERMS = (
    "queue_wait_s", "prefill_s", "transfer_s", "slot_wait_s", "first_step_s", "decode_s", "delay_s", "affinity_s",
)  # fmt: skip
