"""Names of what requests are routed to."""

from __future__ import annotations

from typing import NamedTuple


class RankId(NamedTuple):
    """One data-parallel rank of one worker: the unit that requests are routed to."""

    worker: str
    dp_rank: int

    def __str__(self) -> str:
        return f"{self.worker}/{self.dp_rank}"


class Pair(NamedTuple):
    """The two ranks a request runs on."""

    prefill: RankId
    decode: RankId

    def __str__(self) -> str:
        return f"{self.prefill}->{self.decode}"
