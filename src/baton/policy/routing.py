"""Which prefill rank and which decode rank serve a request, chosen together.

Pure: the caller says which pairs may serve; the router knows only what it has reserved. The cost of a pair is the
number of requests reserved on its two ranks; ties go to the longest unused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from baton.policy.rank import Pair, RankId


class Reservation:
    """A request's place on its two ranks."""

    __slots__ = ("holds_decode", "holds_prefill", "pair")

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.holds_prefill = self.holds_decode = True


class Router:
    """Reserves pairs; whatever a reservation still holds is given back by `release`."""

    def __init__(self) -> None:
        self._prefill_load: Counter[RankId] = Counter()
        self._decode_load: Counter[RankId] = Counter()
        self._last_used: dict[RankId, int] = {}
        self._turn = 0

    def reserve(self, pairs: Iterable[Pair]) -> Reservation | None:
        """The pair with the fewest requests on it, the longest unused among equals; None when `pairs` is empty."""
        chosen = min(pairs, key=self._cost, default=None)
        if chosen is None:
            return None
        self._turn += 1
        for rank in chosen:
            self._last_used[rank] = self._turn
        self._prefill_load[chosen.prefill] += 1
        self._decode_load[chosen.decode] += 1
        return Reservation(chosen)

    def prefilled(self, reservation: Reservation) -> None:
        """The prefill leg is over, however it ended; a second call does nothing."""
        if reservation.holds_prefill:
            reservation.holds_prefill = False
            self._prefill_load[reservation.pair.prefill] -= 1

    def release(self, reservation: Reservation) -> None:
        """The request is over; a second call does nothing."""
        self.prefilled(reservation)
        if reservation.holds_decode:
            reservation.holds_decode = False
            self._decode_load[reservation.pair.decode] -= 1

    def load(self, rank: RankId) -> int:
        """Requests reserved on a rank."""
        return self._prefill_load[rank] + self._decode_load[rank]

    def _cost(self, pair: Pair) -> tuple[int, int, int]:
        return (
            self._prefill_load[pair.prefill] + self._decode_load[pair.decode],
            self._last_used.get(pair.prefill, 0) + self._last_used.get(pair.decode, 0),
            self._last_used.get(pair.decode, 0),
        )
