"""Which prefill rank and which decode rank serve a request, chosen together, every cost in predicted seconds.

For every pair that may serve:

    queue wait + prefill of what the rank does not hold    FCFS: the work reserved on the prefill rank before this
    transfer of what the decode rank does not hold
    wait for room on the decode rank                       it passes while the prompt is prefilled: only the rest counts
    first step, further steps                              at the batch this request makes
    delay of others                                        whoever will queue behind it, whoever decodes beside it
    less the affinity bonus                                where its session was served last

The lowest sum wins; among equals the ranks longest unused. The wait for room is why the two ranks are chosen together:
a decode rank that is full for another second costs nothing to a prompt that takes as long.

Pure: the caller says which pairs may serve and what time it is; the router knows only what it has been told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from baton.policy.decision import Decision
from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair, RankId
from baton.policy.rank_load import DecodeLoad, PrefillLoad
from baton.policy.step_times import StepTimes

_EQUAL_S = 1e-7
"""Costs closer than this are equal: no clock is as exact as that."""
_MAX_SESSIONS = 1 << 16
_LEARN_EVERY_S = 0.02
"""A busy router does not learn from every request: fifty samples a second say as much."""
_RATE_HALF_LIFE_S = 5.0
_LN_2 = 0.6931471805599453
_FIRST_OSL = 256.0
_OSL_WEIGHT = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What routing knows of a request.

    num_prompt_tokens   exact or estimated
    max_output_tokens   what the client allows; None = it does not say
    chain               hashes of the prompt's whole blocks (policy/prompt.py), of `tokens_per_block` tokens each
    session             requests of one session prefer the pair that served it last
    decode_alone        prefill can't take part
    """

    num_prompt_tokens: int
    max_output_tokens: int | None = None
    chain: Sequence[int] = ()
    tokens_per_block: float = 0.0
    session: str = ""
    decode_alone: bool = False


class Reservation:
    """A request's place on its two ranks; `local`: decode computes the prompt itself, prefill has no part."""

    __slots__ = ("ask", "began_s", "decision", "first_byte_s", "first_kv_tokens", "first_running", "holds_decode",
                 "holds_prefill", "kv_tokens", "local", "pair", "prefilled_s")  # fmt: skip

    def __init__(self, ask: Ask, decision: Decision, now_s: float, kv_tokens: float) -> None:
        self.ask = ask
        self.decision = decision
        self.pair = decision.pair
        self.local = decision.local
        self.holds_prefill = not decision.local
        self.holds_decode = True
        self.kv_tokens = kv_tokens
        self.began_s = now_s
        self.prefilled_s = self.first_byte_s = 0.0
        self.first_running = self.first_kv_tokens = 0.0


_PrefillTerms: TypeAlias = tuple[float, float, float, int, int]
"""queue wait, prefill, delay of others; when last used; hit tokens"""
_DecodeTerms: TypeAlias = tuple[float, float, float, int, float, float, float, float, float, int]
"""transfer, wait for room, all that follows; when last used; prefill here, its delay of others; what follows, apart:
first step, further steps, delay of others; hit tokens"""


class _Best:
    """The cheapest pair of those considered, the longest unused among equals, and the cost of the next."""

    __slots__ = ("cost_s", "pair", "prefill_terms", "second", "second_s", "used")

    def __init__(self) -> None:
        self.cost_s = self.second_s = inf
        self.used = 0
        self.pair: Pair | None = None
        self.second: Pair | None = None
        self.prefill_terms: _PrefillTerms | None = None

    @property
    def local(self) -> bool:
        """Whether decode computes the prompt itself."""
        return self.prefill_terms is None

    def consider(
        self, cost_s: float, used: int, prefill: RankId, decode: RankId, prefill_terms: _PrefillTerms | None
    ) -> None:
        """One more; without `prefill_terms` decode computes the prompt itself."""
        if cost_s < self.cost_s - _EQUAL_S or (cost_s <= self.cost_s + _EQUAL_S and used < self.used):
            self.second, self.second_s = self.pair, self.cost_s
            self.pair, self.cost_s, self.used = Pair(prefill, decode), cost_s, used
            self.prefill_terms = prefill_terms
        elif cost_s < self.second_s:
            self.second, self.second_s = Pair(prefill, decode), cost_s


class Router:
    """Reserves pairs; whatever a reservation still holds is given back by `release`.

    index             which rank holds which blocks
    times             what ranks take
    affinity_s        what it is worth to serve a session where it was served last
    prefill_locally   whether decode may compute a prompt itself where that is predicted to be faster
    """

    def __init__(
        self, *, index: PrefixIndex, times: StepTimes, affinity_s: float = 0.02, prefill_locally: bool = False
    ) -> None:
        self.index = index
        self.times = times
        self.affinity_s = affinity_s
        self.prefill_locally = prefill_locally
        self._prefill: dict[RankId, PrefillLoad] = {}
        self._decode: dict[RankId, DecodeLoad] = {}
        self._pairs: dict[RankId, dict[RankId, None]] = {}
        self._decode_ranks: tuple[RankId, ...] = ()
        self._sessions: OrderedDict[str, Pair] = OrderedDict()
        self._osl = _FIRST_OSL
        self._turn = 0
        self._arrivals_per_s = 0.0
        self._arrived_s = -inf
        self._learnt_s = {"prefill": -inf, "decode": -inf, "transfer": -inf}

    # -- what may serve -------------------------------------------------------------------------------------------

    def set_pairs(self, pairs: Iterable[Pair]) -> None:
        """Say which pairs may serve from now on."""
        by_prefill: dict[RankId, list[RankId]] = {}
        for pair in pairs:
            by_prefill.setdefault(pair.prefill, []).append(pair.decode)
        self._pairs = {prefill: dict.fromkeys(decodes) for prefill, decodes in by_prefill.items()}
        self._decode_ranks = tuple(dict.fromkeys(rank for decodes in self._pairs.values() for rank in decodes))
        for rank in self._pairs:
            self._prefill.setdefault(rank, PrefillLoad())
        for rank in self._decode_ranks:
            self._decode.setdefault(rank, DecodeLoad())

    def set_limits(self, rank: RankId, max_num_seqs: int | None, max_kv_tokens: int | None) -> None:
        """Say how many requests and how many tokens of KV a decode rank has room for; None = unknown."""
        load = self._decode.setdefault(rank, DecodeLoad())
        load.max_num_seqs = max_num_seqs or inf
        load.max_kv_tokens = max_kv_tokens or inf

    def lost(self, rank: RankId) -> None:
        """A rank's process is gone, and its cache with it; what is reserved on it is given back by its requests."""
        self.index.cleared(rank)

    # -- choosing -------------------------------------------------------------------------------------------------

    def reserve(self, ask: Ask, now_s: float, avoid: Sequence[str] = ()) -> Reservation | None:
        """Choose and reserve; None when no pair may serve. `avoid` names workers that have just failed this request."""
        self._arrived(now_s)
        decision = self._choose(ask, now_s, avoid)
        if decision is None:
            return None
        pair = decision.pair
        osl = self._expected_osl(ask)
        reservation = Reservation(ask, decision, now_s, ask.num_prompt_tokens + osl / 2)
        self._turn += 1
        prefill, decode = self._prefill[pair.prefill], self._decode[pair.decode]
        decode.last_turn = self._turn
        decode.join(reservation.kv_tokens)
        if not decision.local:
            prefill.last_turn = self._turn
            prefill.join(decision.prefill_s, now_s)
        if ask.chain and not decision.local:
            self.index.stored(pair.prefill, ask.chain)  # by the time another of its kind is computed there, it is
        if ask.session:
            self._remember(ask.session, pair)
        return reservation

    def predicted_wait_s(self, now_s: float, enough_s: float = 0.0) -> float:
        """How long a request that came now would wait before anything is done for it: for prefill, or for room.

        enough_s   the exact wait doesn't matter if it is no longer than this
        """
        waits_s = (self._prefill[rank].wait_s(now_s) for rank in self._pairs)
        slots_s = (self._slot_s(self._decode[rank], 1.0) for rank in self._decode_ranks)
        return max(_least(waits_s, enough_s), _least(slots_s, enough_s))

    def load(self, rank: RankId) -> int:
        """Requests reserved on a rank."""
        prefill, decode = self._prefill.get(rank), self._decode.get(rank)
        return (prefill.num_requests if prefill else 0) + (decode.num_requests if decode else 0)

    def _choose(self, ask: Ask, now_s: float, avoid: Sequence[str]) -> Decision | None:
        matched = self.index.matched(ask.chain) if ask.chain else {}
        decodes = [
            (rank, self._decode_terms(rank, ask, matched, now_s))
            for rank in self._decode_ranks
            if rank.worker not in avoid
        ]
        prefills = [rank for rank in self._pairs if rank.worker not in avoid]
        preferred = self._sessions.get(ask.session) if ask.session else None
        best = _Best()
        if not ask.decode_alone:
            self._choose_two(best, ask, prefills, decodes, matched, preferred, now_s)
        if ask.decode_alone or self.prefill_locally:
            self._choose_one(best, prefills, decodes)
        if best.pair is None:
            return None
        bonus_s = self.affinity_s if best.pair == preferred and not best.local else 0.0
        return _decision(ask, best, dict(decodes)[best.pair.decode], bonus_s)

    def _choose_two(
        self,
        best: _Best,
        ask: Ask,
        prefills: Sequence[RankId],
        decodes: Sequence[tuple[RankId, _DecodeTerms]],
        matched: Mapping[RankId, int],
        preferred: Pair | None,
        now_s: float,
    ) -> None:
        """Consider every pair that can still be among the best two.

        Whatever prefill it follows, a decode rank costs at least its transfer and all that comes after; by that the
        decode ranks are tried, and the first that can't win with a prefill rank ends that prefill rank's turn.
        """
        tried = sorted((terms[0] + terms[2], terms[3], rank, terms) for rank, terms in decodes)
        for prefill in prefills:
            prefill_terms = self._prefill_terms(prefill, ask, matched, now_s)
            wait_s, work_s, delay_s, turn, _ = prefill_terms
            partners, ready_s, margin_s = self._pairs[prefill], wait_s + work_s, _EQUAL_S
            bonus_s = self.affinity_s if preferred is not None and preferred.prefill == prefill else 0.0
            for rest_s, decode_turn, decode, terms in tried:
                least_s = ready_s + delay_s + rest_s - bonus_s
                if least_s > best.second_s + margin_s:
                    break
                if decode not in partners:
                    continue
                margin_s = -_EQUAL_S  # of equal ones, the first was the longest unused
                cost_s = max(terms[1], ready_s + terms[0]) + terms[2] + delay_s
                if bonus_s and decode == preferred.decode:  # type: ignore[union-attr]
                    cost_s -= bonus_s
                best.consider(cost_s, turn + decode_turn, prefill, decode, prefill_terms)

    def _choose_one(
        self, best: _Best, prefills: Sequence[RankId], decodes: Sequence[tuple[RankId, _DecodeTerms]]
    ) -> None:
        """Consider every decode rank by itself, beside whichever prefill rank it is paired with."""
        for decode, (_, slot_s, rest_s, turn, local_s, local_delay_s, *_) in decodes:
            prefill = next((rank for rank in prefills if decode in self._pairs[rank]), None)
            if prefill is not None:
                best.consider(slot_s + local_s + rest_s + local_delay_s, turn, prefill, decode, None)

    def _prefill_terms(self, rank: RankId, ask: Ask, matched: Mapping[RankId, int], now_s: float) -> _PrefillTerms:
        load = self._prefill[rank]
        num_tokens = ask.num_prompt_tokens
        # At least one token is computed, or there would be no first output token.
        num_hit = min(matched[rank] * ask.tokens_per_block, num_tokens - 1) if rank in matched else 0
        work_s = self.times.prefill_s(num_tokens - num_hit, num_hit) * load.slowness.at(now_s)
        wait_s = load.wait_s(now_s)
        # Those who will come while this one is in the rank's queue wait longer by what it takes.
        num_behind = self._arrivals_per_s / len(self._pairs) * (wait_s + work_s)
        return wait_s, work_s, num_behind * work_s, load.last_turn, int(num_hit)

    def _decode_terms(self, rank: RankId, ask: Ask, matched: Mapping[RankId, int], now_s: float) -> _DecodeTerms:
        load, times, osl = self._decode[rank], self.times, self._expected_osl(ask)
        num_tokens, slow = ask.num_prompt_tokens, load.slowness.at(now_s)
        num_hit = min(matched[rank] * ask.tokens_per_block, num_tokens - 1) if rank in matched else 0
        kv_tokens = num_tokens + osl / 2
        alone_s = times.step_s(load.num_requests, load.kv_tokens)
        step_s = times.step_s(load.num_requests + 1, load.kv_tokens + kv_tokens)
        steps_s = (osl - 1) * step_s * slow
        delay_s = load.num_requests * (step_s - alone_s) * slow * osl
        local_s = local_delay_s = 0.0
        if ask.decode_alone or self.prefill_locally:
            local_s = times.local_prefill_s(num_tokens - num_hit, num_hit) * slow
            local_delay_s = load.num_requests * local_s  # its chunks stand between the others' steps
        return (
            times.transfer_s(num_tokens - num_hit),
            self._slot_s(load, kv_tokens),
            step_s * slow + steps_s + delay_s,
            load.last_turn,
            local_s,
            local_delay_s,
            step_s * slow,
            steps_s,
            delay_s,
            int(num_hit),
        )

    def _slot_s(self, load: DecodeLoad, kv_tokens: float) -> float:
        """Until a decode rank has room: those that must end do so one after another, evenly."""
        over = load.num_over(kv_tokens)
        if not over:
            return 0.0
        return over * self._osl * self.times.step_s(load.num_requests, load.kv_tokens) / load.num_requests

    def _expected_osl(self, ask: Ask) -> float:
        return self._osl if ask.max_output_tokens is None else max(1.0, min(self._osl, ask.max_output_tokens))

    def _remember(self, session: str, pair: Pair) -> None:
        self._sessions[session] = pair
        self._sessions.move_to_end(session)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _arrived(self, now_s: float) -> None:
        """Keep the rate of arrivals: an average over the last seconds, exponentially weighted."""
        gap_s = max(0.0, now_s - self._arrived_s)
        left = 0.5 ** (gap_s / _RATE_HALF_LIFE_S)
        self._arrivals_per_s = self._arrivals_per_s * left + _LN_2 / _RATE_HALF_LIFE_S
        self._arrived_s = now_s

    # -- what becomes of it ---------------------------------------------------------------------------------------

    def prefilled(
        self,
        reservation: Reservation,
        now_s: float,
        num_prompt_tokens: int | None = None,
        num_cached_tokens: int | None = None,
    ) -> None:
        """The prefill leg has been answered; what the engine says of the prompt is believed."""
        if not reservation.holds_prefill:
            return
        began_s = max(self._leave_prefill(reservation, now_s), reservation.began_s)
        reservation.prefilled_s = now_s
        num_tokens = num_prompt_tokens or reservation.ask.num_prompt_tokens
        num_cached = reservation.decision.num_prefill_hit_tokens if num_cached_tokens is None else num_cached_tokens
        num_computed = max(1, num_tokens - num_cached)
        load = self._prefill[reservation.pair.prefill]
        if self._may_learn("prefill", now_s):
            predicted_s = self.times.prefill_s(num_computed, num_cached)
            # A rank known to be slow says nothing of its pool but by as much less.
            self.times.saw_prefill(num_computed, num_cached, (now_s - began_s) / load.slowness.at(now_s))
            load.slowness.saw((now_s - began_s) / max(predicted_s, 1e-6), now_s)

    def decoding(self, reservation: Reservation, now_s: float) -> None:
        """The first byte of the decode leg is here."""
        if reservation.first_byte_s or not reservation.holds_decode:
            return
        reservation.first_byte_s = now_s
        load, decision = self._decode[reservation.pair.decode], reservation.decision
        reservation.first_running, reservation.first_kv_tokens = load.num_requests, load.kv_tokens
        if decision.slot_wait_s or not self._may_learn("transfer", now_s):
            return
        step_s = self.times.step_s(load.num_requests, load.kv_tokens)
        num_tokens = reservation.ask.num_prompt_tokens - decision.num_decode_hit_tokens
        if reservation.local:
            self.times.saw_local_prefill(num_tokens, decision.num_decode_hit_tokens, now_s - reservation.began_s)
        elif reservation.prefilled_s:
            self.times.saw_transfer(num_tokens, max(0.0, now_s - reservation.prefilled_s - step_s))

    def release(
        self, reservation: Reservation, now_s: float, num_output_tokens: int = 0, completed: bool = False
    ) -> None:
        """The request is over, however it ended; a second call does nothing."""
        ask, pair = reservation.ask, reservation.pair
        if reservation.holds_prefill:
            self._leave_prefill(reservation, now_s)
            if ask.chain:  # the leg never ended well: what it was to compute is not there
                num_held = round(reservation.decision.num_prefill_hit_tokens / max(ask.tokens_per_block, 1.0))
                self.index.removed(pair.prefill, ask.chain[num_held:])
        if not reservation.holds_decode:
            return
        if completed and ask.chain:
            self.index.stored(pair.decode, ask.chain)
        reservation.holds_decode = False
        load = self._decode[pair.decode]
        running, kv_tokens = float(load.num_requests), load.kv_tokens
        load.leave(reservation.kv_tokens)
        if not completed or not num_output_tokens:
            return
        self._osl += _OSL_WEIGHT * (num_output_tokens - self._osl)
        if reservation.first_byte_s and num_output_tokens > 1 and self._may_learn("decode", now_s):
            took_s = (now_s - reservation.first_byte_s) / (num_output_tokens - 1)
            running, kv_tokens = (
                (running + reservation.first_running) / 2,
                (kv_tokens + reservation.first_kv_tokens) / 2,
            )
            predicted_s = self.times.step_s(running, kv_tokens)
            self.times.saw_step(running, kv_tokens, took_s / load.slowness.at(now_s))
            load.slowness.saw(took_s / max(predicted_s, 1e-6), now_s)

    def _leave_prefill(self, reservation: Reservation, now_s: float) -> float:
        reservation.holds_prefill = False
        return self._prefill[reservation.pair.prefill].leave(reservation.decision.prefill_s, now_s)

    def _may_learn(self, what: str, now_s: float) -> bool:
        if now_s - self._learnt_s[what] < _LEARN_EVERY_S:
            return False
        self._learnt_s[what] = now_s
        return True


def _least(waits_s: Iterable[float], enough_s: float) -> float:
    """The least of some waits, or the first that is short enough; 0 for none."""
    least_s = inf
    for wait_s in waits_s:
        if wait_s <= enough_s:
            return wait_s
        least_s = min(least_s, wait_s)
    return 0.0 if least_s == inf else least_s


def _decision(ask: Ask, best: _Best, decode: _DecodeTerms, affinity_s: float) -> Decision:
    transfer_s, slot_s, _, _, local_s, local_delay_s, first_step_s, steps_s, decode_delay_s, num_decode_hit = decode
    if best.prefill_terms is None:
        wait_s, work_s, transfer_s, prefill_delay_s, num_prefill_hit = 0.0, local_s, 0.0, local_delay_s, 0
        slot_wait_s = slot_s
    else:
        wait_s, work_s, prefill_delay_s, _, num_prefill_hit = best.prefill_terms
        slot_wait_s = max(0.0, slot_s - (wait_s + work_s + transfer_s))
    assert best.pair is not None, "something was chosen"
    return Decision(
        best.pair, best.local, wait_s, work_s, transfer_s, slot_wait_s, first_step_s, steps_s,
        prefill_delay_s + decode_delay_s, affinity_s, ask.num_prompt_tokens, num_prefill_hit, num_decode_hit,
        best.second, best.second_s if best.second else 0.0,
    )  # fmt: skip
