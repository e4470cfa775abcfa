"""What baton's routing is compared with: three published ways to choose ranks, behind the Router's interface.

round-robin    the next prefill rank, the next decode rank
least-loaded   on each side the rank with the fewest requests reserved on it
kv-cost        the KV-aware cost of ai-dynamo/dynamo 1.x (docs, "KV Cache Routing": cost = prefill_load_scale *
               adjusted_prefill_blocks + decode_blocks), from its formula, with its defaults: prefill_load_scale 1,
               overlap credit 1, no decay, temperature 0. As there, prefill is chosen without decode_blocks, decode
               without overlap and only after prefill has ended.
kv-cost-decay  the same with overlap_score_credit_decay 1: a rank's cache counts for less the more prefill it has to do
               beyond the least loaded one
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from routing_sim import Setting

from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair, RankId
from baton.policy.routing import Ask, Router
from baton.policy.step_times import StepTimes


def ours(index: PrefixIndex, setting: Setting, *, prefill_locally: bool = False) -> Router:
    """baton's router as the gateway makes it: its own defaults, the ranks' room as the engines report it."""
    router = Router(index=index, times=StepTimes(), prefill_locally=prefill_locally)
    for number in range(setting.num_decode):
        router.set_limits(RankId(f"decode-{number}", 0), setting.speed.max_sequences, setting.speed.kv_tokens)
    return router


class Explanation:
    """What a baseline says of a decision: its name."""

    ttft_s, num_prefill_hit_tokens = 0.0, 0
    """no prediction"""

    def __init__(self, policy: str, pair: Pair) -> None:
        self.policy, self.pair = policy, pair

    def as_dict(self) -> dict[str, object]:
        return {"policy": self.policy, "pair": str(self.pair)}

    def text(self) -> str:
        return f"{self.pair} by {self.policy}"


@dataclass(slots=True, eq=False)
class Held:
    """A baseline's reservation."""

    pair: Pair
    ask: Ask
    decision: Explanation
    local: bool = False
    holds_prefill: bool = True
    holds_decode: bool = True
    num_prefill_tokens: int = field(default=0)
    """uncached tokens this request was expected to add to its prefill rank"""


class Baseline:
    """What all baselines share: who holds what. `choose_prefill` and `choose_decode` differ."""

    name = "baseline"

    def __init__(self) -> None:
        self.pairs: tuple[Pair, ...] = ()
        self.prefill_load: Counter[RankId] = Counter()
        self.decode_load: Counter[RankId] = Counter()
        self._last_used: dict[RankId, int] = {}
        self._turn = 0

    def set_pairs(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)

    def reserve(self, ask: Ask, now_s: float, avoid: Sequence[str] = ()) -> Held | None:
        allowed = [pair for pair in self.pairs if not {pair.prefill.worker, pair.decode.worker} & set(avoid)]
        if not allowed:
            return None
        prefill = self._least(dict.fromkeys(pair.prefill for pair in allowed), lambda r: self.prefill_cost(r, ask))
        pair = Pair(prefill, self._decode_for(prefill, ask, allowed))
        held = Held(pair, ask, Explanation(self.name, pair))
        self.prefill_load[pair.prefill] += 1
        self.decode_load[pair.decode] += 1
        self.reserved(held)
        return held

    def prefilled(
        self,
        reservation: Held,
        now_s: float,
        num_prompt_tokens: int | None = None,
        num_cached_tokens: int | None = None,
        failed: bool = False,
    ) -> None:
        if reservation.holds_prefill:
            reservation.holds_prefill = False
            self.prefill_load[reservation.pair.prefill] -= 1
            self.prefill_over(reservation, failed)

    def decoding(self, reservation: Held, now_s: float) -> None:
        pass

    def release(self, reservation: Held, now_s: float, num_output_tokens: int = 0, completed: bool = False) -> None:
        self.prefilled(reservation, now_s, failed=True)
        if reservation.holds_decode:
            reservation.holds_decode = False
            self.decode_load[reservation.pair.decode] -= 1
            self.decode_over(reservation)

    def set_limits(self, rank: RankId, max_num_seqs: int | None, max_kv_tokens: int | None) -> None:
        pass

    def load(self, rank: RankId) -> int:
        return self.prefill_load[rank] + self.decode_load[rank]

    def predicted_wait_s(self, now_s: float, enough_s: float = 0.0) -> float:
        return 0.0

    def lost(self, rank: RankId) -> None:
        pass

    # -- what differs --------------------------------------------------------------------------------------------

    def prefill_cost(self, rank: RankId, ask: Ask) -> float:
        raise NotImplementedError

    def decode_cost(self, rank: RankId, ask: Ask) -> float:
        raise NotImplementedError

    def reserved(self, held: Held) -> None:
        pass

    def prefill_over(self, held: Held, failed: bool) -> None:
        pass

    def decode_over(self, held: Held) -> None:
        pass

    def _decode_for(self, prefill: RankId, ask: Ask, pairs: Sequence[Pair]) -> RankId:
        partners = [pair.decode for pair in pairs if pair.prefill == prefill]
        return self._least(partners, lambda rank: self.decode_cost(rank, ask))

    def _least(self, ranks: Iterable[RankId], cost) -> RankId:  # type: ignore[no-untyped-def]
        chosen = min(ranks, key=lambda rank: (cost(rank), self._last_used.get(rank, 0)))
        self._turn += 1
        self._last_used[chosen] = self._turn
        return chosen


class RoundRobin(Baseline):
    """The longest unused rank of each side."""

    name = "round-robin"

    def prefill_cost(self, rank: RankId, ask: Ask) -> float:
        return 0.0

    decode_cost = prefill_cost


class LeastLoaded(Baseline):
    """The rank of each side with the fewest requests reserved on it; the longest unused among equals."""

    name = "least-loaded"

    def prefill_cost(self, rank: RankId, ask: Ask) -> float:
        return self.prefill_load[rank]

    def decode_cost(self, rank: RankId, ask: Ask) -> float:
        return self.decode_load[rank]


class KvCost(Baseline):
    """The published rule, in its blocks. Blocks are those of the chain, so that all policies see the same prefixes.

    learns   False: the index is fed by the engines' events; True: this router notes what it has sent where
    """

    name = "kv-cost"

    def __init__(self, index: PrefixIndex, *, learns: bool, credit: float = 1.0, decay: float = 0.0) -> None:
        super().__init__()
        self.name = "kv-cost-decay" if decay else "kv-cost"
        self._index, self._learns, self._credit, self._decay = index, learns, credit, decay
        self._matched: dict[RankId, int] = {}
        self._active_prefill_tokens: Counter[RankId] = Counter()
        self._active_decode_blocks: Counter[RankId] = Counter()

    def reserve(self, ask: Ask, now_s: float, avoid: Sequence[str] = ()) -> Held | None:
        self._matched = self._index.matched(ask.chain)
        return super().reserve(ask, now_s, avoid)

    def prefill_cost(self, rank: RankId, ask: Ask) -> float:
        block = ask.tokens_per_block or 1.0
        active = self._active_prefill_tokens
        excess = active[rank] - min(active[pair.prefill] for pair in self.pairs)
        decayed = self._credit / (1 + self._decay * excess / max(ask.num_prompt_tokens, 1))
        overlap = self._matched.get(rank, 0)
        raw = (active[rank] + ask.num_prompt_tokens) / block
        return max(raw - decayed * overlap, 0.0)

    def decode_cost(self, rank: RankId, ask: Ask) -> float:
        return self._active_decode_blocks[rank]

    def reserved(self, held: Held) -> None:
        overlap_tokens = round(self._matched.get(held.pair.prefill, 0) * held.ask.tokens_per_block)
        held.num_prefill_tokens = max(held.ask.num_prompt_tokens - overlap_tokens, 0)
        self._active_prefill_tokens[held.pair.prefill] += held.num_prefill_tokens
        self._active_decode_blocks[held.pair.decode] += self._blocks(held)

    def prefill_over(self, held: Held, failed: bool) -> None:
        self._active_prefill_tokens[held.pair.prefill] -= held.num_prefill_tokens
        if failed:
            return
        if self._learns:
            self._index.stored(held.pair.prefill, held.ask.chain)
        # Decode is chosen again, with what is known now, as the project does.
        self._active_decode_blocks[held.pair.decode] -= self._blocks(held)
        self.decode_load[held.pair.decode] -= 1
        held.pair = Pair(held.pair.prefill, self._decode_for(held.pair.prefill, held.ask, self.pairs))
        held.decision = Explanation(self.name, held.pair)
        self._active_decode_blocks[held.pair.decode] += self._blocks(held)
        self.decode_load[held.pair.decode] += 1

    def decode_over(self, held: Held) -> None:
        self._active_decode_blocks[held.pair.decode] -= self._blocks(held)

    def lost(self, rank: RankId) -> None:
        self._index.cleared(rank)

    @staticmethod
    def _blocks(held: Held) -> int:
        return -(-held.ask.num_prompt_tokens // max(round(held.ask.tokens_per_block), 1))
