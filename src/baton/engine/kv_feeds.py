"""The KV events of every rank of a deployment that publishes them, brought to one prefix index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import zmq.asyncio

from baton.base.errors import ConfigError
from baton.engine.kv_feed import KvFeed
from baton.engine.origin import Origin
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.rank import RankId
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker


class KvFeeds:
    """Follows every rank of workers that have a `kv_events_port`; the others are left to guesses.

    What is routed to a prefill rank counts until the rank's word is there; of a decode rank only its own word counts.
    Raises   ConfigError when no prefill worker publishes
    """

    def __init__(self, workers: Sequence[Worker], index: ExactPrefixes, *, replay_s: float = 10.0) -> None:
        self.feeds: list[KvFeed] = []
        self._index = index
        if not any(worker.kv_events_port and worker.role is Role.PREFILL for worker in workers):
            raise ConfigError(
                "exact prefixes need KV events, and no prefill worker of the workers file has a kv_events_port; start "
                "the engines with --kv-events-config and name their ports, or do without --exact-prefixes"
            )
        for worker in workers:
            for dp_rank in worker.dp_ranks:
                if worker.kv_events_port is None:
                    continue
                rank, above = RankId(worker.name, dp_rank), dp_rank - min(worker.dp_ranks)
                index.follow(rank, guesses=worker.role is Role.PREFILL)
                replay = None if worker.kv_replay_port is None else _endpoint(worker, worker.kv_replay_port + above)
                feed = KvFeed(rank, _endpoint(worker, worker.kv_events_port + above), replay, index, replay_s=replay_s)
                self.feeds.append(feed)

    async def run(self) -> None:
        """Follow them all, for ever."""
        context = zmq.asyncio.Context()
        try:
            async with asyncio.TaskGroup() as tasks:
                for feed in self.feeds:
                    tasks.create_task(feed.run(context))
                await asyncio.Event().wait()
        finally:
            context.destroy(linger=0)

    def explain(self) -> dict[str, Any]:
        """What each rank has told, and what could not be used of it."""
        return {
            "block_size": self._index.block_size,
            "blocks_not_used": asdict(self._index.counts),
            "ranks": {
                str(feed.rank): {
                    "blocks": self._index.num_told(feed.rank),
                    **asdict(feed.counts),
                    "unknown_events": feed.decoder.num_unknown,
                    "extra_fields": feed.decoder.num_extra_fields,
                }
                for feed in self.feeds
            },
        }


def _endpoint(worker: Worker, port: int) -> str:
    return f"tcp://{Origin(Origin.parse(worker.url).host, port)}"
