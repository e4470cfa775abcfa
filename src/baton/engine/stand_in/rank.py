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
from typing import Any

from baton.base.errors import BatonError
from baton.engine.client import HttpClient
from baton.engine.stand_in.block_pool import BlockPool, BlocksStored
from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.kv_publisher import KvPublisher
from baton.engine.stand_in.leases import Leases
from baton.engine.stand_in.metrics import RankMetrics
from baton.engine.stand_in.model import digest, seed_of
from baton.engine.stand_in.sequence import Finish, Sequence
from baton.engine.stand_in.side_channel import SideChannel

_CORRUPTION = 0x5EED


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
        self.layout = f"{config.version}/{config.cache_dtype}/{config.block_size}"
        self.pool = BlockPool(config.num_gpu_blocks, caching=config.enable_prefix_caching)
        self.leases = Leases(config.kv_lease_duration_s, self._let_go)
        self.side = SideChannel(self, client)
        self.port = 0
        self.publisher: KvPublisher | None = None
        self.crashed = ""
        self.waiting: deque[Sequence] = deque()
        self.fetching: dict[Sequence, asyncio.Task[None]] = {}
        self.running: list[Sequence] = []
        self._beats: asyncio.Task[None] | None = None
        self._notices: set[asyncio.Task[None]] = set()
        self._stalled = stalled
        self._stepping = False
        self._step_ends_s = -math.inf
        self._counted = [0, 0]

    async def start(self) -> None:
        """Open the side channel and the publisher of KV events, where the configuration has them."""
        config = self.config
        if config.kv_connector:
            base = config.side_channel_port
            self.port = await self.side.start(config.side_channel_host, base + self.number if base else 0)
            if config.release.has_leases:
                self._beats = asyncio.create_task(self._beat())
        if config.kv_events is not None:
            self.publisher = KvPublisher(config.kv_events, self.number, config.release, config.block_size)

    async def stop(self) -> None:
        """Drop everything, as a process does that is killed."""
        tasks = [*self.fetching.values(), *self._notices, *([self._beats] if self._beats else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.leases.forget()
        self.running.clear()
        self.waiting.clear()
        self.fetching.clear()
        self.crashed = self.crashed or "stopped"
        if self.publisher is not None:
            self.publisher.close()
        if self.port:
            await self.side.stop()

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
        counted = [self.leases.num_expired, self.leases.num_late_notices]
        names = ("nixl_num_kv_expired_reqs", "nixl_num_notifications_after_expiry")
        for name, now, then in zip(names, counted, self._counted, strict=True):
            self.metrics.count(name, now - then)
        self._counted = counted

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
            if self._is_to_fetch(sequence):
                self.release(sequence.params)
            self._free(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        self._end(sequence, Finish.ABORT)  # one that fetches frees its blocks when that is done

    def release(self, params: dict[str, Any]) -> None:
        """Tell, in the background, that nobody will fetch this KV; an engine that is gone tells nothing."""
        if self.crashed:
            return
        task = asyncio.get_running_loop().create_task(self._notify(params))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

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
        step_s = self._step_s(parts) * slow / self.config.speed
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        late_s = now_s - self._step_ends_s
        self._step_ends_s = (self._step_ends_s if late_s < step_s else now_s) + step_s
        if step_s:
            loop.call_at(self._step_ends_s, self._complete, parts)
        else:
            loop.call_soon(self._complete, parts)

    def _step_s(self, parts: list[tuple[Sequence, int]]) -> float:
        prefill_tokens = prefill_context = num_running = context_tokens = 0
        for sequence, num_tokens in parts:
            given = sequence.num_prompt - sequence.fetched  # the last token of a prompt that was fetched is computed
            if num_tokens == 1 and sequence.num_computed >= given:
                num_running += 1
                context_tokens += sequence.num_computed
            else:
                prefill_tokens += num_tokens
                prefill_context += num_tokens * sequence.num_computed
        return self.config.step_time.step_s(prefill_tokens, prefill_context, num_running, context_tokens)

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
            needed = self._num_blocks(sequence.num_computed + num_tokens) - len(sequence.blocks)
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
        hits = self.pool.matched(self._hashes(sequence)[: (length - 1) // size]) if self.pool.caching else []
        cached = len(hits) * size
        fetches = self._is_to_fetch(sequence)
        num_tokens = 0 if fetches else min(length - cached, budget)
        needed = self._num_blocks(length if fetches else cached + num_tokens) - len(hits)
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
                self._computed(sequence, num_tokens)
                if sequence.num_computed == len(sequence.ids):
                    self._sample(sequence, now_s)
        if self.publisher is not None:
            self.publisher.publish(self.pool.take_events())
        self._begin()

    def _computed(self, sequence: Sequence, num_tokens: int) -> None:
        size, begin = self.config.block_size, sequence.num_computed
        end = sequence.num_computed = begin + num_tokens
        for block in range(begin // size, self._num_blocks(end)):
            self.pool.contents[sequence.blocks[block]] = sequence.content(block, end, size) ^ sequence.taint
        self._store(sequence, begin // size, end // size)

    def _sample(self, sequence: Sequence, now_s: float) -> None:
        if not sequence.output:
            self.metrics.prompt(sequence, caching=self.pool.caching)
        sequence.next_token(self.config.block_size)
        self.metrics.token(sequence, now_s)
        if sequence.finish is None:
            sequence.heard()
            return
        self.running.remove(sequence)
        if sequence.params.get("do_remote_decode") and self._offers_after(sequence.finish):
            sequence.offer = self._offer(sequence)
        else:
            self._free(sequence)
        self._end(sequence, sequence.finish)

    def _store(self, sequence: Sequence, begin: int, end: int) -> None:
        """Let whole blocks be found by their hashes."""
        if not self.pool.caching or end <= begin:
            return
        hashes, size, salt = self._hashes(sequence), self.config.block_size, sequence.cache_salt
        stored = BlocksStored(
            hashes[begin:end],
            hashes[begin - 1] if begin else None,
            sequence.ids[begin * size : end * size],
            [[salt] if salt and block == 0 else None for block in range(begin, end)],
        )
        self.pool.store(sequence.blocks[begin:end], stored)

    def _hashes(self, sequence: Sequence) -> list[int]:
        sequence.hash_blocks(digest(sequence.cache_salt.encode(), seed_of(self.engine_id)), self.config.block_size)
        return sequence.hashes

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.config.block_size)

    # -- hand-off ----------------------------------------------------------------------------------------------

    def _offers_after(self, finish: Finish) -> bool:
        return finish is Finish.LENGTH or self.config.release.offers_after_stop

    def _offer(self, sequence: Sequence) -> dict[str, Any]:
        """Keep a finished prefill's KV, and say where it is."""
        blocks, faults, release = sequence.blocks, sequence.faults, self.config.release
        for place, block in enumerate(blocks):
            if faults.corrupt_kv:
                self.pool.contents[block] ^= _CORRUPTION
            if faults.truncate_kv and place >= len(blocks) // 2:
                self.pool.contents[block] = 0
        self.leases.hold(sequence.request_id, blocks, expired=faults.expire_lease)
        offer = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [blocks] if release.groups_blocks else blocks,
            "remote_engine_id": self.engine_id,
            "remote_request_id": sequence.request_id,
            "remote_host": self.config.side_channel_host,
            "remote_port": self.port,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": sequence.num_computed,
            "remote_blocks_expiry_time": None,
            "transfer_mode": "pull",
        }
        if len(sequence.output) == 1:
            offer["remote_prefill_cached_tokens"] = sequence.num_cached
        return {key: value for key, value in offer.items() if release.has_in_offer(key)}

    def _is_to_fetch(self, sequence: Sequence) -> bool:
        return bool(sequence.params.get("do_remote_prefill")) and self.config.kv_connector and not sequence.fetched

    def _fetch_soon(self, sequence: Sequence, num_hits: int) -> None:
        groups = sequence.params.get("remote_block_ids")
        remote = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], list) else groups
        num_blocks = len(sequence.blocks) - num_hits
        sequence.fetched = True
        if not isinstance(remote, list) or len(remote) < num_blocks:
            self.crash(f"{num_blocks} KV blocks are needed, offered are {remote!r:.80}")
            return
        fetch = self._fetch(sequence, num_hits, remote[len(remote) - num_blocks :])
        self.fetching[sequence] = asyncio.get_running_loop().create_task(fetch)

    async def _fetch(self, sequence: Sequence, num_hits: int, remote: list[int]) -> None:
        config, params = self.config, sequence.params
        num_bytes = len(remote) * config.block_size * config.kv_bytes_per_token
        transfer_s = (config.transfer_latency_s + num_bytes / config.transfer_bytes_per_s) / config.speed
        contents: list[int] | None = None
        try:
            contents = await self.side.fetch(params, remote)
            await asyncio.sleep(transfer_s)
        except (BatonError, KeyError):
            self.metrics.count("nixl_num_failed_transfers")
        else:
            self.metrics.observe("nixl_bytes_transferred", num_bytes)
            self.metrics.observe("nixl_xfer_time_seconds", transfer_s)
            if not sequence.faults.drop_notice:
                self.release(params)
        del self.fetching[sequence]
        if sequence.finish is not None:  # aborted meanwhile
            self._free(sequence)
            return
        sequence.num_external = sequence.num_prompt - sequence.num_computed
        if contents is None and config.kv_load_failure_policy == "fail":
            self._free(sequence)
            self._end(sequence, Finish.ERROR)
            return
        if contents is not None:
            for block, content in zip(sequence.blocks[num_hits:], contents, strict=True):
                self.pool.contents[block] = content
            sequence.taint = 0
            sequence.read(self.contents_of(sequence.blocks), config.block_size)
            sequence.num_computed = sequence.num_prompt
            self._store(
                sequence, num_hits, (sequence.num_prompt - 1) // config.block_size
            )  # the last comes with its token
        else:
            sequence.fetched = True  # computed here; the metrics say it came from there, as vLLM's do
        self.waiting.appendleft(sequence)
        self._wake()

    async def _notify(self, params: dict[str, Any]) -> None:
        if not await self.side.notify(params):
            self.metrics.count("nixl_num_failed_notifications")

    async def _beat(self) -> None:
        """While KV waits to be fetched, tell those that hold it, every sixth of a lease.

        Source: vLLM 0.32.0, nixl/base_scheduler.py (_heartbeat_interval)
        """
        while True:
            await asyncio.sleep(self.config.kv_lease_duration_s / 6)
            wanted: dict[str, tuple[dict[str, Any], list[str]]] = {}
            for sequence in [*self.waiting, *self.fetching]:
                if "remote_engine_id" in sequence.params and (sequence in self.fetching or not sequence.fetched):
                    params = sequence.params
                    wanted.setdefault(str(params["remote_engine_id"]), (params, []))[1].append(
                        str(params.get("remote_request_id"))
                    )
            for params, request_ids in wanted.values():
                await self.side.beat(params, request_ids)
