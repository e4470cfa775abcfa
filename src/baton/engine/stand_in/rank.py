"""One data-parallel rank: what it computes in each step, and the KV that it holds.

The life of a sequence
  1. It waits. One whose KV another engine offers gets its blocks and fetches; the others wait for room behind it.
  2. It runs: chunks of its prompt, then a token a step. A step takes what `StepTime` says of all that is in it.
  3. It is over. Its blocks are freed, or, after a prefill leg, kept under a lease.
As in vLLM, what runs goes before what waits, nothing overtakes the first that waits, and when no block is left the
newest that runs gives its blocks back and starts anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from itertools import takewhile

from baton.engine.client import HttpClient
from baton.engine.stand_in.block_pool import BlockPool
from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.hand_off import HandOff
from baton.engine.stand_in.kv_cache import KvCache
from baton.engine.stand_in.kv_publisher import KvPublisher
from baton.engine.stand_in.metrics import RankMetrics
from baton.engine.stand_in.sequence import Finish, Sequence
from baton.engine.stand_in.steps import step_s


class Rank:
    """One rank; `crashed` says why it computes nothing any more.

    stalled   whether no step may begin; call `go_on` when one may again
    """

    def __init__(
        self,
        config: StandInConfig,
        number: int,
        engine_id: str,
        metrics: RankMetrics,
        client: HttpClient,
        stalled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config
        self.number = number
        self.engine_id = engine_id
        self.metrics = metrics
        self.pool = BlockPool(config.num_gpu_blocks, caching=config.enable_prefix_caching)
        self.cache = KvCache(self.pool, config, engine_id)
        self.publisher: KvPublisher | None = None
        self.crashed = ""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.hand_off = HandOff(
            config,
            number,
            engine_id,
            self.pool,
            metrics,
            client,
            is_gone=lambda: bool(self.crashed),
            waiting=self.waiting,
            let_go=self._let_go,
            contents_of=lambda blocks: self.contents_of(blocks),  # noqa: PLW0108 - looked up anew: a test may replace it
            fetched=self._fetched,
        )
        self.side = self.hand_off.side
        self.leases = self.hand_off.leases
        self.fetching = self.hand_off.fetching
        self._stalled = stalled
        self._stepping = False
        self._step_ends_s = -math.inf

    async def start(self) -> None:
        """Open the side channel and the publisher of KV events, where the configuration has them."""
        config = self.config
        if config.kv_connector:
            await self.hand_off.start()
        if config.kv_events is not None:
            self.publisher = KvPublisher(config.kv_events, self.number, config.release, config.block_size)

    async def stop(self) -> None:
        """Drop everything, as a process does that is killed."""
        await self.hand_off.drop()
        self.running.clear()
        self.waiting.clear()
        self.crashed = self.crashed or "stopped"
        if self.publisher is not None:
            self.publisher.close()
        await self.hand_off.stop()

    @property
    def num_unfinished(self) -> int:
        """Sequences that wait, fetch or run."""
        return len(self.waiting) + len(self.fetching) + len(self.running)

    def contents_of(self, blocks: list[int]) -> list[int]:
        """What lies in blocks now; of one that isn't there, zeros."""
        contents = self.pool.contents
        return [contents[block] if 0 <= block < len(contents) else 0 for block in blocks]

    def reset_prefix_cache(self) -> bool:
        """Forget what is cached; False while a block is held. It is published with the next step."""
        return self.pool.clear()

    def tell(self) -> None:
        """Bring what is told as a state, not as events, up to date."""
        self.metrics.gauge("num_requests_running", len(self.running))
        self.metrics.gauge("num_requests_waiting", len(self.waiting) + len(self.fetching))
        self.metrics.gauge("kv_cache_usage_perc", self.pool.usage)
        self.hand_off.tell()

    # -- sequences come and go ---------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """Let it wait; `heard` is called from now on."""
        self.waiting.append(sequence)
        self._wake()

    def abort(self, sequence: Sequence) -> None:
        """End it now; KV that it was to fetch and has not asked for is given back."""
        if sequence.finish is not None:
            return
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            if self.hand_off.is_to_fetch(sequence):
                self.hand_off.release(sequence.params)
            self._free(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        self._end(sequence, Finish.ABORT)  # one that fetches frees its blocks when that is done

    def crash(self, why: str) -> None:
        """The engine core ends: whatever is here fails, and all that comes."""
        self.crashed = why
        sequences = [s for s in (*self.running, *self.waiting, *self.fetching) if s.finish is None]
        self.running.clear()
        self.waiting.clear()
        for sequence in sequences:
            self._end(sequence, Finish.ERROR)

    def _end(self, sequence: Sequence, finish: Finish) -> None:
        if sequence.finish is None:
            sequence.finish = finish
        self.metrics.finished(sequence, asyncio.get_running_loop().time())
        sequence.heard()

    def _free(self, sequence: Sequence) -> None:
        self._let_go(sequence.blocks)
        sequence.blocks = []

    def _let_go(self, blocks: list[int]) -> None:
        self.pool.release(blocks)
        self._wake()

    def go_on(self) -> None:
        """Take up what a stall has held."""
        self._wake()

    # -- steps -------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._stepping and (self.running or self.waiting) and not self.crashed:
            self._stepping = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        if self.crashed:
            return
        parts = [] if self._stalled() else self._schedule()
        if not parts:
            self._stepping = False
            self._step_ends_s = -math.inf  # a step makes up for a late timer, not for time without work
            return
        slow = max((s.faults.slow or 1.0) for s, _ in parts)
        took_s = step_s(parts, self.config.step_time) * slow / self.config.speed
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        late_s = now_s - self._step_ends_s
        self._step_ends_s = (self._step_ends_s if late_s < took_s else now_s) + took_s
        if took_s:
            loop.call_at(self._step_ends_s, self._complete, parts)
        else:
            loop.call_soon(self._complete, parts)

    def _schedule(self) -> list[tuple[Sequence, int]]:
        """What the next step computes: sequences and how many tokens of each."""
        budget = self.config.max_num_batched_tokens
        parts = []
        for sequence in list(self.running):
            num_tokens = min(len(sequence.ids) - sequence.num_computed, budget)
            if num_tokens and self._room(sequence, num_tokens):
                parts.append((sequence, num_tokens))
                budget -= num_tokens
        parts = [part for part in parts if part[0].blocks]  # one that was preempted after it was chosen has none
        while self.waiting and budget and len(self.running) < self.config.max_num_seqs:
            sequence = self.waiting[0]
            admitted = self._admit(sequence, budget)
            if self.crashed:
                return []
            if admitted is None:
                break
            self.waiting.popleft()
            if admitted:
                self.running.append(sequence)
                parts.append((sequence, admitted))
                budget -= admitted
        return parts

    def _room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Blocks for a sequence that runs; False when it had to give its own back."""
        while sequence in self.running:
            needed = self.cache.num_blocks(sequence.num_computed + num_tokens) - len(sequence.blocks)
            blocks = self.pool.allocate(max(0, needed))
            if blocks is not None:
                sequence.blocks += blocks
                return True
            victim = self.running.pop()
            self.pool.release(victim.blocks)
            victim.blocks = []
            victim.num_computed = victim.taint = 0
            self.waiting.insert(sum(1 for _ in takewhile(lambda s: s.blocks, self.waiting)), victim)
            self.metrics.count("num_preemptions")
        return False

    def _admit(self, sequence: Sequence, budget: int) -> int | None:
        """Blocks for the first that waits, and how many of its tokens to compute: 0 while it fetches; None: no room."""
        if sequence.blocks:  # fetched: only what the sampler needs is computed, which is the last token
            sequence.num_computed = min(sequence.num_computed, len(sequence.ids) - 1)
            return min(len(sequence.ids) - sequence.num_computed, budget)
        size, length = self.config.block_size, len(sequence.ids)
        hits = self.pool.matched(self.cache.hashes(sequence)[: (length - 1) // size]) if self.pool.caching else []
        cached = len(hits) * size
        fetches = self.hand_off.is_to_fetch(sequence)
        num_tokens = 0 if fetches else min(length - cached, budget)
        needed = self.cache.num_blocks(length if fetches else cached + num_tokens) - len(hits)
        if needed > self.pool.num_free - self.pool.num_unheld(hits):
            return None
        self.pool.hold(hits)
        blocks = self.pool.allocate(needed)
        assert blocks is not None, "room was seen to"
        sequence.blocks = [*hits, *blocks]
        sequence.num_computed = cached
        if not sequence.output:
            sequence.num_cached = cached
            sequence.scheduled_s = asyncio.get_running_loop().time()
        sequence.read(self.contents_of(hits), size)
        if fetches:
            self._fetch_soon(sequence, len(hits))
        return num_tokens

    def _complete(self, parts: list[tuple[Sequence, int]]) -> None:
        if self.crashed:
            return
        now_s = asyncio.get_running_loop().time()
        for sequence, num_tokens in parts:
            if sequence.finish is None and sequence.blocks:
                self.cache.computed(sequence, num_tokens)
                if sequence.num_computed == len(sequence.ids):
                    self._sample(sequence, now_s)
        if self.publisher is not None:
            self.publisher.publish(self.pool.take_events())
        self._begin()

    def _sample(self, sequence: Sequence, now_s: float) -> None:
        if not sequence.output:
            self.metrics.prompt(sequence, caching=self.pool.caching)
        sequence.next_token(self.config.block_size)
        self.metrics.token(sequence, now_s)
        if sequence.finish is None:
            sequence.heard()
            return
        self.running.remove(sequence)
        if sequence.params.get("do_remote_decode") and self.hand_off.offers_after(sequence.finish):
            sequence.offer = self.hand_off.offer(sequence)
        else:
            self._free(sequence)
        self._end(sequence, sequence.finish)

    def _fetch_soon(self, sequence: Sequence, num_hits: int) -> None:
        if why_not := self.hand_off.fetch_soon(sequence, num_hits):
            self.crash(why_not)

    def _fetched(self, sequence: Sequence, num_hits: int, contents: list[int] | None) -> None:
        """Go on with a sequence whose KV is here, or cannot be had: then it is computed, or fails."""
        config = self.config
        if sequence.finish is not None:  # aborted meanwhile
            self._free(sequence)
            return
        sequence.num_external = sequence.num_prompt - sequence.num_computed
        if contents is None and config.kv_load_failure_policy == "fail":
            self._free(sequence)
            self._end(sequence, Finish.ERROR)
            return
        if contents is not None:  # else it is computed here; the metrics say it came from there, as vLLM's do
            for block, content in zip(sequence.blocks[num_hits:], contents, strict=True):
                self.pool.contents[block] = content
            sequence.taint = 0
            sequence.read(self.contents_of(sequence.blocks), config.block_size)
            sequence.num_computed = sequence.num_prompt
            whole = (sequence.num_prompt - 1) // config.block_size  # the last comes with its token
            self.cache.store(sequence, num_hits, whole)
        self.waiting.appendleft(sequence)
        self._wake()
