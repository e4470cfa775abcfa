"""One rank's part in hand-offs: KV that it offers under leases, and KV that it fetches from others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from baton.base.errors import BatonError
from baton.engine.client import HttpClient
from baton.engine.stand_in.block_pool import BlockPool
from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.leases import Leases
from baton.engine.stand_in.metrics import RankMetrics
from baton.engine.stand_in.sequence import Finish, Sequence
from baton.engine.stand_in.side_channel import SideChannel

_CORRUPTION = 0x5EED


class HandOff:
    """What is offered, what is fetched, and who is told.

    is_gone   whether the engine has ended: it tells nobody anything
    waiting   sequences of the rank that wait: heartbeats go out for what they are to fetch
    let_go    given the blocks of a lease that is over
    fetched   given a sequence, how many of its blocks it had found here, and what came for the others; None: nothing
    """

    def __init__(
        self,
        config: StandInConfig,
        number: int,
        engine_id: str,
        pool: BlockPool,
        metrics: RankMetrics,
        client: HttpClient,
        *,
        is_gone: Callable[[], bool],
        waiting: deque[Sequence],
        let_go: Callable[[list[int]], None],
        contents_of: Callable[[list[int]], list[int]],
        fetched: Callable[[Sequence, int, list[int] | None], None],
    ) -> None:
        self.engine_id = engine_id
        self.layout = f"{config.version}/{config.cache_dtype}/{config.block_size}"
        self.leases = Leases(config.kv_lease_duration_s, let_go)
        self.fetching: dict[Sequence, asyncio.Task[None]] = {}
        self.port = 0
        self._config = config
        self._number = number
        self._pool = pool
        self._metrics = metrics
        self.side = SideChannel(self, client)
        self._is_gone = is_gone
        self._waiting = waiting
        self._contents_of = contents_of
        self._fetched = fetched
        self._beats: asyncio.Task[None] | None = None
        self._notices: set[asyncio.Task[None]] = set()
        self._counted = [0, 0]

    async def start(self) -> None:
        """Open the side channel."""
        base = self._config.side_channel_port
        self.port = await self.side.start(self._config.side_channel_host, base + self._number if base else 0)
        if self._config.release.has_leases:
            self._beats = asyncio.create_task(self._beat())

    async def drop(self) -> None:
        """Forget what is under way and what is held; nobody is told."""
        tasks = [*self.fetching.values(), *self._notices, *([self._beats] if self._beats else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.leases.forget()
        self.fetching.clear()

    async def stop(self) -> None:
        """Close the side channel."""
        if self.port:
            await self.side.stop()

    def tell(self) -> None:
        """Count what has become of leases since the last time."""
        counted = [self.leases.num_expired, self.leases.num_late_notices]
        names = ("nixl_num_kv_expired_reqs", "nixl_num_notifications_after_expiry")
        for name, now, then in zip(names, counted, self._counted, strict=True):
            self._metrics.count(name, now - then)
        self._counted = counted

    def offers_after(self, finish: Finish) -> bool:
        """Whether a prefill that ended so offers its KV."""
        return finish is Finish.LENGTH or self._config.release.offers_after_stop

    def release(self, params: dict[str, Any]) -> None:
        """Tell, in the background, that nobody needs this KV any more; an engine that is gone tells nothing."""
        if self._is_gone():
            return
        task = asyncio.get_running_loop().create_task(self._notify(params))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    def contents_of(self, blocks: list[int]) -> list[int]:
        """What lies in blocks now."""
        return self._contents_of(blocks)

    def offer(self, sequence: Sequence) -> dict[str, Any]:
        """Keep a finished prefill's KV, and say where it is."""
        blocks, faults, release = sequence.blocks, sequence.faults, self._config.release
        for place, block in enumerate(blocks):
            if faults.corrupt_kv:
                self._pool.contents[block] ^= _CORRUPTION
            if faults.truncate_kv and place >= len(blocks) // 2:
                self._pool.contents[block] = 0
        self.leases.hold(sequence.request_id, blocks, expired=faults.expire_lease)
        offer = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [blocks] if release.groups_blocks else blocks,
            "remote_engine_id": self.engine_id,
            "remote_request_id": sequence.request_id,
            "remote_host": self._config.side_channel_host,
            "remote_port": self.port,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": sequence.num_computed,
            "remote_blocks_expiry_time": None,
            "remote_registration_generation": 0,
            "transfer_mode": "pull",
        }
        if len(sequence.output) == 1:
            offer["remote_prefill_cached_tokens"] = sequence.num_cached
        return {key: value for key, value in offer.items() if release.has_in_offer(key)}

    def is_to_fetch(self, sequence: Sequence) -> bool:
        """Whether its KV is offered and has not been asked for."""
        return bool(sequence.params.get("do_remote_prefill")) and self._config.kv_connector and not sequence.fetched

    def fetch_soon(self, sequence: Sequence, num_hits: int) -> str:
        """Fetch what a sequence has not found here; why that cannot be, or nothing."""
        groups = sequence.params.get("remote_block_ids")
        remote = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], list) else groups
        num_blocks = len(sequence.blocks) - num_hits
        sequence.fetched = True
        if not isinstance(remote, list) or len(remote) < num_blocks:
            return f"{num_blocks} KV blocks are needed, offered are {remote!r:.80}"
        fetch = self._fetch(sequence, num_hits, remote[len(remote) - num_blocks :])
        self.fetching[sequence] = asyncio.get_running_loop().create_task(fetch)
        return ""

    async def _fetch(self, sequence: Sequence, num_hits: int, remote: list[int]) -> None:
        config, params = self._config, sequence.params
        num_bytes = len(remote) * config.block_size * config.kv_bytes_per_token
        transfer_s = (config.transfer_latency_s + num_bytes / config.transfer_bytes_per_s) / config.speed
        contents: list[int] | None = None
        try:
            contents = await self.side.fetch(params, remote)
            await asyncio.sleep(transfer_s)
        except (BatonError, KeyError):
            self._metrics.count("nixl_num_failed_transfers")
        else:
            self._metrics.observe("nixl_bytes_transferred", num_bytes)
            self._metrics.observe("nixl_xfer_time_seconds", transfer_s)
            if not sequence.faults.drop_notice:
                self.release(params)
        del self.fetching[sequence]
        self._fetched(sequence, num_hits, contents)

    async def _notify(self, params: dict[str, Any]) -> None:
        if not await self.side.notify(params):
            self._metrics.count("nixl_num_failed_notifications")

    async def _beat(self) -> None:
        """While KV waits to be fetched, tell those that hold it, every sixth of a lease.

        Source: vLLM 0.32.0, nixl/base_scheduler.py (_heartbeat_interval)
        """
        while True:
            await asyncio.sleep(self._config.kv_lease_duration_s / 6)
            wanted: dict[str, tuple[dict[str, Any], list[str]]] = {}
            for sequence in [*self._waiting, *self.fetching]:
                if "remote_engine_id" in sequence.params and (sequence in self.fetching or not sequence.fetched):
                    params = sequence.params
                    wanted.setdefault(str(params["remote_engine_id"]), (params, []))[1].append(
                        str(params.get("remote_request_id"))
                    )
            for params, request_ids in wanted.values():
                await self.side.beat(params, request_ids)
